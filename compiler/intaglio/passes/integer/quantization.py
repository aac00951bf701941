"""QuantizeLinear and DequantizeLinear: values move onto grids and off them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from intaglio.ops.base import Grid
from intaglio.passes.graph import constant
from intaglio.passes.integer.lazy import Array, Const, Input, Value
from intaglio.passes.integer.walk import Bound, RefusedError, Walk

# What shifts an unsigned grid to the signed one that intaglio computes on.
OFFSETS = {"int8": 0, "uint8": 128, "int16": 0, "uint16": 32768}


def quantize(walk: Walk, bound: Bound) -> Value:
    """A value rounded to its grid; the first one of the model's input decides the grid of that input."""
    value = walk.value(bound.call.args[0])
    scale, zero = _scale_and_zero(bound)
    if isinstance(value, Const):
        return _quantized_const(value, scale, zero, int(bound.call.attrs.axis))
    if scale.size != 1:
        raise RefusedError(
            "quantizes an activation per channel; intaglio takes one scale per activation tensor"
        )
    grid = _grid(scale, zero)
    return walk.emitter.quantize(value, grid)


def dequantize(walk: Walk, bound: Bound) -> Value:
    """The same integers, read as real values."""
    value = walk.value(bound.call.args[0])
    scale, zero = _scale_and_zero(bound)
    if isinstance(value, Const):
        return _dequantized_const(value, scale, zero, int(bound.call.attrs.axis))
    if scale.size != 1:
        raise RefusedError(
            "dequantizes an activation per channel; intaglio takes one scale per activation tensor"
        )
    grid = _grid(scale, zero)
    if isinstance(value, Input):
        return walk.emitter.on_grid(value, grid)
    if getattr(value, "grid", None) == grid:
        return value
    on_grid = walk.emitter.need(value, "dequantize")
    if on_grid.grid.dtype != grid.dtype:
        raise RefusedError(f"reads {on_grid.grid.dtype} values as {grid.dtype}")
    return replace(on_grid, grid=grid, exact=None)


def _scale_and_zero(bound: Bound) -> tuple[Array, Array]:
    scale, zero = constant(bound.call.args[1]), constant(bound.call.args[2])
    assert scale is not None, "the importer refuses computed scales"
    assert zero is not None, "the importer refuses computed zero points"
    return scale, zero


def _grid(scale: Array, zero: Array) -> Grid:
    """A per-tensor grid, canonical: unsigned types shifted to signed ones."""
    dtype = str(zero.dtype)
    if dtype not in OFFSETS:
        raise RefusedError(f"is quantized to {dtype}; intaglio takes 8- and 16-bit activations")
    step = float(scale.reshape(()))
    if not (np.isfinite(step) and step > 0):
        raise RefusedError(f"has the scale {step!r}, which is not a positive number")
    return Grid(step, int(zero.reshape(())) - OFFSETS[dtype], dtype.lstrip("u"))


def _quantized_const(value: Const, scale: Array, zero: Array, axis: int) -> Const:
    scale, zero = _along(scale, value.shape, axis), _along(zero, value.shape, axis)
    info = np.iinfo(zero.dtype)
    integers = np.clip(np.rint(value.real() / scale) + zero, info.min, info.max).astype(zero.dtype)
    return Const(value.shape, integers=integers, scale=scale, zero=zero, nodes=value.nodes)


def _dequantized_const(value: Const, scale: Array, zero: Array, axis: int) -> Const:
    integers = value.values if value.integers is None else value.integers
    scale, zero = _along(scale, value.shape, axis), _along(zero, value.shape, axis)
    return Const(value.shape, integers=integers, scale=scale, zero=zero)


def _along(grid: Array, shape: tuple[int, ...], axis: int) -> Array:
    """A scale or zero point, shaped to broadcast along `axis`."""
    if grid.size == 1:
        return grid.reshape(())
    axis %= len(shape)
    if grid.shape != (shape[axis],):
        raise RefusedError(f"has {grid.size} scales along axis {axis} of shape {list(shape)}")
    return grid.reshape([-1 if i == axis else 1 for i in range(len(shape))])
