"""linear, patch_embed and matmul against float64 on the QDQ grid and against unbounded Python integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdq_oracle import Agreement, array, dtypes, execute, fitted, grid, kinds, seeds, within_one

from intaglio.ops import Grid, add, linear, matmul, patch_embed, table
from intaglio.ops.base import Built


def exact_bias(rng: np.random.Generator, x: Grid, scale: np.ndarray, size: float) -> np.ndarray:
    """A bias on the accumulator's own grid, as QDQ models store it."""
    return np.rint(rng.normal(size=scale.shape) * size / (x.scale * scale)) * (x.scale * scale)


def case(
    rng: np.random.Generator, x: np.ndarray, weight: np.ndarray, out_dtype: str, spread: float
) -> tuple[Built, np.ndarray, Grid]:
    x_grid = grid(rng, x.dtype.name)
    scale = np.exp(rng.uniform(-9, -5, len(weight)))
    bias = exact_bias(rng, x_grid, scale, 1.0)
    real = x_grid.dequantize(x) @ (weight.astype(np.float64) * scale[:, None]).T + bias
    out = fitted(rng, real, out_dtype, spread)
    return linear.parameters(x_grid, weight, scale, bias, out), real, out


@given(seeds, dtypes, dtypes, dtypes, kinds, kinds, st.floats(0.05, 4))
def test_linear_is_within_one_lsb(
    seed: int, x_dtype: str, w_dtype: str, out_dtype: str, x_kind: str, w_kind: str, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    rows, depth, channels = rng.integers(1, [5, 70, 9])
    x, weight = array(rng, (rows, depth), x_dtype, x_kind), array(rng, (channels, depth), w_dtype, w_kind)
    built, real, out = case(rng, x, weight, out_dtype, spread)
    within_one(execute("linear", [x], built), real, out)


@pytest.mark.parametrize("x_dtype", ["int8", "int16"])
@pytest.mark.parametrize("w_dtype", ["int8", "int16"])
@pytest.mark.parametrize("out_dtype", ["int8", "int16"])
def test_linear_equals_qdq_almost_always(x_dtype: str, w_dtype: str, out_dtype: str) -> None:
    rng = np.random.default_rng(7)
    agreement = Agreement()
    for _ in range(4):
        x, weight = array(rng, (64, 192), x_dtype, "normal"), array(rng, (96, 192), w_dtype, "normal")
        built, real, out = case(rng, x, weight, out_dtype, 1.0)
        agreement.add(execute("linear", [x], built), real, out)
    print(f"linear {x_dtype} x {w_dtype} -> {out_dtype}: equal {agreement.share:.5f}")
    assert agreement.share >= 0.99


@pytest.mark.parametrize("out_dtype", ["int8", "int16"])
@pytest.mark.parametrize("depth", [3072, 33])
def test_linear_at_its_extremes_equals_unbounded_integers(out_dtype: str, depth: int) -> None:
    rng = np.random.default_rng(depth)
    x_grid = Grid(1e-4, -32768, "int16")
    weight = np.stack([np.full(depth, -32768), np.full(depth, 32767), array(rng, (depth,), "int16")])
    x = np.stack([np.full(depth, -32768), np.full(depth, 32767), array(rng, (depth,), "int16")]).astype(
        "int16"
    )
    out = Grid(1e-4 * 1e-3 * depth * 2.0**30 / np.iinfo(out_dtype).max, 5, out_dtype)
    built = linear.parameters(x_grid, weight, 1e-3, np.array([1e6, -1e6, 0.0]), out)
    result = execute("linear", [x], built)
    assert built.attrs["acc_dtype"] == "int64"
    assert result.astype(int).tolist() == _unbounded_linear(x, built)


def _unbounded_linear(x: np.ndarray, built: Built) -> list[list[int]]:
    weight, bias, multiplier, shift = (c.tolist() for c in built.constants)
    limits = np.iinfo(built.attrs["dtype"])
    rows = []
    for row in x.tolist():
        acc = [b + sum(p * q for p, q in zip(row, w, strict=True)) for w, b in zip(weight, bias, strict=True)]
        assert all(abs(a * m) < 2**62 for a, m in zip(acc, multiplier, strict=True))
        scaled = [(a * m + (1 << (s - 1))) >> s for a, m, s in zip(acc, multiplier, shift, strict=True)]
        rows.append([min(max(y + built.attrs["zero_point"], limits.min), limits.max) for y in scaled])
    return rows


def test_the_accumulator_type_is_proven_from_the_weights() -> None:
    x, out = Grid(0.1, 0, "int8"), Grid(1.0, 0, "int8")
    largest = (2**31 - 1) // 128
    for total, dtype in ((largest, "int32"), (largest + 1, "int64")):
        weight = np.full((1, 1000), 32767)
        weight[0, : 1000 - total // 32767 - 1] = 0
        weight[0, -1] = total - (np.abs(weight).sum() - 32767)
        assert np.abs(weight).sum() == total
        assert linear.parameters(x, weight, 1e-6, None, out).attrs["acc_dtype"] == dtype


def test_a_pruned_channel_keeps_its_bias() -> None:
    x, out = Grid(0.02, 11, "int8"), Grid(0.05, -3, "int8")
    weight = np.array([[0, 0], [3, -128], [5, 127]])
    bias = np.array([1.23, -2.5001, 1e9])
    built = linear.parameters(x, weight, np.array([1e-12, 1e-30, 1e-3]), bias, out)
    result = execute("linear", [np.array([[-128, 127], [5, 5]], np.int8)], built)
    assert result.tolist() == [[22, -53, 127]] * 2
    assert built.constants[0].dtype == np.int8
    assert built.attrs["acc_dtype"] == "int32"


def test_linear_refuses_weights_beyond_int16_and_ratios_without_multiplier() -> None:
    x, out = Grid(0.02, 0, "int8"), Grid(0.05, 0, "int8")
    with pytest.raises(ValueError, match=r"weight must be \[N, K\] within int16"):
        linear.parameters(x, np.array([[40000]]), 1.0, None, out)
    with pytest.raises(ValueError, match="too large for a 17-bit multiplier"):
        linear.parameters(x, np.array([[1]]), 1e9, None, out)


@given(seeds, dtypes, dtypes, st.booleans(), st.booleans())
def test_fused_linear_equals_the_sequence(
    seed: int, x_dtype: str, out_dtype: str, has_table: bool, has_residual: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, weight = array(rng, (3, 5, 17), x_dtype), array(rng, (6, 17), "int8")
    built, real, out = case(rng, x, weight, out_dtype, 1.0)
    expected = execute("linear", [x], built)
    constants, attrs, residuals = list(built.constants), dict(built.attrs), []
    after = out
    if has_table:
        after = fitted(rng, real, "int8")
        gelu = table.parameters(np.tanh, out, after)
        constants, attrs = constants + gelu.constants, attrs | {"has_table": 1}
        expected = execute("table", [expected], gelu)
    if has_residual:
        other, total = grid(rng, "int16"), grid(rng, "int16")
        summed = add.parameters(after, other, total)
        residuals = [array(rng, (3, 5, 6), "int16")]
        attrs |= {"has_residual": 1} | {f"add_{name}": value for name, value in summed.attrs.items()}
        expected = execute("add", [expected, *residuals], summed)
    result = execute("linear", [x, *constants, *residuals], Built([], attrs))
    assert np.array_equal(result, expected)


@given(seeds, dtypes, dtypes)
def test_patch_embed_is_a_convolution(seed: int, x_dtype: str, out_dtype: str) -> None:
    rng = np.random.default_rng(seed)
    batch, channels, ph, pw, rows, columns, width = rng.integers(1, [3, 4, 5, 5, 4, 4, 6])
    x_grid = grid(rng, x_dtype)
    x = array(rng, (batch, channels, rows * ph, columns * pw), x_dtype)
    weight = array(rng, (width, channels, ph, pw), "int8")
    scale = np.exp(rng.uniform(-9, -5, width))
    bias = exact_bias(rng, x_grid, scale, 1.0)
    real = np.empty((batch, rows, columns, width))
    for i in range(rows):
        for j in range(columns):
            patch = x_grid.dequantize(x[:, :, i * ph : (i + 1) * ph, j * pw : (j + 1) * pw])
            real[:, i, j] = np.einsum("bcyx,ncyx->bn", patch, weight * scale[:, None, None, None]) + bias
    real = real.reshape(batch, rows * columns, width)
    out = fitted(rng, real, out_dtype)
    built = patch_embed.parameters(x_grid, weight, scale, bias, out)
    within_one(execute("patch_embed", [x], built), real, out)


def test_patch_embed_refuses_other_weights() -> None:
    with pytest.raises(ValueError, match=r"weight must be \[N, C, ph, pw\]"):
        patch_embed.parameters(Grid(1, 0, "int8"), np.ones((2, 2)), 1.0, None, Grid(1, 0, "int8"))


@given(seeds, dtypes, dtypes, dtypes, kinds, kinds, st.booleans(), st.floats(0.1, 4))
def test_matmul_is_within_one_lsb(
    seed: int,
    a_dtype: str,
    b_dtype: str,
    out_dtype: str,
    a_kind: str,
    b_kind: str,
    transpose: bool,
    spread: float,
) -> None:
    rng = np.random.default_rng(seed)
    batch, rows, depth, columns = rng.integers(1, [3, 6, 80, 6])
    a = array(rng, (batch, 2, rows, depth), a_dtype, a_kind)
    b = array(rng, (batch, 2, columns, depth) if transpose else (batch, 2, depth, columns), b_dtype, b_kind)
    a_grid, b_grid, factor = grid(rng, a_dtype), grid(rng, b_dtype), float(rng.uniform(0.05, 1))
    right = b_grid.dequantize(b)
    real = factor * (a_grid.dequantize(a) @ (right.swapaxes(-1, -2) if transpose else right))
    out = fitted(rng, real, out_dtype, spread)
    built = matmul.parameters(a_grid, b_grid, out, int(depth), factor, int(transpose))
    within_one(execute("matmul", [a, b], built), real, out)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("out_dtype", ["int8", "int16"])
def test_matmul_equals_qdq_almost_always(dtype: str, out_dtype: str) -> None:
    rng = np.random.default_rng(8)
    agreement = Agreement()
    for _ in range(6):
        a, b = array(rng, (4, 50, 64), dtype, "normal"), array(rng, (4, 64, 50), dtype, "normal")
        a_grid, b_grid = grid(rng, dtype), grid(rng, dtype)
        real = a_grid.dequantize(a) @ b_grid.dequantize(b)
        out = fitted(rng, real, out_dtype)
        agreement.add(execute("matmul", [a, b], matmul.parameters(a_grid, b_grid, out, 64)), real, out)
    print(f"matmul {dtype} -> {out_dtype}: equal {agreement.share:.5f}")
    assert agreement.share >= 0.99
