"""Data movement: every op is a copy between two strided views."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from intaglio.backends.cpu.ir import Expr, Kernel, PrimFunc, kernel, load, loop, store
from intaglio.backends.cpu.launch import Constant, Launch, Site, grain, size
from intaglio.program import Tensor

# (extent, stride in the source, stride in the destination), outermost first, strides in elements.
Axis = tuple[int, int, int]


def copy_kernel(
    symbol: str, dtype: str, axes: tuple[Axis, ...], start: tuple[int, int], sizes: tuple[int, int]
) -> PrimFunc:
    """Items are all but the innermost axis, flattened; `start`, `sizes`: first element and length of each side."""
    *outer, (columns, from_stride, to_stride) = axes
    with kernel(symbol, x=(dtype, sizes[0]), out=(dtype, sizes[1])) as body:
        x, out = body.buffers("x", "out")
        with loop(body.begin, body.end) as item:
            source, target = _offsets(item, outer)
            with loop(0, columns) as i:
                value = load(x, source + start[0] + i * from_stride)
                store(out, target + start[1] + i * to_stride, value)
    return body.func


def _offsets(item: Expr, axes: Sequence[Axis]) -> tuple[Expr, Expr]:
    source: Expr = item * 0
    target: Expr = item * 0
    for extent, from_stride, to_stride in reversed(axes):
        position = item % extent
        source, target = source + position * from_stride, target + position * to_stride
        item = item // extent
    return source, target


def gather_kernel(symbol: str, dtype: str, outer: int, length: int, picks: int, inner: int) -> PrimFunc:
    """``out[o, p, :] = x[o, indices[p], :]``; items are pairs (o, p)."""
    buffers = {
        "x": (dtype, outer * length * inner),
        "indices": ("int32", picks),
        "out": (dtype, outer * picks * inner),
    }
    with kernel(symbol, **buffers) as body:
        x, indices, out = body.buffers("x", "indices", "out")
        with loop(body.begin, body.end) as item:
            row = (item // picks) * length + load(indices, item % picks)
            with loop(0, inner) as i:
                store(out, item * inner + i, load(x, row * inner + i))
    return body.func


def strides(shape: Sequence[int]) -> list[int]:
    """Of a dense row-major array, in elements."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def merge(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Drop axes of extent 1 and join those that one stride describes on both sides."""
    merged: list[Axis] = []
    for axis in axes:
        if axis[0] == 1:
            continue
        if merged and all(merged[-1][side] == axis[0] * axis[side] for side in (1, 2)):
            axis = (merged.pop()[0] * axis[0], axis[1], axis[2])
        merged.append(axis)
    return tuple(merged) or ((1, 1, 1),)


def _copy(
    site: Site,
    index: int,
    shape: Sequence[int],
    source: Sequence[int],
    target: Sequence[int],
    start: tuple[int, int],
) -> Launch:
    axes = merge(list(zip(shape, source, target, strict=True)))
    sizes = (size(site.inputs[index]), size(site.output))
    made = Kernel(copy_kernel, (site.output.dtype, axes, start, sizes))
    items = math.prod(extent for extent, _, _ in axes[:-1])
    return Launch(made, (site.operand(index), site.result), items, grain(axes[-1][0]))


def lower_reshape(site: Site) -> list[Launch]:
    """Launches of one reshape."""
    return [_copy(site, 0, (size(site.output),), (1,), (1,), (0, 0))]


def lower_transpose(site: Site) -> list[Launch]:
    """Launches of one transpose."""
    source = strides(site.inputs[0].shape)
    permuted = [source[axis] for axis in site.step.attrs["axes"]]
    return [_copy(site, 0, site.output.shape, permuted, strides(site.output.shape), (0, 0))]


def lower_slice(site: Site) -> list[Launch]:
    """Launches of one slice."""
    dense = strides(site.inputs[0].shape)
    steps = [stride * step for stride, step in zip(dense, site.step.attrs["strides"], strict=True)]
    begin = [
        b + d if b < 0 else min(b, d)
        for b, d in zip(site.step.attrs["begin"], site.inputs[0].shape, strict=True)
    ]
    start = sum(b * stride for b, stride in zip(begin, dense, strict=True))
    return [_copy(site, 0, site.output.shape, steps, strides(site.output.shape), (start, 0))]


def lower_broadcast(site: Site) -> list[Launch]:
    """Launches of one broadcast."""
    x, out = site.inputs[0], site.output
    shape = (1,) * (len(out.shape) - len(x.shape)) + x.shape
    source = [0 if extent == 1 else stride for extent, stride in zip(shape, strides(shape), strict=True)]
    return [_copy(site, 0, out.shape, source, strides(out.shape), (0, 0))]


def lower_concat(site: Site) -> list[Launch]:
    """Launches of one concat."""
    axis = site.attr("axis") % len(site.output.shape)
    target = strides(site.output.shape)
    launches, position = [], 0
    for index, x in enumerate(site.inputs):
        launches.append(_copy(site, index, x.shape, strides(x.shape), target, (0, position * target[axis])))
        position += x.shape[axis]
    return launches


def lower_gather(site: Site) -> list[Launch]:
    """Launches of one gather."""
    x: Tensor = site.inputs[0]
    axis = site.attr("axis") % len(x.shape)
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    picks = np.asarray(site.step.attrs["indices"], np.int32).reshape(-1) % x.shape[axis]
    made = Kernel(gather_kernel, (x.dtype, outer, x.shape[axis], picks.size, inner))
    operands = (site.operand(0), Constant(picks.astype(np.int32)), site.result)
    return [Launch(made, operands, outer * picks.size, grain(inner))]
