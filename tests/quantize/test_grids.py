"""The choice of type and range for one tensor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.quantize import grids
from intaglio.quantize.grids import Seen

LINEAR, SCORES, RESIDUAL = (
    grids.rule(role, "auto") for role in ("linear input", "attention scores", "residual")
)


def seen(values: NDArray[np.float64]) -> Seen:
    counts, edges = np.histogram(values, 4096, range=(-np.abs(values).max(), np.abs(values).max()))
    return Seen(float(values.min()), float(values.max()), counts, (edges[1:] + edges[:-1]) / 2)


def normal(count: int = 20_000) -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(size=count)


def test_least_error_cuts_a_long_tail_off() -> None:
    found = seen(np.random.default_rng(2).laplace(size=200_000))
    clipped = grids.grid(found, LINEAR, "auto", "mse")
    full = grids.grid(found, LINEAR, "auto", "minmax")
    assert clipped.scale < 0.95 * full.scale
    assert grids.decibels(found, clipped) > grids.decibels(found, full) + 0.5


def test_a_tensor_that_8_bits_cannot_hold_gets_16() -> None:
    spread = np.append(normal(), [3000.0, -3000.0])
    assert grids.grid(seen(spread), LINEAR, "auto", "mse").dtype == "int16"
    assert grids.grid(seen(spread), LINEAR, "int8", "mse").dtype == "int8"
    assert grids.grid(seen(normal()), LINEAR, "auto", "mse").dtype == "int8"


def test_scores_keep_their_largest_and_widen_when_the_step_is_coarse() -> None:
    grid = grids.grid(seen(normal() * 4), SCORES, "auto", "mse")
    assert grid.dtype == "int8"
    assert (grid.maximum - grid.zero_point) * grid.scale >= (normal() * 4).max() - grid.scale
    assert grids.grid(seen(normal() * 30), SCORES, "auto", "mse").dtype == "int16"


def test_16_bits_leave_headroom() -> None:
    grid = grids.grid(seen(normal()), RESIDUAL, "auto", "mse")
    assert grid.zero_point == 0
    assert grid.scale * 32767 == pytest.approx(grids.HEADROOM * np.abs(normal()).max())


def test_a_tensor_that_is_always_zero_has_a_grid() -> None:
    zero = Seen(0.0, 0.0, np.array([5]), np.array([0.0]))
    for rule in (LINEAR, SCORES, RESIDUAL):
        for method in grids.METHODS:
            assert grids.grid(zero, rule, "auto", method).scale > 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 1), st.booleans())
def test_weights_are_off_by_half_a_step_at_most(seed: int, axis: int, per_channel: bool) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(5, 7)) * np.exp(rng.normal(0, 3, size=(5, 1)))).astype(np.float32)
    values[0] = 0
    integers, scale = grids.weight(values, axis, per_channel)
    steps = np.expand_dims(scale, 1 - axis) if per_channel else scale
    assert integers.min() >= -127
    assert scale.shape == ((values.shape[axis],) if per_channel else ())
    assert (np.abs(integers * steps.astype(np.float64) - values) <= steps * 0.50001).all()
