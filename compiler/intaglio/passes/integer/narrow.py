"""A linear of which only some channels are read computes those only.

Exporters write q, k and v as one product, split afterwards. Where each third has a grid of its own, each is its own
op; the slice of the result becomes a slice of the weights.
"""

from __future__ import annotations

from dataclasses import replace

from intaglio.passes.integer.lazy import Linear, Move, Pending
from intaglio.passes.integer.moves import attrs_of


def narrowed(value: Pending) -> Pending:
    """`value` with a slice among its moves taken before the product, where the slice selects a run of channels.

    Understands a slice of the channel axis itself, or of the outermost part of it after one reshape and transposes.
    """
    kind = value.kind
    if not isinstance(kind, Linear) or kind.patch is not None:
        return value
    index = next((i for i, (op, _) in enumerate(value.moves) if op == "slice"), None)
    if index is None:
        return value
    found = _channels(kind, list(value.moves[:index]), value.moves[index])
    if found is None:
        return value
    first, last, before = found
    rows = slice(first, last)
    bias = None if kind.bias is None else kind.bias[rows]
    part = replace(kind, weight=kind.weight[rows], weight_scale=kind.weight_scale[rows], bias=bias)
    return narrowed(replace(value, kind=part, moves=(*before, *value.moves[index + 1 :])))


def _channels(kind: Linear, before: list[Move], cut: Move) -> tuple[int, int, list[Move]] | None:
    """The run of channels that `cut` selects, and the moves that lead to its result from a product of just these."""
    shape = (*kind.x.shape[:-1], len(kind.weight))
    reshapes = [i for i, (op, _) in enumerate(before) if op == "reshape"]
    if (
        len(reshapes) > 1
        or any(op not in ("reshape", "transpose") for op, _ in before)
        or reshapes not in ([], [0])
    ):
        return None
    split = list(before[0][1]["shape"]) if reshapes else list(shape)
    if split[: len(shape) - 1] != list(shape[:-1]):
        return None
    order = list(range(len(split)))
    for _, attrs in before[len(reshapes) :]:
        order = [order[axis] for axis in attrs["axes"]]
    begin, end, strides = cut[1]["begin"], cut[1]["end"], cut[1]["strides"]
    sizes = [split[axis] for axis in order]
    partial = [i for i, size in enumerate(sizes) if (begin[i], end[i], strides[i]) != (0, size, 1)]
    if len(partial) != 1 or order[partial[0]] != len(shape) - 1 or strides[partial[0]] != 1:
        return None
    inner = len(kind.weight) // split[len(shape) - 1]
    first, last = begin[partial[0]], end[partial[0]]
    split[len(shape) - 1] = last - first
    moves = [attrs_of("reshape", shape=split), *before[1:]] if reshapes else before
    return first * inner, last * inner, moves
