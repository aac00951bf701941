"""Roundings that count are kept, and what has no integer meaning is refused: cases that once went wrong in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intaglio.errors import UnsupportedError

from .graphs import Graph, assert_same


def product(g: Graph, x: str, width: int = 24) -> str:
    return g.op("MatMul", x, g.weight(g.normal(24, width), axis=1))


def test_an_unrounded_part_of_a_concat_is_rounded_once(tmp_path: Path) -> None:
    g = Graph(1, 40, 24)
    x = g.q("x", scale=0.03)
    assert_same(g, g.q(g.op("Concat", x, product(g, x), axis=1)), tmp_path)


@pytest.mark.parametrize("opcode", ["Relu", "Abs", "Cast"])
def test_arithmetic_on_quantized_integers_is_refused(opcode: str, tmp_path: Path) -> None:
    g = Graph(1, 40, 24)
    scale, zero = g.constant(0.03), g.constant(5, "int8")
    q = g.op("QuantizeLinear", "x", scale, zero)
    y = g.op("Cast", q, to=1) if opcode == "Cast" else g.op("DequantizeLinear", g.op(opcode, q), scale, zero)
    with pytest.raises(UnsupportedError, match="put a DequantizeLinear before it"):
        assert_same(g, g.linear(y, 16), tmp_path)


def test_a_small_linear_in_a_larger_sum(tmp_path: Path) -> None:
    g = Graph(1, 40, 24)
    x = g.q("x")
    first = g.op("Slice", x, *(g.constant([n], "int64") for n in (0, 1, 1)))
    assert_same(g, g.q(g.op("Add", x, g.linear(first, 24))), tmp_path)


def test_a_constant_read_on_another_grid_than_it_was_written(tmp_path: Path) -> None:
    g = Graph(1, 40, 24)
    zero = g.constant(0, "int8")
    w = g.op("QuantizeLinear", g.constant(g.normal(24, 16)), g.constant(0.05), zero)
    assert_same(
        g, g.q(g.op("MatMul", g.q("x"), g.op("DequantizeLinear", w, g.constant(0.01), zero))), tmp_path
    )


def test_a_matrix_of_higher_rank_raises_the_rank(tmp_path: Path) -> None:
    g = Graph(1, 24)
    assert_same(g, g.q(g.op("MatMul", g.q("x"), g.weight(g.normal(1, 24, 32), axis=2))), tmp_path)


def test_a_rounded_product_that_others_read_stays_rounded(tmp_path: Path) -> None:
    g = Graph(1, 40, 24)
    y = g.q(product(g, g.q("x")), scale=0.3, zero=0)
    biased = g.q(g.op("Add", y, g.constant(g.normal(24))))
    assert_same(g, g.q(g.op("Sub", y, biased)), tmp_path)


def test_a_quantizer_that_clips_before_the_bias(tmp_path: Path) -> None:
    g = Graph(1, 40, 24)
    exact = product(g, g.q("x"))
    top = float(np.abs(g.evaluate(exact)).max())
    clipped = g.q(exact, scale=top / 8 / 127, zero=0)
    y = g.q(g.op("Add", clipped, g.constant(g.normal(24))), scale=top / 127, zero=0)
    assert_same(g, y, tmp_path)


def test_a_relu_inside_layer_norm(tmp_path: Path) -> None:
    g = Graph(1, 40, 24)
    x = g.q("x")
    centred = g.op("Sub", x, g.op("ReduceMean", x, g.constant([-1], "int64"), keepdims=1))
    square = g.op("ReduceMean", g.op("Mul", centred, centred), g.constant([-1], "int64"), keepdims=1)
    root = g.op("Sqrt", g.op("Add", square, g.constant(1e-5)))
    positive = g.q(g.op("Div", centred, root), "uint8", scale=0.02, zero=0)
    assert_same(g, g.q(g.op("Mul", positive, g.constant(np.abs(g.normal(24)) + 0.5))), tmp_path)
