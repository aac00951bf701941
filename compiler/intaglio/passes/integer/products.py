"""Ops with an accumulator: matmul, convolution, LayerNorm, softmax, mean. Each waits for the grid of its result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from intaglio.ops.base import Grid
from intaglio.passes.graph import ints
from intaglio.passes.integer.emit import Missing
from intaglio.passes.integer.lazy import (
    Array,
    Attention,
    Const,
    Kind,
    Linear,
    MatMul,
    Mean,
    Norm,
    OnGrid,
    Pending,
    Probabilities,
    Real,
    Unary,
    Value,
    covers,
)
from intaglio.passes.integer.moves import attrs_of
from intaglio.passes.integer.walk import Bound, RefusedError, Walk


def matmul(walk: Walk, bound: Bound) -> Value:
    """Activation times constant (linear), probabilities times activation (attention), or two activations."""
    a, b = (walk.value(arg) for arg in bound.call.args[:2])
    shape = bound.shape
    if isinstance(b, Const):
        return _linear(walk, a, b, shape)
    if isinstance(a, Const):
        raise RefusedError(
            "multiplies a constant by an activation; intaglio takes activation times constant "
            "(transpose the product)"
        )
    if a.shape[:-2] != b.shape[:-2]:
        raise RefusedError(
            f"multiplies batches of shapes {list(a.shape)} and {list(b.shape)}; they must be equal"
        )
    right = walk.emitter.need(b, "matmul input")
    return walk.pending(shape, _product(walk, a, right), a, b, channel_axis=len(shape) - 1)


def _product(walk: Walk, a: Value, right: OnGrid) -> Kind:
    if isinstance(a, Probabilities):
        return Attention(a, right)
    return MatMul(walk.emitter.need(a, "matmul input"), right)


def _linear(walk: Walk, a: Value, b: Const, shape: tuple[int, ...]) -> Value:
    if isinstance(a, Const):
        return Const(shape, values=a.real() @ b.real())
    if int(np.prod(b.shape[:-2])) != 1 or len(b.shape) < 2:
        raise RefusedError(
            f"multiplies by a constant of shape {list(b.shape)}; intaglio takes a matrix [K, N]"
        )
    x = walk.emitter.need(a, "linear input")
    weight, scale = _weights(walk, b, axis=-1)
    matrix = np.ascontiguousarray(weight.reshape(weight.shape[-2:]).T)
    moves = () if len(shape) == len(x.shape) else (attrs_of("reshape", shape=list(shape)),)
    return walk.pending(shape, Linear(x, matrix, scale), a, b, moves=moves, channel_axis=len(shape) - 1)


def conv2d(walk: Walk, bound: Bound) -> Value:
    """A patch embedding: the convolution whose patches do not overlap."""
    x, weight = (walk.value(arg) for arg in bound.call.args[:2])
    if not isinstance(weight, Const):
        raise RefusedError("is a convolution with computed weights")
    kernel = list(weight.shape[2:])
    _check_patches(bound.call, kernel, x.shape)
    image = walk.emitter.need(x, "linear input")
    integers, scale = _weights(walk, weight, axis=0)
    kind = Linear(image, integers, scale, patch=(kernel[0], kernel[1]))
    moves = (attrs_of("transpose", axes=[0, 2, 1]), attrs_of("reshape", shape=list(bound.shape)))
    return walk.pending(bound.shape, kind, x, weight, moves=moves, channel_axis=1)


def _check_patches(call: relax.Call, kernel: list[int], image: tuple[int, ...]) -> None:
    attrs = call.attrs
    plain = ints(attrs.strides) == kernel and not any(ints(attrs.padding)) and int(attrs.groups) == 1
    whole = not any(n % k for n, k in zip(image[2:], kernel, strict=True))
    if not plain or set(ints(attrs.dilation)) != {1} or not whole:
        raise RefusedError(
            f"is a convolution with kernel {kernel}, stride {ints(attrs.strides)}, padding {ints(attrs.padding)}, "
            f"groups {int(attrs.groups)} on {list(image)}; intaglio takes patch embeddings: stride = kernel, "
            "no padding, one group"
        )


def _weights(walk: Walk, value: Const, axis: int) -> tuple[Array, Real]:
    """Centred integers, and one scale per index of `axis`; zeros where the weights have no scale yet."""
    if value.integers is None:
        walk.emitter.missing.append(Missing(walk.current, "weight"))
        peak = np.abs(np.moveaxis(value.real(), axis, 0)).reshape(value.shape[axis], -1).max(axis=1)
        return np.zeros(value.shape, np.int8), np.where(peak > 0, peak / 127, 1.0)
    assert value.scale is not None
    assert value.zero is not None
    return _centred(value.integers, value.zero), _channel_scale(value.scale, value.shape, axis)


def _centred(integers: Array, zero: Array) -> Array:
    if not zero.any():
        return integers
    centred = integers.astype(np.int32) - zero.astype(np.int32)
    if np.abs(centred).max(initial=0) > np.iinfo(np.int16).max:
        raise RefusedError(
            "has 16-bit weights that leave 16 bits once their zero point is subtracted; quantize them symmetrically"
        )
    return centred.astype(np.int16)


def _channel_scale(scale: Array, shape: tuple[int, ...], axis: int) -> Real:
    """One scale per index of `axis`, of scales that broadcast to `shape`."""
    aligned = scale.astype(np.float64).reshape((1,) * (len(shape) - scale.ndim) + scale.shape)
    rows = np.moveaxis(aligned, axis, 0)
    rows = rows.reshape(len(rows), -1)
    if (rows != rows[:, :1]).any():
        raise RefusedError(
            "has weights quantized along the axis that is summed over; "
            "quantize them per output channel or per tensor"
        )
    return np.broadcast_to(rows[:, 0], shape[axis]).copy()


def layer_norm(walk: Walk, bound: Bound) -> Value:
    """LayerNorm over the last axis."""
    x, gamma, beta = (walk.value(arg) for arg in bound.call.args[:3])
    last = len(x.shape) - 1
    axes = [axis % len(x.shape) for axis in ints(bound.call.attrs.axes)]
    if not isinstance(gamma, Const) or not isinstance(beta, Const) or axes != [last]:
        raise RefusedError(
            f"is a LayerNorm over axes {axes} of {list(x.shape)}; intaglio takes constant parameters and the last axis"
        )
    source = walk.emitter.need(x, "layernorm input")
    epsilon = float(bound.call.attrs.epsilon)
    kind = Norm(source, gamma.real().reshape(-1), beta.real().reshape(-1), epsilon)
    return walk.pending(x.shape, kind, x, channel_axis=last)


def softmax(walk: Walk, bound: Bound) -> Value:
    """Softmax over the last axis; stays exact until something other than attention reads it."""
    x = walk.value(bound.call.args[0])
    axis = int(bound.call.attrs.axis)
    if axis % len(x.shape) != len(x.shape) - 1:
        raise RefusedError(f"is a softmax over axis {axis} of {list(x.shape)}; intaglio takes the last axis")
    if isinstance(x, Unary) and x.function is None and x.grid is not None and x.source.exact is not None:
        x = _rescored(walk, x, x.source.exact, x.grid)
    scores = walk.emitter.need(x, "attention scores")
    return Probabilities(x.shape, scores=scores, nodes=x.nodes)


def _rescored(walk: Walk, x: Unary, exact: Pending, grid: Grid) -> Value:
    """Scores rounded twice (MatMul, Q/DQ, scale, Q/DQ): once, on the grid that softmax reads, is more exact.

    Only where the first grid cuts nothing off that the second one would keep.
    """
    if not isinstance(exact.kind, MatMul) or not covers(x.source.grid, grid):
        return x
    return walk.emitter.on_grid(replace(exact, nodes=(*exact.nodes, *x.nodes)), grid)


def mean(walk: Walk, bound: Bound) -> Value:
    """The mean over one axis, or over adjacent ones."""
    x = walk.value(bound.call.args[0])
    axes = [axis % len(x.shape) for axis in ints(bound.call.attrs.axis or range(len(x.shape)))]
    source = walk.emitter.need(x, "pooling input")
    if len(axes) > 1:
        source = _merged(walk, source, axes)
    reduced = tuple(n for i, n in enumerate(source.shape) if i != axes[0])
    moves = () if reduced == bound.shape else (attrs_of("reshape", shape=list(bound.shape)),)
    return walk.pending(bound.shape, Mean(source, axes[0], False), x, moves=moves)


def _merged(walk: Walk, x: OnGrid, axes: list[int]) -> OnGrid:
    """Adjacent `axes` as one."""
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise RefusedError(f"averages over axes {axes}; intaglio takes one axis, or adjacent ones")
    size = int(np.prod([x.shape[a] for a in axes]))
    shape = [*x.shape[: axes[0]], size, *x.shape[axes[-1] + 1 :]]
    expr = walk.emitter.move(x.expr, attrs_of("reshape", shape=shape), x.grid)
    return replace(x, shape=tuple(shape), expr=expr, exact=None)
