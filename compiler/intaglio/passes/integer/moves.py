"""Data movement on NumPy arrays, Relax expressions and descriptions alike: (op, attrs) pairs of the integer op set."""

from __future__ import annotations

from typing import Any

import numpy as np

from intaglio.passes.integer.lazy import Array, Const, Move


def moved_array(array: Array, move: Move) -> Array:
    """`array` after `move`."""
    op, attrs = move
    if op == "reshape":
        return array.reshape(attrs["shape"])
    if op == "transpose":
        return array.transpose(attrs["axes"])
    if op == "slice":
        index = zip(attrs["begin"], attrs["end"], attrs["strides"], strict=True)
        return array[tuple(slice(*bounds) for bounds in index)]
    if op == "gather":
        return np.take(array, attrs["indices"], axis=attrs["axis"])
    if op == "broadcast":
        return np.broadcast_to(array, attrs["shape"])
    raise AssertionError(op)


def moved_const(value: Const, move: Move, shape: tuple[int, ...]) -> Const:
    """A constant after `move`; per-channel scales move along."""
    if value.integers is None:
        assert value.values is not None
        return Const(shape, values=moved_array(value.values, move), nodes=value.nodes)
    assert value.scale is not None
    assert value.zero is not None
    scale, zero = (_moved_grid(grid, value.shape, move) for grid in (value.scale, value.zero))
    return Const(shape, integers=moved_array(value.integers, move), scale=scale, zero=zero, nodes=value.nodes)


def _moved_grid(grid: Array, shape: tuple[int, ...], move: Move) -> Array:
    if grid.size == 1:
        return grid.reshape(())
    if move[0] == "transpose" and grid.ndim == len(shape):
        return grid.transpose(move[1]["axes"])
    return moved_array(np.broadcast_to(grid, shape), move)


def moved_axis(axis: int | None, shape: tuple[int, ...], move: Move) -> int | None:
    """Where `axis` of a tensor of `shape` is after `move`; None if it does not survive as one axis."""
    op, attrs = move
    if axis is None:
        return None
    if op == "transpose":
        return list(attrs["axes"]).index(axis)
    if op == "gather":
        return axis if attrs["axis"] != axis else None
    if op == "slice":
        return axis if attrs["end"][axis] - attrs["begin"][axis] == shape[axis] else None
    if op == "reshape":
        return _axis_in_reshape(axis, shape, attrs["shape"])
    return None


def _axis_in_reshape(axis: int, before: tuple[int, ...], after: list[int]) -> int | None:
    outer, size = int(np.prod(before[:axis])), before[axis]
    position = 1
    for index, dim in enumerate(after):
        if position == outer and dim == size:
            return index
        position *= dim
    return None


def attrs_of(op: str, **attrs: Any) -> Move:
    """A move with plain Python attributes."""
    return op, {
        key: [int(v) for v in value] if isinstance(value, list | tuple) else int(value)
        for key, value in attrs.items()
    }
