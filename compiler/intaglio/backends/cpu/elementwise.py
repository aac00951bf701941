"""add, rescale and mean: one rescaled value per element, in int64."""

from __future__ import annotations

import math

import numpy as np

from intaglio.backends.cpu.arith import rescale, wide
from intaglio.backends.cpu.ir import Cell, Expr, Kernel, PrimFunc, const, kernel, load, loop, store
from intaglio.backends.cpu.launch import Constant, Launch, Site, grain, rows, size


def add_kernel(
    symbol: str, count: int, columns: int, a_type: str, b_type: str, b_size: int, result: str
) -> PrimFunc:
    """Items are rows of `columns` elements of `a`; `b` repeats every `b_size` elements.

    `numbers`: a_multiplier, b_multiplier, offset, shift, zero_point.
    """
    elements = count * columns
    buffers = {
        "a": (a_type, elements),
        "b": (b_type, b_size),
        "numbers": ("int64", 5),
        "out": (result, elements),
    }
    with kernel(symbol, **buffers) as body:
        a, b, numbers, out = body.buffers("a", "b", "numbers", "out")
        a_multiplier, b_multiplier, offset, shift, zero = (load(numbers, i) for i in range(5))
        with loop(body.begin, body.end) as row, loop(0, columns) as i:
            at = row * columns + i
            other = load(b, _wrapped(row, i, columns, b_size, elements))
            total = wide(load(a, at)) * a_multiplier + wide(other) * b_multiplier + offset
            store(out, at, rescale(total, shift, zero, result))
    return body.func


def _wrapped(row: Expr, i: Expr, columns: int, period: int, elements: int) -> Expr:
    """Index into a `b` that repeats every `period` elements."""
    if period == elements:
        return row * columns + i
    if period == columns:
        return i
    if period == 1:
        return const(0, "int32")
    return (row * columns + i) % period


def rescale_kernel(symbol: str, count: int, columns: int, source: str, scales: int, result: str) -> PrimFunc:
    """Items are rows; `multiplier` and `offset` have one entry or one per column. `numbers`: shift, zero_point."""
    buffers = {
        "x": (source, count * columns),
        "multiplier": ("int32", scales),
        "offset": ("int64", scales),
        "numbers": ("int64", 2),
        "out": (result, count * columns),
    }
    with kernel(symbol, **buffers) as body:
        x, multiplier, offset, numbers, out = body.buffers("x", "multiplier", "offset", "numbers", "out")
        shift, zero = load(numbers, 0), load(numbers, 1)
        with loop(body.begin, body.end) as row, loop(0, columns) as i:
            channel = i if scales > 1 else 0
            value = wide(load(x, row * columns + i)) * wide(load(multiplier, channel)) + load(offset, channel)
            store(out, row * columns + i, rescale(value, shift, zero, result))
    return body.func


def mean_kernel(symbol: str, outer: int, length: int, inner: int, source: str, result: str) -> PrimFunc:
    """Items are outputs ``[outer, inner]``. `numbers`: multiplier, offset, shift, zero_point."""
    buffers = {
        "x": (source, outer * length * inner),
        "numbers": ("int64", 4),
        "out": (result, outer * inner),
    }
    with kernel(symbol, **buffers) as body:
        x, numbers, out = body.buffers("x", "numbers", "out")
        multiplier, offset, shift, zero = (load(numbers, i) for i in range(4))
        with loop(body.begin, body.end) as item:
            total = Cell(const(0, "int64"), "int64")
            start = (item // inner) * (length * inner) + item % inner
            with loop(0, length) as i:
                total.set(total.get() + wide(load(x, start + i * inner)))
            store(out, item, rescale(total.get() * multiplier + offset, shift, zero, result))
    return body.func


def numbers(site: Site, *names: str) -> Constant:
    """Attributes as the int64 array that a kernel reads its numbers from."""
    return Constant(np.array([site.attr(name) for name in names], np.int64))


def lower_add(site: Site) -> list[Launch]:
    """Launches of one add."""
    a, b = site.inputs
    count, columns = rows(a)
    made = Kernel(add_kernel, (count, columns, a.dtype, b.dtype, size(b), site.output.dtype))
    attrs = numbers(site, "a_multiplier", "b_multiplier", "offset", "shift", "zero_point")
    return [Launch(made, (site.operand(0), site.operand(1), attrs, site.result), count, grain(columns))]


def lower_rescale(site: Site) -> list[Launch]:
    """Launches of one rescale."""
    x = site.inputs[0]
    count, columns = rows(x)
    constants = np.broadcast_arrays(site.constant(1).reshape(-1), site.constant(2).reshape(-1))
    made = Kernel(rescale_kernel, (count, columns, x.dtype, constants[0].size, site.output.dtype))
    scales = tuple(Constant(np.ascontiguousarray(array)) for array in constants)
    operands = (site.operand(0), *scales, numbers(site, "shift", "zero_point"), site.result)
    return [Launch(made, operands, count, grain(columns))]


def lower_mean(site: Site) -> list[Launch]:
    """Launches of one mean."""
    (x,) = site.inputs
    axis = site.attr("axis") % len(x.shape)
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    made = Kernel(mean_kernel, (outer, x.shape[axis], inner, x.dtype, site.output.dtype))
    attrs = numbers(site, "multiplier", "offset", "shift", "zero_point")
    return [Launch(made, (site.operand(0), attrs, site.result), outer * inner, grain(x.shape[axis]))]
