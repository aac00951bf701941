"""Indices of the largest logits: argmax, top-k, and the casts and tuple items that carry them."""

from __future__ import annotations

from intaglio.passes.graph import dtype_of
from intaglio.passes.integer.lazy import Const, Indices, Value
from intaglio.passes.integer.walk import Bound, RefusedError, Walk


def argmax(walk: Walk, bound: Bound) -> Value:
    """Index of the largest value along an axis."""
    x = walk.emitter.need(walk.value(bound.call.args[0]), "output")
    attrs = {
        "axis": int(bound.call.attrs.axis) % len(x.shape),
        "keepdims": int(bound.call.attrs.keepdims),
    }
    return Indices(bound.shape, expr=walk.emitter.call("argmax", [x.expr], attrs, (walk.current,)))


def topk(walk: Walk, bound: Bound) -> Value:
    """Indices of the k largest values along the last axis."""
    x = walk.emitter.need(walk.value(bound.call.args[0]), "output")
    attrs = bound.call.attrs
    if int(attrs.axis) % len(x.shape) != len(x.shape) - 1 or not bool(attrs.largest):
        raise RefusedError("is a top-k that is not of the largest along the last axis")
    expr = walk.emitter.call("topk", [x.expr], {"k": int(attrs.k)}, (walk.current,))
    return Indices((*x.shape[:-1], int(attrs.k)), expr=expr)


def tuple_item(walk: Walk, bound: Bound) -> Value:
    """The indices of a top-k; its values have no integer meaning."""
    source = bound.call.tuple_value
    if isinstance(found := walk.values.get(source), Indices) and bound.call.index == 1:
        return found
    raise RefusedError("takes an item of a tuple that has no integer meaning")


def astype(walk: Walk, bound: Bound) -> Value:
    """A cast of indices, of constants, or from one floating-point type to another."""
    source = bound.call.args[0]
    if isinstance(found := walk.values.get(source), Indices):
        return found
    value = walk.value(source)
    dtype = dtype_of(bound.var)
    if isinstance(value, Const):
        return Const(value.shape, values=value.real().astype(dtype))
    if not dtype.startswith("float"):
        raise RefusedError(f"casts an activation to {dtype}")
    return value
