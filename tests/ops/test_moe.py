"""moe and linear with tasks: against the specification's lines token by token, and against float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdq_oracle import array, dtypes, execute, fitted, grid, seeds, softmax, within_one

from intaglio.ops import Grid, linear, moe
from intaglio.ops.base import Built
from intaglio.ops.moe import Expert, Projection

ROUTINGS = ("random", "ties", "one expert", "one token each", "extremes")


def logits_of(rng: np.random.Generator, tokens: int, experts: int, dtype: str, routing: str) -> np.ndarray:
    """Logits, int8|int16 [tokens, experts], of a routing with a name."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if routing == "ties":
        return rng.integers(-1, 2, (tokens, experts)).astype(dtype)
    if routing == "one expert":
        logits = rng.integers(low, high, (tokens, experts))
        logits[:, rng.integers(experts)] = high
        return logits.astype(dtype)
    if routing == "one token each":
        logits = np.full((tokens, experts), low)
        logits[np.arange(tokens), np.arange(tokens) % experts] = high
        return logits.astype(dtype)
    if routing == "extremes":
        return rng.choice([low, low + 1, -1, 0, high - 1, high], (tokens, experts)).astype(dtype)
    return rng.integers(low, high, (tokens, experts), endpoint=True).astype(dtype)


class Case:
    """A random mixture of experts with its float64 meaning."""

    def __init__(self, rng: np.random.Generator, options: dict[str, Any]) -> None:
        self.tokens, self.count, depth, hidden, width = options["shape"]
        self.k, self.normalize = options["k"], options["normalize"]
        self.x_grid = grid(rng, options["x"])
        self.logit_grid = Grid(
            float(rng.uniform(0.5, 12)) / np.iinfo(options["logits"]).max, 0, options["logits"]
        )
        self.x = array(rng, (self.tokens, depth), options["x"], "normal")
        self.logits = logits_of(rng, self.tokens, self.count, options["logits"], options["routing"])
        real = self.x_grid.dequantize(self.x)
        self.experts = [
            expert(rng, real, self.x_grid, hidden, width, options["function"]) for _ in range(self.count)
        ]
        scale = max(
            np.abs(second(e, e.hidden.dequantize(first(e, self.x, self.x_grid)))).max() for e in self.experts
        )
        self.y = Grid(float(scale or 1.0) / 110, int(rng.integers(-20, 20)), "int8")
        self.out = fitted(rng, self.real(), options["out"])

    def built(self) -> Built:
        return moe.parameters(
            self.x_grid, self.logit_grid, self.experts, self.y, self.out, k=self.k, normalize=self.normalize
        )

    def real(self) -> np.ndarray:
        """The weighted sum in float64, of the experts' integer results."""
        share = softmax(self.logit_grid.dequantize(self.logits))
        results = [self.y.dequantize(y) for y in self.outputs()]
        total = np.zeros_like(results[0])
        for token in range(self.tokens):
            order = sorted(range(self.count), key=lambda e: (-int(self.logits[token, e]), e))[: self.k]
            mass = sum(share[token, e] for e in order) if self.normalize else 1.0
            for e in order:
                total[token] += share[token, e] / mass * results[e][token]
        return total

    def outputs(self) -> list[np.ndarray]:
        """Every expert's y on every token, by two linears and a table, each tested on its own."""
        results = []
        for e in self.experts:
            hidden = first(e, self.x, self.x_grid)
            after = e.activated or e.hidden
            if e.function is not None:
                hidden = after.quantize(e.function(e.hidden.dequantize(hidden)))
            built = linear.parameters(after, e.second.weight, e.second.scale, e.second.bias, self.y)
            results.append(execute("linear", [hidden], built))
        return results


def first(e: Expert, x: np.ndarray, x_grid: Grid) -> np.ndarray:
    built = linear.parameters(x_grid, e.first.weight, e.first.scale, e.first.bias, e.hidden)
    return execute("linear", [x], built)


def second(e: Expert, hidden: np.ndarray) -> np.ndarray:
    after = hidden if e.function is None else e.function(hidden)
    scale = np.broadcast_to(np.asarray(e.second.scale), len(e.second.weight))
    return after @ (e.second.weight * scale[:, None]).T + (0 if e.second.bias is None else e.second.bias)


def expert(
    rng: np.random.Generator, real: np.ndarray, x: Grid, hidden: int, width: int, function: bool
) -> Expert:
    """Random weights, with grids that fit the data."""
    scale = np.exp(rng.uniform(-7, -5, hidden))
    weight = rng.integers(-127, 128, (hidden, real.shape[1]))
    bias = np.rint(rng.normal(size=hidden) / (x.scale * scale)) * (x.scale * scale)
    before = real @ (weight * scale[:, None]).T + bias
    hidden_grid = fitted(rng, before, "int8")
    after = fitted(rng, np.tanh(before), "int8") if function else None
    second_weight = rng.integers(-127, 128, (width, hidden))
    second_bias = None if rng.random() < 0.3 else np.zeros(width)
    projection = Projection(second_weight, np.exp(rng.uniform(-7, -5, width)), second_bias)
    return Expert(
        Projection(weight, scale, bias), hidden_grid, projection, np.tanh if function else None, after
    )


def literal(case: Case, built: Built) -> list[list[int]]:
    """docs/integer-semantics.md, `moe`, token by token in Python integers."""
    at = built.attrs
    constants = [constant.tolist() for constant in built.constants]
    table, w1, b1, m1, s1 = constants[:5]
    tables = constants[5] if at["has_table"] else None
    w2, b2, m2, s2 = constants[-4:]
    result = []
    for x, logits in zip(case.x.tolist(), case.logits.tolist(), strict=True):
        slots = sorted(range(len(logits)), key=lambda e: (-logits[e], e))[: at["k"]]
        weight = {e: gate(max(logits) - logits[e], table) for e in range(len(logits))}
        total = sum(weight[e] for e in (slots if at["normalize"] else weight))
        assert total >= 32767
        line = [0] * len(w2[0])
        for e in slots:
            h = [
                requantize(dot(x, w) + b, m, s, at["hidden_zero"], "int8")
                for w, b, m, s in zip(w1[e], b1[e], m1[e], s1[e], strict=True)
            ]
            if tables is not None:
                h = [tables[e if len(tables) > 1 else 0][value + 128] for value in h]
            for n in range(len(line)):
                y = requantize(dot(h, w2[e][n]) + b2[e][n], m2[e][n], s2[e][n], at["y_zero"], "int8")
                line[n] += weight[e] * (y - at["y_zero"])
        r = (at["multiplier"] << 14) // total
        result.append([requantize(acc, r, at["shift"] + 14, at["zero_point"], at["dtype"]) for acc in line])
    return result


def dot(a: list[int], b: list[int]) -> int:
    return sum(p * q for p, q in zip(a, b, strict=True))


def gate(d: int, table: list[list[int]]) -> int:
    weight = (table[0][d >> 8] * table[1][d & 255] + (1 << 16)) >> 17
    assert weight <= 32767
    assert d or weight == 32767
    return weight


def requantize(acc: int, multiplier: int, shift: int, zero_point: int, dtype: str) -> int:
    limits = np.iinfo(dtype)
    assert abs(acc * multiplier) < 2**62
    rounded = ((acc * multiplier + (1 << (shift - 1))) >> shift) + zero_point
    return min(max(rounded, int(limits.min)), int(limits.max))


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 7))
    sizes = [draw(st.integers(1, 9)) for _ in range(3)]
    return {
        "shape": (draw(st.integers(1, 12)), count, *sizes),
        "k": draw(st.integers(1, min(4, count))),
        "normalize": draw(st.booleans()),
        "function": draw(st.booleans()),
        "routing": draw(st.sampled_from(ROUTINGS)),
        "x": draw(dtypes),
        "logits": draw(dtypes),
        "out": draw(dtypes),
    }


def run(case: Case, built: Built) -> np.ndarray:
    return execute("moe", [case.x, case.logits], built)


@given(seeds, options())
def test_moe_equals_the_specification_token_by_token(seed: int, options: dict[str, Any]) -> None:
    case = Case(np.random.default_rng(seed), options)
    built = case.built()
    assert run(case, built).astype(int).tolist() == literal(case, built)


@given(seeds, options())
def test_moe_is_within_one_lsb_of_float_from_the_same_logits(seed: int, options: dict[str, Any]) -> None:
    case = Case(np.random.default_rng(seed), options | {"out": "int8"})
    # Zero points folded into a bias may move a hidden value at a tie; equal ones leave it as linear has it.
    case.experts = [replace(e, hidden=replace(e.hidden, zero_point=3)) for e in case.experts]
    within_one(run(case, case.built()), case.real(), case.out)


@given(seeds, st.permutations(range(6)))
def test_the_order_of_tokens_does_not_matter(seed: int, order: list[int]) -> None:
    shape = {"shape": (6, 5, 4, 7, 3), "k": 2, "normalize": True, "function": True, "routing": "random"}
    case = Case(np.random.default_rng(seed), shape | {"x": "int8", "logits": "int8", "out": "int8"})
    built = case.built()
    expected = run(case, built)[order]
    assert np.array_equal(execute("moe", [case.x[order], case.logits[order]], built), expected)


def test_the_gate_s_weights_are_those_of_softmax_over_the_whole_range_of_int16() -> None:
    for scale in (0.0437 / 256, 1e-6, 0.3):
        distance = np.arange(65536)
        weights = moe.gate_weights(distance, moe.route_table(scale))
        assert weights[0] == 32767
        assert weights.min() >= 0
        assert np.abs(weights - 32767 * np.exp(-scale * distance)).max() <= 1.03


def test_equal_logits_go_to_the_lower_experts() -> None:
    attrs = {"k": 3, "normalize": 1}
    logits = np.array([[5, 7, 5, 7, 5], [0, 0, 0, 0, 0], [-128, 127, -128, -128, 127]], np.int8)
    routing = moe.route(logits, moe.route_table(0.1), attrs)
    assert routing.slots.tolist() == [[1, 3, 0], [0, 1, 2], [1, 4, 0]]


def test_leading_dimensions_are_tokens() -> None:
    shape = {"shape": (6, 3, 4, 5, 2), "k": 2, "normalize": False, "function": True, "routing": "random"}
    case = Case(np.random.default_rng(3), shape | {"x": "int8", "logits": "int16", "out": "int16"})
    built = case.built()
    inputs = [case.x.reshape(2, 3, 4), case.logits.reshape(2, 3, 3)]
    assert np.array_equal(execute("moe", inputs, built).reshape(6, 2), run(case, built))


def plain(rng: np.random.Generator) -> Expert:
    unit = Grid(0.1, 0, "int8")
    return Expert(
        Projection(rng.integers(-9, 9, (4, 3)), 0.1), unit, Projection(rng.integers(-9, 9, (2, 4)), 0.1)
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden": Grid(0.1, 0, "int16")}, "the grid hidden must be int8, not int16"),
        ({"function": np.tanh}, "either every expert has a function and its grid, or none has"),
        ({"second": Projection(np.ones((3, 4), int), 0.1)}, "weights of equal shapes"),
    ],
)
def test_experts_that_do_not_fit_together_are_refused(change: dict[str, Any], sentence: str) -> None:
    rng = np.random.default_rng(0)
    unit = Grid(0.1, 0, "int8")
    experts = [plain(rng), replace(plain(rng), **change)]
    with pytest.raises(ValueError, match=f"^moe: .*{sentence}"):
        moe.parameters(unit, unit, experts, unit, unit, k=1, normalize=True)


def test_one_table_serves_all_experts_whose_functions_are_the_same() -> None:
    rng, unit = np.random.default_rng(0), Grid(0.1, 0, "int8")
    same = [replace(plain(rng), function=np.tanh, activated=unit) for _ in range(3)]
    assert moe.parameters(unit, unit, same, unit, unit, k=1, normalize=True).constants[5].shape == (1, 256)
    other = [*same[:2], replace(same[2], activated=Grid(0.05, 0, "int8"))]
    assert moe.parameters(unit, unit, other, unit, unit, k=1, normalize=True).constants[5].shape == (3, 256)


@given(seeds, dtypes, dtypes, st.integers(1, 4))
def test_linear_takes_its_constants_from_the_task(
    seed: int, x_dtype: str, out_dtype: str, tasks: int
) -> None:
    rng = np.random.default_rng(seed)
    x_grid, out = grid(rng, x_dtype), grid(rng, out_dtype, 0.1 if out_dtype == "int8" else 1e-3)
    each = [
        linear.parameters(x_grid, rng.integers(-127, 128, (5, 7)), 1e-3, rng.normal(size=5), out)
        for _ in range(tasks)
    ]
    x, built = array(rng, (3, 7), x_dtype), linear.with_tasks(each)
    for task in range(tasks):
        arguments = Built([*built.constants, np.array(task, np.int32)], built.attrs)
        assert np.array_equal(execute("linear", [x], arguments), execute("linear", [x], each[task]))
    assert math.prod(built.constants[0].shape) == tasks * 35


def test_tasks_of_different_shapes_are_refused() -> None:
    unit = Grid(0.1, 0, "int8")
    each = [linear.parameters(unit, np.ones((n, 4), int), 0.1, None, unit) for n in (2, 3)]
    with pytest.raises(ValueError, match="one shape and one output grid are expected"):
        linear.with_tasks(each)
