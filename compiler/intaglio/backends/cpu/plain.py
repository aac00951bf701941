"""Matrix products and attention without tuning: exact for every type and bound, used where the fast forms are not."""

from __future__ import annotations

from typing import NamedTuple

from tvm import tirx

from intaglio.backends.cpu.arith import rescale, round_shift, wide
from intaglio.backends.cpu.exponential import exponential, row_reciprocal
from intaglio.backends.cpu.ir import (
    Body,
    Buffer,
    Cell,
    Expr,
    PrimFunc,
    bind,
    cast,
    const,
    kernel,
    load,
    loop,
    minimum,
    store,
)


def int32(value: Expr) -> Expr:
    """As int32."""
    return cast(value, "int32")


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
                # Two int16 make at most 2^30.
                product = int32(load(x, row * shape.depth + k)) * int32(load(weight, n * shape.depth + k))
                acc.set(acc.get() + wide(product))
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
    """Items are rows of the whole batch; `acc` is scratch. `numbers`: a_zero, b_zero, multiplier, shift, zero_point."""
    batch, rows, depth, columns = shape[:4]
    buffers = {
        "a": (shape.a, batch * rows * depth),
        "b": (shape.b, batch * depth * columns),
        "numbers": ("int64", 5),
        "acc": ("int64", columns),
        "out": (shape.result, batch * rows * columns),
    }
    with kernel(symbol, **buffers) as body:
        a, b, numbers, acc, out = body.buffers(*buffers)
        a_zero, b_zero, multiplier, shift, zero = (load(numbers, i) for i in range(5))
        with loop(body.begin, body.end) as row:
            left = Matrix(a, row * depth, a_zero)
            right = Matrix(b, bind((row // rows) * (depth * columns)), b_zero)
            emit = _emit_dots if shape.transpose_b else _emit_sums
            emit(left, right, acc, depth, columns)
            with loop(0, columns) as n:
                store(out, row * columns + n, rescale(load(acc, n) * multiplier, shift, zero, shape.result))
    return body.func


class Matrix(NamedTuple):
    """Elements of a buffer from `start` on, less `zero`."""

    buffer: Buffer
    start: Expr
    zero: Expr

    def at(self, index: Expr) -> Expr:
        """One centred element: below 2^17 in magnitude, so that a product of two needs 64 bits but not its factors."""
        return wide(bind(int32(load(self.buffer, self.start + index)) - int32(self.zero)))


def _emit_dots(left: Matrix, right: Matrix, acc: Buffer, depth: int, columns: int) -> None:
    """``acc[n] = sum_k left[k] * right[n, k]``."""
    with loop(0, columns) as n:
        total = Cell(const(0, "int64"), "int64")
        with loop(0, depth) as k:
            total.set(total.get() + left.at(k) * right.at(n * depth + k))
        store(acc, n, total.get())


def _emit_sums(left: Matrix, right: Matrix, acc: Buffer, depth: int, columns: int) -> None:
    """``acc[n] = sum_k left[k] * right[k, n]``, row by row of `right`, as that is contiguous."""
    with loop(0, columns) as n:
        store(acc, n, const(0, "int64"))
    with loop(0, depth) as k:
        factor = bind(left.at(k))
        with loop(0, columns) as n:
            store(acc, n, load(acc, n) + factor * right.at(k * columns + n))


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
    """Items are rows of all heads; `acc` and `weights` are scratch of one row."""
    heads, rows, keys, depth, values = shape[:5]
    buffers = {
        "q": (shape.q, heads * rows * depth),
        "k": (shape.k, heads * keys * depth),
        "v": (shape.v, heads * keys * values),
        "table": ("uint32", 512 if shape.score == "int16" else 256),
        "numbers": ("int64", len(ATTENTION_NUMBERS)),
        "acc": ("int64", max(keys, values)),
        "weights": ("int32", keys),
        "out": (shape.result, heads * rows * values),
    }
    with kernel(symbol, **buffers) as body:
        attr = {name: load(body["numbers"], i) for i, name in enumerate(ATTENTION_NUMBERS)}
        acc = body["acc"]
        with loop(body.begin, body.end) as row:
            first = bind((row // rows) * keys)
            left = Matrix(body["q"], row * depth, attr["q_zero"])
            _emit_dots(left, Matrix(body["k"], first * depth, attr["k_zero"]), acc, depth, keys)
            total = _emit_weights(body, shape, attr)
            r = row_reciprocal(total, attr["multiplier"], shape.e_bits)
            left = Matrix(body["weights"], const(0, "int32"), const(0, "int64"))
            _emit_sums(left, Matrix(body["v"], first * values, attr["v_zero"]), acc, keys, values)
            shift = attr["shift"] + (shape.e_bits - 1 - shape.acc_shift)
            with loop(0, values) as d:
                total = load(acc, d)
                a = round_shift(total, const(shape.acc_shift, "int64")) if shape.acc_shift else total
                store(body["out"], row * values + d, rescale(a * r, shift, attr["zero_point"], shape.result))
    return body.func


def _emit_weights(body: Body, shape: AttentionShape, attr: dict[str, Expr]) -> Expr:
    """`acc` to scores, their exponentials to `weights`; the sum of these."""
    weights = body["weights"]
    top = Cell(const(minimum("int16"), "int32"), "int32")
    with loop(0, shape.keys) as n:
        scaled = load(body["acc"], n) * attr["score_multiplier"]
        score = bind(int32(rescale(scaled, attr["score_shift"], attr["score_zero"], shape.score)))
        store(weights, n, score)
        top.set(tirx.max(top.get(), score))
    highest = top.get()
    total = Cell(const(0, "int64"), "int64")
    with loop(0, shape.keys) as n:
        e = exponential(body["table"], bind(highest - load(weights, n)), shape.score, shape.e_bits)
        store(weights, n, e)
        total.set(total.get() + wide(e))
    return total.get()
