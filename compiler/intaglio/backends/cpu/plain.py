"""Matrix products and attention without tuning: exact for every type and bound, used where the fast forms are not."""

from __future__ import annotations

from typing import NamedTuple

from tvm import tirx

from intaglio.backends.cpu.arith import rescale, round_shift, wide
from intaglio.backends.cpu.exponential import exponential, row_reciprocal
from intaglio.backends.cpu.ir import Buffer, Cell, Expr, PrimFunc, const, kernel, load, loop, minimum, store


class LinearShape(NamedTuple):
    """A linear's sizes and types; `table` and `residual` are None where absent."""

    rows: int
    depth: int
    channels: int
    x: str
    weight: str
    bias: str
    dtype: str
    table: str | None
    residual: str | None
    result: str


def linear_plain_kernel(symbol: str, shape: LinearShape) -> PrimFunc:
    """Items are rows. `numbers`: zero_point, then a_multiplier, b_multiplier, offset, shift, zero_point of the add."""
    entries = 256 if shape.dtype == "int8" else 65536
    buffers = {
        "x": (shape.x, shape.rows * shape.depth),
        "weight": (shape.weight, shape.channels * shape.depth),
        "bias": (shape.bias, shape.channels),
        "multiplier": ("int32", shape.channels),
        "shift": ("int32", shape.channels),
        "numbers": ("int64", 6),
    }
    if shape.table:
        buffers["table"] = (shape.table, entries)
    if shape.residual:
        buffers["residual"] = (shape.residual, shape.rows * shape.channels)
    buffers["out"] = (shape.result, shape.rows * shape.channels)
    with kernel(symbol, **buffers) as body:
        x, weight, bias, multiplier, shift, numbers = list(body.buffers(*list(buffers)[:6]))
        with loop(body.begin, body.end) as row, loop(0, shape.channels) as n:
            acc = Cell(wide(load(bias, n)), "int64")
            with loop(0, shape.depth) as k:
                product = wide(load(x, row * shape.depth + k)) * wide(load(weight, n * shape.depth + k))
                acc.set(acc.get() + product)
            scaled = acc.get() * wide(load(multiplier, n))
            y = rescale(scaled, wide(load(shift, n)), load(numbers, 0), shape.dtype)
            if shape.table:
                y = load(body["table"], y.astype("int32") - minimum(shape.dtype))
            if shape.residual:
                y = _added(y, load(body["residual"], row * shape.channels + n), numbers, shape.result)
            store(body["out"], row * shape.channels + n, y)
    return body.func


def _added(y: Expr, residual: Expr, numbers: Buffer, dtype: str) -> Expr:
    total = wide(y) * load(numbers, 1) + wide(residual) * load(numbers, 2) + load(numbers, 3)
    return rescale(total, load(numbers, 4), load(numbers, 5), dtype)


class ProductShape(NamedTuple):
    """Sizes and types of a batched product of activations ``a [batch, rows, depth]``, ``b`` with `columns`."""

    batch: int
    rows: int
    depth: int
    columns: int
    a: str
    b: str
    transpose_b: bool
    result: str


def matmul_plain_kernel(symbol: str, shape: ProductShape) -> PrimFunc:
    """Items are rows of the whole batch. `numbers`: a_zero, b_zero, multiplier, shift, zero_point."""
    batch, rows, depth, columns = shape[:4]
    buffers = {
        "a": (shape.a, batch * rows * depth),
        "b": (shape.b, batch * depth * columns),
        "numbers": ("int64", 5),
        "out": (shape.result, batch * rows * columns),
    }
    with kernel(symbol, **buffers) as body:
        a, b, numbers, out = body.buffers("a", "b", "numbers", "out")
        a_zero, b_zero, multiplier, shift, zero = (load(numbers, i) for i in range(5))
        with loop(body.begin, body.end) as row, loop(0, columns) as n:
            acc = Cell(const(0, "int64"), "int64")
            start = (row // rows) * (depth * columns)
            with loop(0, depth) as k:
                at = start + (n * depth + k if shape.transpose_b else k * columns + n)
                acc.set(acc.get() + (wide(load(a, row * depth + k)) - a_zero) * (wide(load(b, at)) - b_zero))
            store(out, row * columns + n, rescale(acc.get() * multiplier, shift, zero, shape.result))
    return body.func


class AttentionShape(NamedTuple):
    """Sizes and types of attention: `heads` counts batch times heads."""

    heads: int
    rows: int
    keys: int
    depth: int
    value_depth: int
    q: str
    k: str
    v: str
    score: str
    e_bits: int
    acc_shift: int
    result: str


# The numbers of an attention step, in the order in which its kernels read them.
ATTENTION_NUMBERS = (
    "q_zero",
    "k_zero",
    "score_multiplier",
    "score_shift",
    "score_zero",
    "v_zero",
    "multiplier",
    "shift",
    "zero_point",
)


def attention_plain_kernel(symbol: str, shape: AttentionShape) -> PrimFunc:
    """Items are rows of all heads; `scores` and `weights` are scratch of one row each."""
    heads, rows, keys, depth, values = shape[:5]
    buffers = {
        "q": (shape.q, heads * rows * depth),
        "k": (shape.k, heads * keys * depth),
        "v": (shape.v, heads * keys * values),
        "table": ("uint32", 512 if shape.score == "int16" else 256),
        "numbers": ("int64", len(ATTENTION_NUMBERS)),
        "scores": ("int32", keys),
        "weights": ("int32", keys),
        "out": (shape.result, heads * rows * values),
    }
    with kernel(symbol, **buffers) as body:
        q, k, v, table, numbers, scores, weights, out = body.buffers(*buffers)
        attr = {name: load(numbers, i) for i, name in enumerate(ATTENTION_NUMBERS)}
        with loop(body.begin, body.end) as row:
            top = Cell(const(minimum("int16"), "int32"), "int32")
            with loop(0, keys) as n:
                acc = Cell(const(0, "int64"), "int64")
                with loop(0, depth) as d:
                    left = wide(load(q, row * depth + d)) - attr["q_zero"]
                    acc.set(
                        acc.get()
                        + left * (wide(load(k, ((row // rows) * keys + n) * depth + d)) - attr["k_zero"])
                    )
                scaled = acc.get() * attr["score_multiplier"]
                score = rescale(scaled, attr["score_shift"], attr["score_zero"], shape.score).astype("int32")
                store(scores, n, score)
                top.set(tirx.max(top.get(), score))
            total = Cell(const(0, "int64"), "int64")
            with loop(0, keys) as n:
                e = exponential(table, top.get() - load(scores, n), shape.score, shape.e_bits)
                store(weights, n, e)
                total.set(total.get() + wide(e))
            r = row_reciprocal(total.get(), attr["multiplier"], shape.e_bits)
            with loop(0, values) as d:
                acc = Cell(const(0, "int64"), "int64")
                with loop(0, keys) as n:
                    value = wide(load(v, ((row // rows) * keys + n) * values + d)) - attr["v_zero"]
                    acc.set(acc.get() + wide(load(weights, n)) * value)
                a = round_shift(acc.get(), const(shape.acc_shift, "int64")) if shape.acc_shift else acc.get()
                shift = attr["shift"] + (shape.e_bits - 1 - shape.acc_shift)
                store(out, row * values + d, rescale(a * r, shift, attr["zero_point"], shape.result))
    return body.func
