"""table and quantize_input: one table read per element."""

from __future__ import annotations

import math

from intaglio.backends.cpu.ir import Kernel, PrimFunc, cast, kernel, load, loop, minimum, store
from intaglio.backends.cpu.launch import Launch, Site, grain, rows, size


def table_kernel(symbol: str, elements: int, source: str, entries: int, result: str) -> PrimFunc:
    """``out[i] = table[x[i] - min(source)]``; items are elements."""
    buffers = {"x": (source, elements), "table": (result, entries), "out": (result, elements)}
    with kernel(symbol, **buffers) as body:
        x, table, out = body.buffers("x", "table", "out")
        with loop(body.begin, body.end) as i:
            store(out, i, load(table, cast(load(x, i), "int32") - minimum(source)))
    return body.func


def quantize_input_kernel(symbol: str, pixels: int, columns: int, plane: int, channels: int, result: str) -> PrimFunc:
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
    x, table = site.inputs
    elements = size(x)
    made = Kernel(table_kernel, (elements, x.dtype, size(table), table.dtype))
    return [Launch(made, (site.operand(0), site.operand(1), site.result), elements, 4096)]


def lower_quantize_input(site: Site) -> list[Launch]:
    x, table = site.inputs
    count, columns = rows(x) if len(x.shape) > 2 else (size(x), 1)
    plane = math.prod(x.shape[2:]) // columns
    made = Kernel(quantize_input_kernel, (size(x), columns, plane, x.shape[1], table.dtype))
    return [Launch(made, (site.operand(0), site.operand(1), site.result), count, grain(columns))]
