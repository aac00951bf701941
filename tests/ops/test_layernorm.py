"""layernorm against float64, Python integers, and the published failures of I-LayerNorm."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdq_oracle import Agreement, array, dtypes, execute, fitted, grid, kinds, seeds, within_one
from qdq_oracle import layernorm as real_layernorm

from intaglio.ops import Grid, layernorm
from intaglio.ops.base import Built


def affine(rng: np.random.Generator, channels: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(1, 0.5, channels), rng.normal(0, 1, channels)


@given(
    seeds,
    dtypes,
    dtypes,
    kinds,
    st.integers(64, 400),
    st.sampled_from((1e-12, 1e-6, 1e-5)),
    st.floats(0.2, 4),
)
def test_layernorm_is_within_one_lsb(
    seed: int, dtype: str, out_dtype: str, kind: str, channels: int, epsilon: float, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    x_grid, x = grid(rng, dtype), array(rng, (3, channels), dtype, kind)
    gamma, beta = affine(rng, channels)
    real = real_layernorm(x_grid.dequantize(x), gamma, beta, epsilon)
    out = fitted(rng, real, out_dtype, spread)
    within_one(execute("layernorm", [x], layernorm.parameters(x_grid, gamma, beta, epsilon, out)), real, out)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("out_dtype", ["int8", "int16"])
def test_layernorm_equals_qdq_almost_always(dtype: str, out_dtype: str) -> None:
    rng = np.random.default_rng(15)
    agreement = Agreement()
    for channels in (192, 384, 768, 1024):
        x_grid, x = grid(rng, dtype), array(rng, (100, channels), dtype, "normal")
        gamma, beta = affine(rng, channels)
        real = real_layernorm(x_grid.dequantize(x), gamma, beta, 1e-6)
        out = fitted(rng, real, out_dtype)
        agreement.add(
            execute("layernorm", [x], layernorm.parameters(x_grid, gamma, beta, 1e-6, out)), real, out
        )
    print(f"layernorm {dtype} -> {out_dtype}: equal {agreement.share:.5f}")
    assert agreement.share >= 0.99


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("outlier", [1, 20, 127])
def test_rows_with_one_outlier_channel(dtype: str, outlier: int) -> None:
    """Vision Transformers have channels far beyond all others: y reaches sqrt(C)."""
    rng = np.random.default_rng(outlier)
    x_grid = Grid(0.05, 0, dtype)
    x = np.zeros((8, 768), dtype)
    x[np.arange(8), rng.integers(0, 768, 8)] = outlier
    gamma, beta = affine(rng, 768)
    for epsilon in (0.0, 1e-5):
        real = real_layernorm(x_grid.dequantize(x), gamma, beta, epsilon)
        out = fitted(rng, real, "int16")
        within_one(
            execute("layernorm", [x], layernorm.parameters(x_grid, gamma, beta, epsilon, out)), real, out
        )


@pytest.mark.parametrize("nonlinear", ["exact", "ivit"])
@pytest.mark.parametrize("channels", [1, 2, 7, 64])
def test_constant_rows_give_beta(nonlinear: str, channels: int) -> None:
    rng = np.random.default_rng(channels)
    gamma, beta = affine(rng, channels)
    out = Grid(0.03, 5, "int8")
    x = array(rng, (9, channels), "int16", "constant rows")
    for epsilon in (0.0, 1e-5):
        built = layernorm.parameters(Grid(0.01, 3, "int16"), gamma, beta, epsilon, out, nonlinear)
        result = execute("layernorm", [x], built)
        assert np.array_equal(result, np.broadcast_to(out.quantize(beta), x.shape))


def test_zero_and_tiny_gains() -> None:
    x_grid, out = Grid(0.01, 0, "int8"), Grid(0.03, 5, "int8")
    x = array(np.random.default_rng(16), (4, 8), "int8")
    for gain in (0.0, 1e-30, 1e-9):
        built = layernorm.parameters(x_grid, np.full(8, gain), np.linspace(-2, 2, 8), 1e-6, out)
        result = execute("layernorm", [x], built)
        assert np.array_equal(result, np.broadcast_to(out.quantize(np.linspace(-2, 2, 8)), x.shape))
    built = layernorm.parameters(x_grid, np.full(8, 1e-9), np.array([1e30, -1e30] * 4), 1e-6, out)
    assert np.unique(execute("layernorm", [x], built)).tolist() == [-128, 127]
    assert np.all(execute("layernorm", [x], layernorm.parameters(x_grid, np.zeros(8), None, 1e-6, out)) == 5)


@pytest.mark.parametrize("mean", ["exact", "rounded"])
@pytest.mark.parametrize("eps", [0, 1, 1 << 61])
@pytest.mark.parametrize("channels", [1, 2, 192, 4096])
def test_layernorm_at_its_extremes_equals_unbounded_integers(mean: str, eps: int, channels: int) -> None:
    rng = np.random.default_rng(channels)
    rows = [array(rng, (channels,), "int16", kind) for kind in ("lowest", "highest", "two levels", "uniform")]
    half = np.full(channels, -32768, np.int16)
    half[: channels // 2] = 32767
    one = np.full(channels, 32767, np.int16)
    one[0] = -32768
    x = np.stack([*rows, half, one])
    gain = rng.integers(-(2**24), 2**24, channels, endpoint=True).astype(np.int32)
    offset = rng.choice([-(2**61), 0, 2**61], channels)
    attrs = {"eps": eps, "shift": 44, "zero_point": -7, "dtype": "int16", "mean": mean}
    for shift in (20, 44):
        built = Built([gain, offset], attrs | {"shift": shift})
        result = execute("layernorm", [x], built)
        assert result.astype(int).tolist() == [_unbounded_layernorm(row, built) for row in x.tolist()]


def _unbounded_layernorm(x: list[int], built: Built) -> list[int]:
    """The specification's lines in Python integers, with every bound it states asserted."""
    gain, offset = (c.tolist() for c in built.constants)
    shift, channels = built.attrs["shift"], len(x)
    total = sum(x)
    if built.attrs["mean"] == "rounded":
        total = channels * ((2 * total + channels) // (2 * channels))
        variance = sum((channels * v - total) ** 2 for v in x) // channels
    else:
        variance = channels * sum(v * v for v in x) - total * total
    assert variance <= 2**57
    variance += built.attrs["eps"]
    centred = [channels * v - total for v in x]
    assert max(map(abs, centred)) <= 2**28
    y = [0] * channels
    if variance:
        j = next(j for j in range(31) if 2**60 <= variance * 4**j < 2**62)
        root = math.isqrt(variance * 4**j)
        r = 2**54 // root
        assert 2**23 < r <= 2**24
        y = [(c * r + (1 << (33 - j))) >> (34 - j) for c in centred]
    assert max(map(abs, y)) <= 2**26
    wide = [((a * g + b + (1 << (shift - 1))) >> shift) - 7 for a, g, b in zip(y, gain, offset, strict=True)]
    return [min(max(v, -32768), 32767) for v in wide]


def rounded_mean_layernorm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """I-LayerNorm in float64: rounded mean, no epsilon (facts: 2.7)."""
    deviation = x - np.floor(x.mean(axis=-1, keepdims=True) + 0.5)
    spread = np.sqrt((deviation * deviation).mean(axis=-1, keepdims=True))
    return deviation / np.where(spread > 0, spread, 1) * gamma + beta


@given(seeds, dtypes, dtypes, kinds, st.integers(2, 400))
def test_ivit_layernorm_is_within_one_lsb_of_its_own_formula(
    seed: int, dtype: str, out_dtype: str, kind: str, channels: int
) -> None:
    rng = np.random.default_rng(seed)
    x = array(rng, (3, channels), dtype, kind)
    gamma, beta = affine(rng, channels)
    real = rounded_mean_layernorm(x.astype(np.float64), gamma, beta)
    out = fitted(rng, real, out_dtype)
    within_one(
        execute("layernorm", [x], layernorm.parameters(grid(rng, dtype), gamma, beta, 1e-5, out, "ivit")),
        real,
        out,
    )


@pytest.mark.parametrize(("dtype", "deviation"), [("int8", 1), ("int8", 5), ("int16", 100), ("int16", 30000)])
def test_ivit_layernorm_where_the_published_one_fails(dtype: str, deviation: int) -> None:
    """Newton from 2^16 is 540 % off at a root of 10; uint32 squares wrap beyond rms 3344; int8 sums wrap."""
    x = np.full((1, 384), 100 if dtype == "int8" else 0, np.int64)
    x[:, ::2] += deviation
    out = Grid(2 / 32767, 0, "int16")
    built = layernorm.parameters(Grid(0.1, 0, dtype), np.ones(384), np.zeros(384), 0.0, out, "ivit")
    real = rounded_mean_layernorm(x.astype(np.float64), np.ones(384), np.zeros(384))
    within_one(execute("layernorm", [x.astype(dtype)], built), real, out)


def test_layernorm_refuses_what_has_no_integer_form() -> None:
    x, out, one = Grid(1e-12, 0, "int8"), Grid(0.1, 0, "int8"), np.ones(768)
    with pytest.raises(ValueError, match="epsilon 1e-05 is too large against the input scale 1e-12"):
        layernorm.parameters(x, one, one, 1e-5, out)
    with pytest.raises(ValueError, match="nonlinear must be exact or ivit, not 'l1'"):
        layernorm.parameters(x, one, one, 1e-5, out, "l1")
