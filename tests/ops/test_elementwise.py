"""quantize_input, table, add, rescale and mean against float64 on the QDQ grid."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdq_oracle import Agreement, array, dtypes, execute, fitted, grid, kinds, seeds, within_one

from intaglio.ops import Grid, add, mean, quantize_input, rescale, table

ALL_TYPES = [(a, b) for a in ("int8", "int16") for b in ("int8", "int16")]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@given(seeds, dtypes, st.integers(1, 4))
def test_quantize_input_is_exact(seed: int, dtype: str, channels: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (2, channels, 3, 5)).astype(np.uint8)
    average, deviation = rng.uniform(0.2, 0.7, channels), rng.uniform(0.1, 0.4, channels)
    out = grid(rng, dtype)
    real = (x / 255 - average[:, None, None]) / deviation[:, None, None]
    built = quantize_input.parameters(average.tolist(), deviation.tolist(), out, channels)
    Agreement(limit=0).add(execute("quantize_input", [x], built), real, out)
    same = quantize_input.parameters(0.5, 0.25, out, channels).constants[0]
    assert same.shape == (channels, 256)
    assert (same == same[0]).all()


@given(seeds, dtypes, dtypes)
def test_table_is_exact(seed: int, dtype: str, out_dtype: str) -> None:
    rng = np.random.default_rng(seed)
    x_grid, out = grid(rng, dtype), grid(rng, out_dtype)
    x = array(rng, (3, 50), dtype)
    built = table.parameters(np.tanh, x_grid, out)
    Agreement(limit=0).add(execute("table", [x], built), np.tanh(x_grid.dequantize(x)), out)


def test_table_refuses_nan() -> None:
    with pytest.raises(ValueError, match="cannot quantize NaN"):
        table.parameters(lambda x: x * np.nan, Grid(0.1, 0, "int8"), Grid(0.1, 0, "int8"))


@pytest.mark.parametrize("scale", [0.01, 0.04, 0.1, 0.25])
@pytest.mark.parametrize("zero_point", [0, -100])
def test_shift_gelu_does_not_break_beyond_the_published_range(scale: float, zero_point: int) -> None:
    """The paper's form is off by 7.9 at a row maximum of 16 (facts: 2.6); this one by ShiftExp's error only."""
    x_grid, out = Grid(scale, zero_point, "int8"), Grid(scale * 256 / 32767, 0, "int16")
    x = np.arange(-128, 128).astype(np.int8)
    result = out.dequantize(execute("table", [x], table.shift_gelu(x_grid, out)))
    real = x_grid.dequantize(x)
    # x * sigmoid(1.702 x) is within 0.0203 of GELU; ShiftExp is off by up to 0.13 relative to exp(0) at these scales.
    shift_error = {0.01: 0.053, 0.04: 0.062, 0.1: 0.1, 0.25: 0.25}[scale]
    sigmoid = real / (1 + np.exp(-1.702 * real))
    assert np.abs(result - sigmoid).max() <= shift_error * 0.75 + out.scale
    assert np.abs(result - gelu(real)).max() <= shift_error * 0.75 + 0.0204 + out.scale
    far = np.abs(real) > 9.37
    assert np.abs(result[far] - np.maximum(real[far], 0)).max(initial=0) <= 0.01


@given(
    seeds, dtypes, dtypes, dtypes, kinds, kinds, st.floats(-3, 3), st.sampled_from((1, -1)), st.floats(0.3, 4)
)
def test_add_is_within_one_lsb(
    seed: int,
    a_dtype: str,
    b_dtype: str,
    out_dtype: str,
    a_kind: str,
    b_kind: str,
    ratio: float,
    sign: int,
    spread: float,
) -> None:
    rng = np.random.default_rng(seed)
    a_grid = grid(rng, a_dtype)
    b_step = a_grid.scale * np.iinfo(a_dtype).max / np.iinfo(b_dtype).max
    b_grid = grid(rng, b_dtype, float(b_step * np.exp(ratio)))
    a = array(rng, (2, 3, 40), a_dtype, a_kind)
    b = array(rng, [(2, 3, 40), (1, 3, 40), (40,), (1,)][rng.integers(4)], b_dtype, b_kind)
    real = a_grid.dequantize(a) + sign * b_grid.dequantize(b)
    # The output covers the operands: where these cancel, an output grid that covers no more than the sum would
    # have operands on grids thousands of times coarser.
    reach = max(a_grid.scale * a_grid.reach, b_grid.scale * b_grid.reach)
    out = fitted(rng, np.array(reach), out_dtype, spread)
    within_one(execute("add", [a, b], add.parameters(a_grid, b_grid, out, sign)), real, out)


@pytest.mark.parametrize(("dtype", "out_dtype"), ALL_TYPES)
@pytest.mark.parametrize("b_dtype", ["int8", "int16"])
def test_add_equals_qdq_almost_always(dtype: str, b_dtype: str, out_dtype: str) -> None:
    rng = np.random.default_rng(17)
    agreement = Agreement()
    for _ in range(10):
        a, b = array(rng, (100, 192), dtype, "normal"), array(rng, (100, 192), b_dtype, "normal")
        a_grid, b_grid = grid(rng, dtype), grid(rng, b_dtype)
        real = a_grid.dequantize(a) + b_grid.dequantize(b)
        out = fitted(rng, real, out_dtype)
        agreement.add(execute("add", [a, b], add.parameters(a_grid, b_grid, out)), real, out)
    print(f"add {dtype} + {b_dtype} -> {out_dtype}: equal {agreement.share:.5f}")
    assert agreement.share >= 0.99


@pytest.mark.parametrize("ratio", [1 / 128, 128])
def test_add_at_the_largest_scale_ratios(ratio: float) -> None:
    rng = np.random.default_rng(18)
    a, b = array(rng, (100, 192), "int8"), array(rng, (100, 192), "int8")
    a_grid, out = Grid(0.0213, -17, "int8"), Grid(0.0199, 3, "int8")
    b_grid = Grid(0.0213 * ratio, 40, "int8")
    real = a_grid.dequantize(a) + b_grid.dequantize(b)
    within_one(execute("add", [a, b], add.parameters(a_grid, b_grid, out)), real, out)


def test_add_refuses_another_sign() -> None:
    one = Grid(1, 0, "int8")
    with pytest.raises(ValueError, match="b_sign must be 1 or -1, not 2"):
        add.parameters(one, one, one, 2)


@given(seeds, dtypes, dtypes, kinds, st.booleans(), st.booleans(), st.floats(0.1, 4))
def test_rescale_is_within_one_lsb(
    seed: int, dtype: str, out_dtype: str, kind: str, per_channel: bool, has_offset: bool, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    x_grid, x = grid(rng, dtype), array(rng, (4, 3, 17), dtype, kind)
    factor = rng.normal(size=17) if per_channel else float(rng.uniform(0.1, 3))
    offset = rng.normal(size=17) if has_offset else None
    real = x_grid.dequantize(x) * factor + (0 if offset is None else offset)
    out = fitted(rng, real, out_dtype, spread)
    built = rescale.parameters(x_grid, factor, offset, out)
    assert built.constants[0].shape == ((17,) if per_channel else (1,))
    within_one(execute("rescale", [x], built), real, out)


@pytest.mark.parametrize(("dtype", "out_dtype"), ALL_TYPES)
def test_rescale_equals_qdq_almost_always(dtype: str, out_dtype: str) -> None:
    rng = np.random.default_rng(19)
    agreement = Agreement()
    for _ in range(10):
        x_grid, x = grid(rng, dtype), array(rng, (100, 192), dtype, "normal")
        # LayerScale as trained: factors over three orders of magnitude.
        factor = np.exp(rng.uniform(np.log(1e-3), 0, 192)) * rng.choice([-1, 1], 192)
        real = x_grid.dequantize(x) * factor
        out = fitted(rng, real, out_dtype)
        agreement.add(execute("rescale", [x], rescale.parameters(x_grid, factor, None, out)), real, out)
    print(f"rescale {dtype} -> {out_dtype}: equal {agreement.share:.5f}")
    assert agreement.share >= 0.99


def test_rescale_saturates_whatever_the_offset() -> None:
    x = np.array([[-32768, 32767]], np.int16)
    out = Grid(1e-3, 9, "int8")
    built = rescale.parameters(Grid(1e-3, 0, "int16"), 1e-25, np.array([1e30, -1e30]), out)
    assert execute("rescale", [x], built).tolist() == [[127, -128]]


@given(seeds, dtypes, dtypes, kinds, st.integers(0, 2), st.booleans(), st.floats(0.3, 4))
def test_mean_is_within_one_lsb(
    seed: int, dtype: str, out_dtype: str, kind: str, axis: int, keepdims: bool, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, [6, 200, 6]))
    x_grid, x = grid(rng, dtype), array(rng, shape, dtype, kind)
    real = x_grid.dequantize(x).mean(axis=axis, keepdims=keepdims)
    out = fitted(rng, real, out_dtype, spread)
    built = mean.parameters(x_grid, shape[axis], out, axis, int(keepdims))
    within_one(execute("mean", [x], built), real, out)


@pytest.mark.parametrize(("dtype", "out_dtype"), ALL_TYPES)
def test_mean_equals_qdq_almost_always(dtype: str, out_dtype: str) -> None:
    rng = np.random.default_rng(20)
    agreement = Agreement()
    for _ in range(10):
        x_grid, x = grid(rng, dtype), array(rng, (20, 196, 192), dtype, "normal")
        real = x_grid.dequantize(x).mean(axis=1)
        out = fitted(rng, real, out_dtype)
        agreement.add(execute("mean", [x], mean.parameters(x_grid, 196, out)), real, out)
    print(f"mean {dtype} -> {out_dtype}: equal {agreement.share:.5f}")
    assert agreement.share >= 0.99


def test_grid_refuses_what_is_no_grid() -> None:
    with pytest.raises(ValueError, match="scale must be positive and finite, not 0"):
        Grid(0, 0, "int8")
    with pytest.raises(ValueError, match="dtype must be int8 or int16, not 'uint8'"):
        Grid(1, 0, "uint8")
    with pytest.raises(ValueError, match="zero point must fit int8, not 128"):
        Grid(1, 128, "int8")
