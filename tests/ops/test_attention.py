"""attention and softmax against float64, Python integers, and the published failures of Shiftmax."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdq_oracle import Agreement, array, dtypes, execute, fitted, grid, kinds, seeds, within_one
from qdq_oracle import softmax as real_softmax

from intaglio.ops import Grid, attention, matmul, softmax
from intaglio.ops.base import Built
from intaglio.ops.exponential import exp_table, exponentials, shift_exp

COMBINATIONS = [
    (qkv, score, out) for qkv in ("int8", "int16") for score in ("int8", "int16") for out in ("int8", "int16")
]


def score_grid(rng: np.random.Generator, dtype: str, reach: float) -> Grid:
    """A grid on which scores span about `reach` to either side."""
    return grid(rng, dtype, reach / np.iinfo(dtype).max)


class Case:
    """Random operands, their grids, and the float64 result from QDQ scores."""

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        qkv: str,
        score: str,
        out: str,
        kinds: tuple[str, str],
    ) -> None:
        batch, heads, rows, keys, depth, width = shape
        self.depth, self.keys, self.factor = depth, keys, 1 / math.sqrt(depth)
        self.grids = [grid(rng, qkv) for _ in range(3)]
        self.q = array(rng, (batch, heads, rows, depth), qkv, kinds[0])
        self.k = array(rng, (batch, heads, keys, depth), qkv)
        self.v = array(rng, (batch, heads, keys, width), qkv, kinds[1])
        q, k, v = (g.dequantize(a) for g, a in zip(self.grids, (self.q, self.k, self.v), strict=True))
        self.scores = q @ k.swapaxes(-1, -2) * self.factor
        reach = float(rng.uniform(0.5, 12))
        # Scale the operands' grids instead of the scores, so that the rows are neither flat nor one-hot.
        ratio = reach / (np.abs(self.scores).max() or 1.0)
        self.grids[0] = Grid(self.grids[0].scale * ratio, self.grids[0].zero_point, qkv)
        self.scores = self.scores * ratio
        self.score = score_grid(rng, score, reach)
        self.value = v
        self.out = fitted(rng, real_softmax(self.qdq_scores()) @ v, out)

    def qdq_scores(self) -> np.ndarray:
        return self.score.dequantize(self.score.quantize(self.scores))

    def built(self, nonlinear: str = "exact") -> Built:
        shape = {"depth": self.depth, "length": self.keys}
        return attention.parameters(
            *self.grids, self.score, self.factor, self.out, **shape, nonlinear=nonlinear
        )

    def integer_scores(self) -> np.ndarray:
        """The scores inside attention, by the op matmul."""
        attrs = self.built().attrs
        alone = matmul.parameters(self.grids[0], self.grids[1], self.score, self.depth, self.factor, 1).attrs
        alone |= {"multiplier": attrs["score_multiplier"], "shift": attrs["score_shift"]}
        return execute("matmul", [self.q, self.k], Built([], alone))

    def result(self, nonlinear: str = "exact") -> np.ndarray:
        return execute("attention", [self.q, self.k, self.v], self.built(nonlinear))


@given(seeds, dtypes, dtypes, dtypes, kinds, kinds)
def test_attention_is_within_one_lsb_of_float_from_the_same_scores(
    seed: int, qkv: str, score: str, out: str, q_kind: str, v_kind: str
) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, [3, 3, 6, 258, 20, 9]))
    case = Case(rng, shape, qkv, score, out, (q_kind, v_kind))
    scores = case.integer_scores()
    within_one(scores, case.scores, case.score)
    real = real_softmax(case.score.dequantize(scores)) @ case.value
    within_one(case.result(), real, case.out)


@pytest.mark.parametrize(("qkv", "score", "out"), COMBINATIONS)
def test_attention_equals_qdq_almost_always(qkv: str, score: str, out: str) -> None:
    rng = np.random.default_rng(9)
    # A score at a rounding tie may fall to the other side, which moves the output by more than 1 LSB.
    agreement = Agreement(limit=3 if out == "int8" else 600)
    for _ in range(4):
        case = Case(rng, (1, 3, 197, 197, 64, 32), qkv, score, out, ("normal", "normal"))
        agreement.add(case.result(), real_softmax(case.qdq_scores()) @ case.value, case.out)
    print(f"attention {qkv}, {score} scores -> {out}: equal {agreement.share:.5f} worst {agreement.worst}")
    assert agreement.share >= 0.99


@pytest.mark.parametrize(("qkv", "score", "out"), COMBINATIONS)
@pytest.mark.parametrize("kind", ["lowest", "two levels"])
def test_attention_at_its_extremes_equals_unbounded_integers(
    qkv: str, score: str, out: str, kind: str
) -> None:
    rng = np.random.default_rng(10)
    low, high = np.iinfo(qkv).min, np.iinfo(qkv).max
    q, k, v = (array(rng, (1, 1, n, 128), qkv, kind) for n in (3, 40, 40))
    q[0, 0, 0], k[0, 0, 0], v[0, 0, 0] = low, high, low
    q_grid, k_grid, v_grid = (Grid(1.0 / high, zero, qkv) for zero in (high, low, high))
    real_range = 4.0 * 128 / math.sqrt(128)
    score_g = Grid(real_range / np.iinfo(score).max, -5, score)
    out_g = Grid(2.0 / np.iinfo(out).max, 3, out)
    built = attention.parameters(
        q_grid, k_grid, v_grid, score_g, 1 / math.sqrt(128), out_g, depth=128, length=40
    )
    result = execute("attention", [q, k, v], built)
    assert result[0, 0].astype(int).tolist() == _unbounded_attention(q[0, 0], k[0, 0], v[0, 0], built)


def _unbounded_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, built: Built) -> list[list[int]]:
    """The specification's lines in Python integers, with every 64-bit bound asserted."""
    at, table = built.attrs, built.constants[0].tolist()
    result = []
    for row in q.tolist():
        products = [
            sum((x - at["q_zero"]) * (y - at["k_zero"]) for x, y in zip(row, key, strict=True))
            for key in k.tolist()
        ]
        s = [
            _requantize(p, at["score_multiplier"], at["score_shift"], at["score_zero"], at["score_dtype"])
            for p in products
        ]
        e = [_exponential(max(s) - x, table, at["e_bits"]) for x in s]
        assert max(e) == 2 ** at["e_bits"] - 1
        r = (at["multiplier"] << (at["e_bits"] - 1)) // sum(e)
        assert r < 2**31
        line = []
        for column in v.T.tolist():
            acc = sum(w * (x - at["v_zero"]) for w, x in zip(e, column, strict=True))
            limit = 31 if at["acc_dtype"] == "int32" else 63
            assert abs(acc) < 2**limit
            a = (acc + (1 << (at["acc_shift"] - 1))) >> at["acc_shift"] if at["acc_shift"] else acc
            shift = at["shift"] + at["e_bits"] - 1 - at["acc_shift"]
            line.append(_requantize(a, r, shift, at["zero_point"], at["dtype"]))
        result.append(line)
    return result


def _requantize(acc: int, multiplier: int, shift: int, zero_point: int, dtype: str) -> int:
    limits = np.iinfo(dtype)
    assert abs(acc * multiplier) < 2**62
    return min(
        max(((acc * multiplier + (1 << (shift - 1))) >> shift) + zero_point, int(limits.min)), int(limits.max)
    )


def _exponential(d: int, table: list[list[int]], e_bits: int) -> int:
    if len(table) == 1:
        return table[0][d]
    product = table[0][d >> 8] * table[1][d & 255]
    assert product < 2**60
    return (product + (1 << (59 - e_bits))) >> (60 - e_bits)


@pytest.mark.parametrize("e_bits", [15, 22])
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_the_exponential_is_correctly_rounded_and_fits_its_bits(e_bits: int, dtype: str) -> None:
    scale = 0.0437 if dtype == "int8" else 0.0437 / 256
    distance = np.arange(256 if dtype == "int8" else 65536)
    scores = (np.iinfo(dtype).max - distance).astype(dtype)
    e = exponentials(scores, exp_table(scale, dtype, e_bits), e_bits)
    top = 2**e_bits - 1
    assert e[0] == top
    assert e.min() >= 0
    # Table entries and product are rounded once each.
    assert np.abs(e - top * np.exp(-scale * distance)).max() <= 0.5 + 2.0 ** (e_bits - 28)


@given(seeds, dtypes, dtypes, kinds, st.integers(1, 258), st.floats(0.05, 20))
def test_softmax_is_within_one_lsb(
    seed: int, dtype: str, out_dtype: str, kind: str, n: int, reach: float
) -> None:
    rng = np.random.default_rng(seed)
    x_grid = score_grid(rng, dtype, reach)
    x = array(rng, (2, 3, n), dtype, kind)
    out = Grid(1 / 256, -128, "int8") if out_dtype == "int8" else Grid(2.0**-15, 0, "int16")
    within_one(
        execute("softmax", [x], softmax.parameters(x_grid, out)), real_softmax(x_grid.dequantize(x)), out
    )


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize(
    "out", [Grid(1 / 255, -128, "int8"), Grid(1 / 65535, -32768, "int16"), Grid(3.1e-5, 0, "int16")]
)
def test_softmax_equals_qdq_almost_always(dtype: str, out: Grid) -> None:
    rng = np.random.default_rng(11)
    agreement = Agreement()
    for reach in (1, 4, 10):
        x_grid = score_grid(rng, dtype, reach)
        x = array(rng, (300, 197), dtype, "normal")
        built = softmax.parameters(x_grid, out)
        agreement.add(execute("softmax", [x], built), real_softmax(x_grid.dequantize(x)), out)
    print(f"softmax {dtype} -> {out.dtype} {out.scale:.2g}: equal {agreement.share:.5f}")
    assert agreement.share >= 0.99


def test_a_small_value_scale_needs_a_long_shift() -> None:
    """v's scale may be far below the output's: 16-bit values, 8-bit output."""
    rng = np.random.default_rng(12)
    v_grid, out = Grid(1e-4, 7, "int16"), Grid(0.0311, -1, "int8")
    q = array(rng, (1, 1, 4, 8), "int8")
    k, v = array(rng, (1, 1, 50, 8), "int8"), array(rng, (1, 1, 50, 16), "int16", "two levels")
    unit, score = Grid(0.05, 0, "int8"), Grid(0.3, 0, "int8")
    built = attention.parameters(unit, unit, v_grid, score, 0.35, out, depth=8, length=50)
    assert built.attrs["shift"] > 31
    scores = execute("matmul", [q, k], matmul.parameters(unit, unit, score, 8, 0.35, 1))
    within_one(
        execute("attention", [q, k, v], built),
        real_softmax(score.dequantize(scores)) @ v_grid.dequantize(v),
        out,
    )


def _published_shift_exp(distance: int, scale: float, n: int) -> float:
    """I-ViT's paper in Python integers, relative to its value at 0 (facts: 2.4)."""
    unit = round(1 / scale)
    value = -distance
    value = value + (value >> 1) - (value >> 4)
    quotient = -value // unit
    remainder = -(value + quotient * unit)
    return ((((-remainder) >> 1) + unit) << n >> quotient) / (unit << n)


@pytest.mark.parametrize(("scale", "bound"), [(0.02, 0.052), (0.05, 0.06), (0.1, 0.082), (0.2, 0.131)])
def test_shiftmax_follows_the_paper_within_its_own_error(scale: float, bound: float) -> None:
    distance = np.arange(256)
    ours = shift_exp(distance, scale)
    # 60 bits keep what the paper's n = 15 would shift out.
    assert np.allclose(ours, [_published_shift_exp(int(d), scale, 60) for d in distance], rtol=0, atol=1e-12)
    assert np.abs(ours - np.exp(-scale * distance)).max() <= bound
    table = exp_table(scale, "int8", 15, "ivit")
    assert np.abs(table[0] - 32767 * ours).max() <= 0.5


def test_shiftmax_keeps_the_attention_mass() -> None:
    """The paper's deployment truncates 8-bit probabilities and keeps 0.63-0.68 of each row (facts: 2.5)."""
    rng = np.random.default_rng(13)
    x = array(rng, (200, 197), "int8", "normal")
    out = Grid(2.0**-15, 0, "int16")
    built = softmax.parameters(Grid(0.05, 0, "int8"), out, "ivit")
    mass = out.dequantize(execute("softmax", [x], built)).sum(axis=-1)
    assert np.abs(mass - 1).max() < 0.004


def test_ivit_attention_is_within_one_lsb_of_its_own_formula() -> None:
    rng = np.random.default_rng(14)
    agreement = Agreement()
    for _ in range(4):
        case = Case(rng, (1, 2, 40, 197, 64, 32), "int8", "int8", "int8", ("normal", "normal"))
        scores = case.integer_scores().astype(np.int64)
        e = shift_exp(scores.max(axis=-1, keepdims=True) - scores, case.score.scale)
        agreement.add(case.result("ivit"), e / e.sum(axis=-1, keepdims=True) @ case.value, case.out)
    assert agreement.share >= 0.99


def test_ivit_needs_int8_scores_and_a_known_name() -> None:
    with pytest.raises(ValueError, match="ivit exponential is defined for int8 scores"):
        exp_table(0.1, "int16", 15, "ivit")
    with pytest.raises(ValueError, match="nonlinear must be exact or ivit, not 'fast'"):
        exp_table(0.1, "int8", 15, "fast")
