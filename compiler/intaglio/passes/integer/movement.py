"""Data movement: changes the description of a value that has no grid yet, moves the integers of one that has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from intaglio.passes.graph import constant, ints, shape_of
from intaglio.passes.integer.lazy import Concat, Const, Move, OnGrid, Pending, Unary, Value
from intaglio.passes.integer.moves import attrs_of, moved_axis, moved_const
from intaglio.passes.integer.walk import Bound, RefusedError, Walk


def reshape(walk: Walk, bound: Bound) -> Value:
    """The same values in row-major order, in another shape."""
    move = attrs_of("reshape", shape=list(bound.shape))
    return _moved(walk, walk.value(bound.call.args[0]), move, bound.shape)


def permute_dims(walk: Walk, bound: Bound) -> Value:
    """Axes in another order (reversed, if none is given)."""
    rank, axes = len(bound.shape), bound.call.attrs.axes
    order = ints(axes) if axes is not None else list(range(rank))[::-1]
    move = attrs_of("transpose", axes=[axis % rank for axis in order])
    return _moved(walk, walk.value(bound.call.args[0]), move, bound.shape)


def strided_slice(walk: Walk, bound: Bound) -> Value:
    """A slice that names every axis, as `canonicalize` leaves it."""
    begin, end, strides = (ints(arg) for arg in bound.call.args[2:5])
    move = attrs_of("slice", begin=begin, end=end, strides=strides)
    return _moved(walk, walk.value(bound.call.args[0]), move, bound.shape)


def take(walk: Walk, bound: Bound) -> Value:
    """Items of one axis, by constant indices of any shape."""
    source, indices = bound.call.args[0], constant(bound.call.args[1])
    if indices is None:
        raise RefusedError("gathers by computed indices")
    shape = shape_of(source)
    axis = int(bound.call.attrs.axis) % len(shape)
    flat = (*shape[:axis], indices.size, *shape[axis + 1 :])
    gather = attrs_of("gather", axis=axis, indices=indices.reshape(-1).tolist())
    gathered = _moved(walk, walk.value(source), gather, flat)
    if flat == bound.shape:
        return gathered
    return _moved(walk, gathered, attrs_of("reshape", shape=list(bound.shape)), bound.shape)


def broadcast_to(walk: Walk, bound: Bound) -> Value:
    """Axes of length one repeated."""
    move = attrs_of("broadcast", shape=list(bound.shape))
    return _moved(walk, walk.value(bound.call.args[0]), move, bound.shape)


def concat(walk: Walk, bound: Bound) -> Value:
    """Parts joined along an axis; on the grid of its parts, where they share one."""
    joined = bound.call.args[0]
    fields = joined.fields if isinstance(joined, relax.Tuple) else bound.call.args
    parts = tuple(walk.value(item) for item in fields)
    axis = int(bound.call.attrs.axis) % len(bound.shape)
    constants = [part.real() for part in parts if isinstance(part, Const)]
    if len(constants) == len(parts):
        return Const(bound.shape, values=np.concatenate(constants, axis))
    pending = walk.pending(bound.shape, Concat(parts, axis), *parts)
    grid = walk.emitter.implied_grid(pending)
    return walk.emitter.on_grid(pending, grid) if grid else pending


def _moved(walk: Walk, value: Value, move: Move, shape: tuple[int, ...]) -> Value:
    if isinstance(value, Const):
        return moved_const(value, move, shape)
    if isinstance(value, Pending):
        axis = moved_axis(value.channel_axis, value.shape, move)
        return replace(value, shape=shape, moves=(*value.moves, move), channel_axis=axis)
    if isinstance(value, Unary) and value.grid is None:
        source = walk.emitter.need(value.source, "move")
        expr = walk.emitter.move(source.expr, move, source.grid)
        return replace(value, source=replace(source, expr=expr, shape=shape, exact=None), shape=shape)
    on_grid = walk.emitter.need(value, "move")
    expr = walk.emitter.move(on_grid.expr, move, on_grid.grid, on_grid.nodes[-1:])
    return OnGrid(shape, expr=expr, grid=on_grid.grid, nodes=on_grid.nodes)
