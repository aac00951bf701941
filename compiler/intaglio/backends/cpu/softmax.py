"""softmax: quantized probabilities, one row at a time."""

from __future__ import annotations

from tvm import tirx

from intaglio.backends.cpu.arith import rescale, wide
from intaglio.backends.cpu.elementwise import numbers
from intaglio.backends.cpu.exponential import exponential, row_reciprocal
from intaglio.backends.cpu.ir import Cell, Kernel, PrimFunc, cast, const, kernel, load, loop, minimum, store
from intaglio.backends.cpu.launch import Launch, Scratch, Site, grain, rows


def softmax_kernel(symbol: str, count: int, columns: int, source: str, e_bits: int, result: str) -> PrimFunc:
    """Items are rows; `weights` is scratch of one row. `numbers`: multiplier, shift, zero_point."""
    buffers = {
        "x": (source, count * columns),
        "table": ("uint32", 512 if source == "int16" else 256),
        "numbers": ("int64", 3),
        "weights": ("int32", columns),
        "out": (result, count * columns),
    }
    with kernel(symbol, **buffers) as body:
        x, table, attrs, weights, out = body.buffers(*buffers)
        multiplier, shift, zero = (load(attrs, i) for i in range(3))
        with loop(body.begin, body.end) as row:
            top = Cell(const(minimum(source), "int32"), "int32")
            with loop(0, columns) as i:
                top.set(tirx.max(top.get(), cast(load(x, row * columns + i), "int32")))
            total = Cell(const(0, "int64"), "int64")
            with loop(0, columns) as i:
                distance = top.get() - cast(load(x, row * columns + i), "int32")
                e = exponential(table, distance, source, e_bits)
                store(weights, i, e)
                total.set(total.get() + wide(e))
            r = row_reciprocal(total.get(), multiplier, e_bits)
            with loop(0, columns) as i:
                value = rescale(wide(load(weights, i)) * r, shift + (e_bits - 1), zero, result)
                store(out, row * columns + i, value)
    return body.func


def lower_softmax(site: Site) -> list[Launch]:
    """Launches of one softmax."""
    x = site.inputs[0]
    count, columns = rows(x)
    made = Kernel(softmax_kernel, (count, columns, x.dtype, site.attr("e_bits"), site.output.dtype))
    attrs = numbers(site, "multiplier", "shift", "zero_point")
    operands = (site.operand(0), site.operand(1), attrs, Scratch(columns * 4), site.result)
    return [Launch(made, operands, count, grain(columns))]
