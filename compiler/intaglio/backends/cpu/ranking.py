"""argmax and topk: indices of the largest values, ties to the lower index."""

from __future__ import annotations

import math

from intaglio.backends.cpu.ir import Cell, Kernel, PrimFunc, const, kernel, load, loop, store, when
from intaglio.backends.cpu.launch import Launch, Site, rows


def argmax_kernel(symbol: str, outer: int, length: int, inner: int, source: str) -> PrimFunc:
    """Items are outputs ``[outer, inner]``."""
    with kernel(symbol, x=(source, outer * length * inner), out=("int32", outer * inner)) as body:
        x, out = body.buffers("x", "out")
        with loop(body.begin, body.end) as item:
            start = (item // inner) * (length * inner) + item % inner
            best = Cell(load(x, start), source)
            index = Cell(const(0, "int32"), "int32")
            with loop(1, length) as i:
                value = load(x, start + i * inner)
                with when(value > best.get()):
                    best.set(value)
                    index.set(i)
            store(out, item, index.get())
    return body.func


def topk_kernel(symbol: str, count: int, length: int, k: int, source: str) -> PrimFunc:
    """Items are rows; selects k times the largest value after the last one in (value, index) order."""
    with kernel(symbol, x=(source, count * length), out=("int32", count * k)) as body:
        x, out = body.buffers("x", "out")
        with loop(body.begin, body.end) as row:
            last_value = Cell(const(1 << 30, "int32"), "int32")
            last_index = Cell(const(-1, "int32"), "int32")
            with loop(0, k) as rank:
                best = Cell(const(-(1 << 30), "int32"), "int32")
                index = Cell(const(0, "int32"), "int32")
                last, after = last_value.get(), last_index.get()
                with loop(0, length) as i:
                    value = load(x, row * length + i).astype("int32")
                    later = (value < last) | ((value == last) & (i > after))
                    with when(later & (value > best.get())):
                        best.set(value)
                        index.set(i)
                last_value.set(best.get())
                last_index.set(index.get())
                store(out, row * k + rank, index.get())
    return body.func


def lower_argmax(site: Site) -> list[Launch]:
    """Launches of one argmax."""
    (x,) = site.inputs
    axis = site.attr("axis") % len(x.shape)
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    made = Kernel(argmax_kernel, (outer, x.shape[axis], inner, x.dtype))
    return [Launch(made, (site.operand(0), site.result), outer * inner)]


def lower_topk(site: Site) -> list[Launch]:
    """Launches of one topk."""
    (x,) = site.inputs
    count, length = rows(x)
    made = Kernel(topk_kernel, (count, length, site.attr("k"), x.dtype))
    return [Launch(made, (site.operand(0), site.result), count)]
