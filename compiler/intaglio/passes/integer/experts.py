"""A mixture of experts: the MLPs whose results it weights become part of one integer op.

The MLPs have been made integer by then, each as an ordinary one; their descriptions say what they compute and on which
grids. The ops that they were made of have no reader any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from intaglio.ops import moe
from intaglio.ops.base import Grid
from intaglio.passes.integer.functions import identity
from intaglio.passes.integer.lazy import (
    Linear,
    Mixture,
    OnGrid,
    Pending,
    Unary,
    Value,
    covers,
    negated,
)
from intaglio.passes.integer.walk import Bound, RefusedError, Walk

ROLE = "expert"


def mixture(walk: Walk, bound: Bound) -> Value:
    """The k best of the results, weighted: waits for the grid of the sum."""
    logits = _logits(walk, walk.value(bound.call.args[0]))
    values = [walk.value(arg) for arg in bound.call.args[1:]]
    results = [walk.emitter.need(value, ROLE) for value in values]
    found = [_expert(walk, result, index) for index, result in enumerate(results)]
    if any(not expert.x.expr.same_as(found[0].x.expr) for expert in found):
        raise RefusedError("has experts that read their tokens on different grids; quantize the tokens once")
    kind = Mixture(
        x=found[0].x,
        logits=logits,
        experts=tuple(expert.mlp for expert in found),
        result=_common([result.grid for result in results]),
        k=int(bound.call.attrs["k"]),
        normalize=bool(bound.call.attrs["normalize"]),
    )
    return walk.pending(bound.shape, kind, *values)


@dataclass(frozen=True)
class _Found:
    """An expert, and the tokens that it reads."""

    x: OnGrid
    mlp: moe.Expert


def _logits(walk: Walk, value: Value) -> OnGrid:
    """The gate's logits; without a grid, on 16 bits with the step at which none of them can saturate."""
    if isinstance(value, Pending) and isinstance(value.kind, Linear):
        kind = value.kind
        reach = np.abs(kind.weight.astype(np.float64)).sum(axis=1) * kind.weight_scale * _reach(kind.x.grid)
        largest = (reach + (0.0 if kind.bias is None else np.abs(kind.bias))) * abs(value.factor)
        grid = walk.emitter.bounded(value.tensor, float(largest.max()))
        return _moved(walk, walk.emitter.on_grid(_still(value, kind), grid), value)
    return walk.emitter.need(value, "gate logits")


def _still(value: Pending, kind: Linear) -> Pending:
    """`value` before its moves: the gate is a step of its own."""
    shape = (*kind.x.shape[:-1], len(kind.weight))
    return replace(value, shape=shape, moves=(), nodes=value.nodes[: len(value.nodes) - len(value.moves)])


def _moved(walk: Walk, tensor: OnGrid, value: Pending) -> OnGrid:
    """`tensor` after the moves of `value`."""
    expr = tensor.expr
    for move in value.moves:
        expr = walk.emitter.move(expr, move, tensor.grid, value.nodes[-1:])
    return OnGrid(value.shape, expr=expr, grid=tensor.grid)


def _reach(grid: Grid) -> float:
    low, high = grid.dequantize(np.array([grid.minimum, grid.maximum]))
    return float(max(-low, high))


def _expert(walk: Walk, result: OnGrid, index: int) -> _Found:
    """The MLP that `result` is computed by."""
    second = _projection(walk, result, index, "second")
    _mark(walk, result, second[0])
    origin = walk.emitter.origin(second[0])
    hidden, function, activated = second[0], None, None
    if isinstance(origin, Unary):
        hidden, activated = origin.source, second[0].grid
        rounded = origin.grid is not None and origin.grid != activated
        function = origin.rounded() if rounded else origin.function or identity
    first = _projection(walk, hidden, index, "first")
    _mark(walk, hidden, first[0])
    mlp = moe.Expert(first[1], hidden.grid, second[1], function, activated)
    return _Found(first[0], mlp)


def _projection(walk: Walk, result: OnGrid, index: int, which: str) -> tuple[OnGrid, moe.Projection]:
    """The product that `result` is, and what it reads. A rounding between product and bias is always skipped."""
    value = walk.emitter.origin(result)
    if not isinstance(value, Pending) or not isinstance(value.kind, Linear) or value.moves:
        raise RefusedError(
            f"has an expert ({index}) whose {which} product is no linear layer as it is quantized"
        )
    kind = value.kind if value.factor > 0 else negated(value.kind)
    assert isinstance(kind, Linear)
    factor = abs(value.factor)
    bias = None if kind.bias is None else kind.bias * factor
    return kind.x, moe.Projection(kind.weight, kind.weight_scale * factor, bias)


def _mark(walk: Walk, tensor: OnGrid, until: OnGrid) -> None:
    """Missing scales inside an expert must be of 8 bits."""
    own = set(tensor.nodes) - set(until.nodes)
    value = walk.emitter.origin(tensor)
    own |= {value.tensor} if isinstance(value, Pending) else set()
    inner = walk.emitter.origin(until)
    own |= {inner.nodes[-1]} if isinstance(inner, Unary) and inner.nodes else set()
    for entry in walk.emitter.missing:
        if entry.role != "weight" and entry.tensor in own:
            entry.role = ROLE


def _common(grids: list[Grid]) -> Grid:
    """One grid for the results of all experts: the coarsest, or one that reaches as far as all where it does not."""
    coarsest = max(grids, key=lambda grid: grid.scale)
    if all(covers(coarsest, grid) for grid in grids) or any(grid.dtype != "int8" for grid in grids):
        return coarsest
    ends = [grid.dequantize(np.array([grid.minimum, grid.maximum])) for grid in grids]
    low, high = min(float(end[0]) for end in ends), max(float(end[1]) for end in ends)
    scale = (high - low) / 255
    return replace(coarsest, scale=scale, zero_point=round(-128 - low / scale))
