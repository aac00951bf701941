"""Attention's operands as lanes: every head fills whole words, and zero points become products with constant lanes.

    sum (q - z)(k - w) = q . k  +  q . (-w)  +  (-z) . k  +  n z w        (n = head dimension)

is one dot product of longer vectors: [q, q, -z, c] . [k, -w, k, d], where the constant lanes c, d give n z w. A
constant that a table never gives is the sum of several.
"""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.graph import Attend, Ints, Producer, Product
from intaglio.backends.fpga.operations import CONSTANT, PAD, pad_columns
from intaglio.backends.fpga.refusal import refusal

Pair = tuple[int, int]


def scores(attend: Attend, config: AcceleratorConfig) -> tuple[Ints, Ints]:
    """Columns of q and k, heads after one another."""
    assert attend.q is not None
    assert attend.k is not None
    z, w = int(attend.step.attrs["q_zero"]), int(attend.step.attrs["k_zero"])
    q, k = attend.q.columns.reshape(attend.heads, -1), attend.k.columns.reshape(attend.heads, -1)
    q_image, k_image = image(attend.q.producer), image(attend.k.producer)
    pairs = _products(q.shape[1] * z * w, q_image, k_image)
    minus_z, minus_w = _summands(-z, q_image), _summands(-w, k_image)
    if pairs is None or minus_z is None or minus_w is None:
        raise _refusal(attend)
    q_lanes = [q, *(q for _ in minus_w), *(np.full_like(q, CONSTANT + c) for c in minus_z)]
    k_lanes = [k, *(np.full_like(k, CONSTANT + c) for c in minus_w), *(k for _ in minus_z)]
    q_lanes += [np.full_like(q[:, :1], CONSTANT + c) for c, _ in pairs]
    k_lanes += [np.full_like(k[:, :1], CONSTANT + c) for _, c in pairs]
    q_pad, k_pad = _fillers(attend, sum(lanes.shape[1] for lanes in q_lanes) % config.depth != 0)
    return _padded(q_lanes, config, q_pad), _padded(k_lanes, config, k_pad)


def values(attend: Attend, config: AcceleratorConfig) -> Ints:
    """Columns of v, heads after one another."""
    assert attend.v is not None
    return _padded([attend.v.columns.reshape(attend.heads, -1)], config, PAD)


def before_table(product: Product, value: int) -> int:
    """What the product must give so that its table makes `value`, one of `image(product)`, of it."""
    return value if product.table is None else int(np.flatnonzero(product.table == value)[0]) - 128


def image(producer: Producer) -> Ints:
    """Constants that a column of the producer can hold: none if a residual is added to it."""
    if not isinstance(producer, Product) or producer.addend is not None or producer.constants:
        return np.zeros(0, np.int64)
    return np.arange(-128, 128) if producer.table is None else np.unique(producer.table).astype(np.int64)


def _summands(value: int, allowed: Ints) -> list[int] | None:
    """The fewest of `allowed`, up to 3, whose sum is `value`."""
    if value == 0:
        return []
    if value in allowed:
        return [value]
    rest = np.isin(value - allowed, allowed)
    if rest.any():
        first = int(allowed[rest][0])
        return [first, value - first]
    for first in allowed:
        more = (
            _summands(value - int(first), allowed)
            if np.isin(value - first - allowed, allowed).any()
            else None
        )
        if more is not None:
            return [int(first), *more]
    return None


def _products(total: int, left: Ints, right: Ints) -> list[Pair] | None:
    """Pairs of constants whose products add up to `total`."""
    if total == 0:
        return []
    pairs: list[Pair] = []
    known = {int(a) * int(b): (int(a), int(b)) for a in left for b in right}
    sums = np.array(sorted(known), np.int64)
    while total:
        if not len(sums):
            return None
        rest = np.isin(total - sums, sums)
        if rest.any():
            first = int(sums[rest][0])
            return pairs + [known[part] for part in (first, total - first) if part]
        largest = int(sums[-1] if total > 0 else sums[0])
        if largest * total <= 0 or len(pairs) > 255:
            return None
        pairs.append(known[largest])
        total -= largest
    return pairs


def _padded(lanes: list[Ints], config: AcceleratorConfig, filler: int) -> Ints:
    return np.concatenate([pad_columns(head, config.depth, filler) for head in np.concatenate(lanes, axis=1)])


def _fillers(attend: Attend, needed: bool) -> Pair:
    """Filler of q and of k: a lane adds nothing if one of them is 0."""
    assert attend.q is not None
    assert attend.k is not None
    if not needed:
        return PAD, PAD
    if 0 in image(attend.k.producer):
        return PAD, CONSTANT
    if 0 in image(attend.q.producer):
        return CONSTANT, PAD
    raise _refusal(attend)


def _refusal(attend: Attend) -> Exception:
    return refusal(
        attend.step,
        "its q and k cannot hold the constants that their zero points or the head dimension need",
        "quantize q and k symmetrically",
    )
