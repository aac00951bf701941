"""table and quantize_input: one table read per element."""

from __future__ import annotations

import math

import numpy as np
from tvm import tirx

from intaglio.backends.cpu.ir import (
    Buffer,
    Expr,
    Kernel,
    PrimFunc,
    bind,
    bits,
    cast,
    const,
    kernel,
    load,
    loop,
    minimum,
    splat,
    store,
)
from intaglio.backends.cpu.isa import Isa
from intaglio.backends.cpu.launch import Constant, Launch, Site, grain, rows, size
from intaglio.program import Array

# Bytes of one vector register.
BYTES = 32


def table_kernel(symbol: str, elements: int, source: str, entries: int, result: str) -> PrimFunc:
    """``out[i] = table[x[i] - min(source)]``; items are elements."""
    buffers = {"x": (source, elements), "table": (result, entries), "out": (result, elements)}
    with kernel(symbol, **buffers) as body:
        x, table, out = body.buffers("x", "table", "out")
        with loop(body.begin, body.end) as i:
            store(out, i, load(table, cast(load(x, i), "int32") - minimum(source)))
    return body.func


def lookup_bytes(isa: Isa, table: Buffer, x: Expr, start: Expr = 0) -> Expr:
    """``table[x]`` for int8 x 32, from a table as `spread` lays it out from `start` on. AVX2 only.

    All sixteen rows of the table are shuffled by the low four bits; the high ones choose among the results, bit by bit.
    """
    low = bind(x & splat(const(15, "int8"), BYTES))
    found = [isa.shuffle_bytes(load(table, start + row * BYTES, BYTES), low) for row in range(16)]
    for bit in range(4, 8):
        # Only the sign bit of a byte counts, so what a 16-bit shift carries into the next byte does no harm.
        shifted = bits(x, "int16x16") << splat(const(7 - bit, "int16"), 16) if bit < 7 else x
        mask = bind(bits(shifted, f"int8x{BYTES}"))
        found = [
            bind(isa.blend_bytes(zero, one, mask)) for zero, one in zip(found[::2], found[1::2], strict=True)
        ]
    return found[0]


def spread(table: Array) -> Array:
    """The 256 int8 entries by the unsigned value of their index, every sixteen of them twice."""
    rows = np.roll(table, 128).reshape(16, 1, 16)
    return np.ascontiguousarray(np.broadcast_to(rows, (16, 2, 16)))


def byte_table_kernel(symbol: str, elements: int, isa: Isa) -> PrimFunc:
    """int8 to int8; items are groups of 32 elements, the last of which may overlap its neighbour."""
    buffers = {"x": ("int8", elements), "table": ("int8", 16 * BYTES), "out": ("int8", elements)}
    with kernel(symbol, **buffers) as body, loop(body.begin, body.end) as group:
        start = bind(tirx.min(group * BYTES, const(elements - BYTES, "int32")))
        store(body["out"], start, lookup_bytes(isa, body["table"], load(body["x"], start, BYTES)), BYTES)
    return body.func


def is_bytes(isa: Isa, source: str, result: str) -> bool:
    """Whether `lookup_bytes` can do it."""
    return isa.avx2 and source == "int8" and result == "int8"


def quantize_input_kernel(
    symbol: str, pixels: int, columns: int, plane: int, channels: int, result: str
) -> PrimFunc:
    """``out[b, c, ...] = table[c, x[b, c, ...]]``; items are rows of `columns` pixels, `plane` rows to a channel."""
    buffers = {"x": ("uint8", pixels), "table": (result, channels * 256), "out": (result, pixels)}
    with kernel(symbol, **buffers) as body:
        x, table, out = body.buffers("x", "table", "out")
        with loop(body.begin, body.end) as row, loop(0, columns) as i:
            channel = (row // plane) % channels
            pixel = cast(load(x, row * columns + i), "int32")
            store(out, row * columns + i, load(table, channel * 256 + pixel))
    return body.func


def lower_table(site: Site) -> list[Launch]:
    """Launches of one table."""
    x, table = site.inputs
    elements = size(x)
    if is_bytes(site.isa, x.dtype, table.dtype) and elements >= BYTES:
        made = Kernel(byte_table_kernel, (elements, site.isa))
        operands = (site.operand(0), Constant(spread(site.constant(1))), site.result)
        return [Launch(made, operands, -(-elements // BYTES), 4096 // BYTES)]
    made = Kernel(table_kernel, (elements, x.dtype, size(table), table.dtype))
    return [Launch(made, (site.operand(0), site.operand(1), site.result), elements, 4096)]


def lower_quantize_input(site: Site) -> list[Launch]:
    """Launches of one quantize_input."""
    x, table = site.inputs
    count, columns = rows(x) if len(x.shape) > 2 else (size(x), 1)
    plane = math.prod(x.shape[2:]) // columns
    made = Kernel(quantize_input_kernel, (size(x), columns, plane, x.shape[1], table.dtype))
    return [Launch(made, (site.operand(0), site.operand(1), site.result), count, grain(columns))]
