"""A slice of a product is the product of a slice, by any of the ways exporters write it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax

from intaglio.ops.base import Grid
from intaglio.passes.integer.lazy import Linear, Move, OnGrid, Pending
from intaglio.passes.integer.moves import attrs_of, moved_array
from intaglio.passes.integer.narrow import narrowed

B, N, H, D, K = 2, 5, 3, 4, 6
CHANNELS = 3 * H * D


def linear() -> Linear:
    rng = np.random.default_rng(0)
    var = relax.Var("x", relax.TensorType((B, N, K), "int8"))
    x = OnGrid((B, N, K), expr=var, grid=Grid(0.5, 0, "int8"))
    weight = rng.integers(-127, 128, (CHANNELS, K)).astype(np.int8)
    return Linear(x, weight, rng.uniform(0.1, 1, CHANNELS), rng.normal(size=CHANNELS))


def evaluate(value: Pending) -> np.ndarray:
    x = np.random.default_rng(1).integers(-128, 128, (B, N, K)).astype(np.float64)
    kind = value.kind
    result = x @ (kind.weight * kind.weight_scale[:, None]).T + kind.bias
    for move in value.moves:
        result = moved_array(result, move)
    return result


def slice_of(shape: tuple[int, ...], axis: int, first: int, last: int) -> Move:
    begin, end = [0] * len(shape), list(shape)
    begin[axis], end[axis] = first, last
    return attrs_of("slice", begin=begin, end=end, strides=[1] * len(shape))


SPLIT = attrs_of("reshape", shape=[B, N, 3, H, D])
PERMUTE = attrs_of("transpose", axes=[2, 0, 3, 1, 4])
CASES = {
    "timm": [SPLIT, PERMUTE, slice_of((3, B, H, N, D), 0, 1, 2), attrs_of("reshape", shape=[B, H, N, D])],
    "slice before permute": [
        SPLIT,
        slice_of((B, N, 3, H, D), 2, 2, 3),
        attrs_of("reshape", shape=[B, N, H, D]),
    ],
    "split": [slice_of((B, N, CHANNELS), 2, H * D, 2 * H * D), attrs_of("reshape", shape=[B, N, H, D])],
    "two cuts": [SPLIT, slice_of((B, N, 3, H, D), 2, 0, 2), slice_of((B, N, 2, H, D), 2, 1, 2)],
}


@pytest.mark.parametrize("name", CASES)
def test_only_the_channels_read_are_computed(name: str) -> None:
    whole = Pending((B, N, CHANNELS), kind=linear(), tensor="t", moves=tuple(CASES[name]))
    part = narrowed(whole)
    assert len(part.kind.weight) == H * D
    np.testing.assert_array_equal(evaluate(part), evaluate(whole))


@pytest.mark.parametrize(
    "moves",
    [
        [slice_of((B, N, CHANNELS), 1, 0, 1)],  # a token, not a channel
        [SPLIT, slice_of((B, N, 3, H, D), 3, 0, 1)],  # a head of each: not a run of channels
        [attrs_of("reshape", shape=[B * N, CHANNELS]), slice_of((B * N, CHANNELS), 1, 0, 1)],
    ],
)
def test_other_slices_stay(moves: list[Move]) -> None:
    whole = Pending((B, N, CHANNELS), kind=linear(), tensor="t", moves=tuple(moves))
    assert narrowed(whole) is whole
    assert narrowed(replace(whole, moves=())).moves == ()
