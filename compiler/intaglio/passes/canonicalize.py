"""One spelling for each kind of data movement: reshape, permute_dims, strided_slice, concat, take by a list.

squeeze, expand_dims and flatten become reshape; an item of a split becomes a strided_slice; take by a constant becomes
a strided_slice where its indices are evenly spaced. where(isnan(x), c, x), which some exporters put behind a softmax,
is x: integers are never NaN. Ensures that strided_slice names every axis, with non-negative bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from intaglio.errors import UnsupportedError
from intaglio.passes.graph import Graph, constant, ints, op_name, rebuild, shape_of

RESHAPES = {"relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.reshape"}


def canonicalize(module: tvm.IRModule) -> tvm.IRModule:
    """Relax to Relax."""
    graph = Graph(module)

    def rewrite(var: relax.Var, value: relax.Expr, builder: relax.BlockBuilder) -> relax.Expr:
        name = op_name(value)
        if name in RESHAPES:
            return relax.op.reshape(value.args[0], shape_of(var))
        if isinstance(value, relax.TupleGetItem):
            item = _split_item(value, builder)
            return value if item is None else item
        if name == "relax.where" and _guards_nan(value, builder):
            return value.args[2]
        if name == "relax.take":
            return _take(value, shape_of(var), builder)
        if name == "relax.strided_slice":
            return full_slice(value.args[0], *_slice_bounds(value))
        return value

    return rebuild(graph, rewrite)


def _guards_nan(call: relax.Call, builder: relax.BlockBuilder) -> bool:
    """Whether the condition is isnan of the third operand."""
    condition = _definition(call.args[0], builder)
    return op_name(condition) == "relax.isnan" and bool(condition.args[0].same_as(call.args[2]))


def _definition(expr: relax.Expr, builder: relax.BlockBuilder) -> relax.Expr:
    return builder.lookup_binding(expr) if isinstance(expr, relax.Var) else expr


def full_slice(x: relax.Expr, begin: list[int], end: list[int], strides: list[int]) -> relax.Expr:
    """strided_slice over every axis of x."""
    return relax.op.strided_slice(x, list(range(len(begin))), begin, end, strides)


def _slice_bounds(call: relax.Call) -> tuple[list[int], list[int], list[int]]:
    shape = shape_of(call.args[0])
    axes, first, last = (ints(arg) for arg in call.args[1:4])
    steps = ints(call.args[4]) if len(call.args) > 4 else [1] * len(axes)
    begin, end, strides = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, b, e, step in zip(axes, first, last, steps, strict=True):
        if step < 1:
            raise UnsupportedError(
                f"a slice reverses axis {axis} of shape {list(shape)} (step {step}); intaglio takes positive strides"
            )
        begin[axis], end[axis], strides[axis] = slice(b, e, step).indices(shape[axis])
    return begin, end, strides


def _split_item(value: relax.TupleGetItem, builder: relax.BlockBuilder) -> relax.Expr | None:
    call = _definition(value.tuple_value, builder)
    if op_name(call) != "relax.split":
        return None
    x = call.args[0]
    shape, axis = shape_of(x), int(call.attrs.axis) % len(shape_of(x))
    cuts = _cuts(call.attrs.indices_or_sections, shape[axis])
    begin, end = [0] * len(shape), list(shape)
    begin[axis], end[axis] = cuts[value.index], cuts[value.index + 1]
    return full_slice(x, begin, end, [1] * len(shape))


def _cuts(sections: Any, length: int) -> list[int]:
    """Where a split cuts an axis: at given indices, or into a number of sections of which the last may be short."""
    if not isinstance(sections, int) and hasattr(sections, "__len__"):
        return [0, *ints(sections), length]
    count = int(getattr(sections, "value", sections))
    size = -(-length // count)
    return [min(index * size, length) for index in range(count + 1)]


def _take(call: relax.Call, out_shape: tuple[int, ...], builder: relax.BlockBuilder) -> relax.Expr:
    indices = constant(call.args[1])
    x = call.args[0]
    if indices is None or call.attrs.axis is None:
        return call
    axis = int(call.attrs.axis) % len(shape_of(x))
    flat = np.where(indices < 0, indices + shape_of(x)[axis], indices).reshape(-1)
    steps = set(np.diff(flat).tolist())
    if len(steps) > 1 or (steps and min(steps) < 1):
        return call
    step = steps.pop() if steps else 1
    begin, end = [0] * len(shape_of(x)), list(shape_of(x))
    begin[axis], end[axis] = int(flat[0]), int(flat[-1]) + 1
    strides = [1] * len(begin)
    strides[axis] = step
    return relax.op.reshape(builder.emit(full_slice(x, begin, end, strides)), out_shape)
