"""Elementwise ops: tables of one activation, factors and biases by constants, sums of two activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax

from intaglio.passes.graph import op_name
from intaglio.passes.integer.channels import (
    PerChannel,
    channel_vector,
    channels,
    last_axis_vector,
    with_bias,
    with_gain,
)
from intaglio.passes.integer.functions import BINARY, UNARY
from intaglio.passes.integer.lazy import (
    Affine,
    AsWritten,
    Concat,
    Const,
    Linear,
    OnGrid,
    Pending,
    Real,
    Sum,
    Unary,
    Value,
    is_two_sided,
)
from intaglio.passes.integer.walk import Bound, RefusedError, Walk

COMMUTATIVE = ("relax.add", "relax.multiply", "relax.maximum", "relax.minimum")
ADDITIVE = ("relax.add", "relax.subtract")
SCALING = ("relax.multiply", "relax.divide")


def unary(walk: Walk, bound: Bound) -> Value:
    """A real function of one tensor."""
    function = UNARY[op_name(bound.call)](bound.call)
    x = walk.value(bound.call.args[0])
    if isinstance(x, Const):
        return Const(x.shape, values=function(x.real()))
    return _as_unary(walk, x).then(function)


def binary(walk: Walk, bound: Bound) -> Value:
    """A real function of two tensors, with broadcasting."""
    op, shape = op_name(bound.call), bound.shape
    a, b = (_operand(walk, arg) for arg in bound.call.args[:2])
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(shape, values=BINARY[op](a.real(), b.real()))
    if isinstance(a, Const) and op in COMMUTATIVE:
        a, b = b, a
    if isinstance(b, Const):
        return _with_constant(walk, op, a, b, shape)
    if isinstance(a, Const):
        return _constant_first(walk, op, a, b, shape)
    if (both := _same_source(walk, op, a, b)) is not None:
        return both
    if op in ADDITIVE:
        return _sum(walk, a, b, shape, 1 if op == "relax.add" else -1)
    raise RefusedError("combines two activations elementwise; intaglio adds and subtracts them, nothing else")


def _operand(walk: Walk, expr: relax.Expr) -> Value:
    """An operand. An exact result that others read too must meet one grid first: x * sigmoid(x) has one x."""
    value = walk.value(expr)
    if isinstance(value, Pending) and isinstance(value.kind, Linear):
        readers = walk.graph.users(expr)
        ops = {op_name(walk.graph.definition[reader]) for reader in readers}
        if len(readers) > 1 and not ops & {"relax.quantize", "relax.nn.layer_norm"}:
            return walk.emitter.need(value, "activation input")
    if isinstance(value, OnGrid) and value.exact is not None and len(walk.graph.users(expr)) > 1:
        return replace(value, exact=None)  # its other readers see it rounded, so this one does
    return value


def _as_unary(walk: Walk, value: Value) -> Unary:
    if isinstance(value, Unary):
        return value
    source = walk.emitter.need(value, "activation input")
    return Unary(value.shape, source=source, nodes=value.nodes)


def _same_source(walk: Walk, op: str, a: Value, b: Value) -> Value | None:
    """X * sigmoid(x) and the like: two unary functions of one tensor are one."""
    if not _may_share_source(op, a, b):
        return None
    left, right = _as_unary(walk, a), _as_unary(walk, b)
    ours, theirs = left.source, right.source
    if not ours.expr.same_as(theirs.expr) or ours.grid.zero_point != theirs.grid.zero_point:
        return None
    scale = theirs.grid.scale / ours.grid.scale
    combined = _combined(BINARY[op], left.rounded(), right.rounded(), scale)
    nodes = tuple(dict.fromkeys((*a.nodes, *b.nodes)))
    return Unary(left.shape, source=ours, function=combined, nodes=nodes)


def _may_share_source(op: str, a: Value, b: Value) -> bool:
    """Whether a table could compute `op`. Residual sums stay sums, unless an operand is a function already."""
    tables = all(isinstance(v, Unary | OnGrid) for v in (a, b))
    if op not in ADDITIVE:
        return tables or a is b
    return tables and (a is b or any(isinstance(v, Unary) for v in (a, b)))


def _combined(
    function: Callable[[Any, Any], Any],
    left: Callable[[Real], Real],
    right: Callable[[Real], Real],
    scale: float,
) -> Callable[[Real], Real]:
    return lambda x: np.asarray(function(left(x), right(x * scale)))


# --- constants ----------------------------------------------------------------------------------------------


def _constant_first(walk: Walk, op: str, a: Const, b: Value, shape: tuple[int, ...]) -> Value:
    scalar = a.scalar
    if scalar is None or b.shape != shape:
        raise RefusedError(
            f"has a constant of shape {list(a.shape)} as its first operand; intaglio takes a scalar"
        )
    return _as_unary(walk, b).then(lambda x: BINARY[op](scalar, x))


def _with_constant(walk: Walk, op: str, a: Value, b: Const, shape: tuple[int, ...]) -> Value:
    if a.shape == shape and op in ADDITIVE and not b.real().any():
        return a  # an attention mask that masks nothing
    scalar = b.scalar
    if scalar is not None and a.shape == shape:
        return _with_scalar(walk, op, a, scalar)
    match op:
        case "relax.multiply":
            return _scaled(walk, a, b, shape)
        case "relax.divide" if not b.real().all():
            raise RefusedError("divides by zero")
        case "relax.divide":
            return _scaled(walk, a, Const(b.shape, values=1.0 / b.real()), shape)
        case "relax.add":
            return _shifted(walk, a, b, shape)
        case "relax.subtract":
            return _shifted(walk, a, Const(b.shape, values=-b.real()), shape)
    raise RefusedError(f"combines an activation with a constant of shape {list(b.shape)}")


def _with_scalar(walk: Walk, op: str, a: Value, scalar: float) -> Value:
    if op in SCALING and scalar != 0:
        factor = scalar if op == "relax.multiply" else 1.0 / scalar
        if isinstance(a, Pending) and not isinstance(a.kind, Concat):
            return replace(a, factor=a.factor * factor, tensor=walk.current, as_written=None)
        if isinstance(a, OnGrid) and factor > 0:
            return a.times(factor)
    if op in ADDITIVE and isinstance(a, Pending) and isinstance(a.kind, PerChannel):
        vector = np.full(channels(a.kind), scalar if op == "relax.add" else -scalar)
        return _biased(walk, a, vector)
    return _as_unary(walk, a).then(lambda x: BINARY[op](x, scalar))


def _scaled(walk: Walk, a: Value, b: Const, shape: tuple[int, ...]) -> Value:
    """`a` times one factor per channel."""
    if isinstance(a, Pending) and (gain := channel_vector(a, b)) is not None:
        nodes = (*a.nodes, *b.nodes)
        return replace(a, kind=with_gain(a.kind, gain), tensor=walk.current, nodes=nodes, as_written=None)
    vector = last_axis_vector(b, shape)
    if vector is None or a.shape != shape:
        raise RefusedError(
            f"multiplies {list(a.shape)} by a constant of shape {list(b.shape)}; "
            "intaglio takes one factor per channel"
        )
    x = walk.emitter.need(a, "scale input")
    kind = Affine(x, vector, np.zeros_like(vector))
    return walk.pending(shape, kind, a, b, channel_axis=len(shape) - 1)


def _shifted(walk: Walk, a: Value, b: Const, shape: tuple[int, ...]) -> Value:
    """`a` plus a bias where it has a place for one, even if it has been rounded since; else a sum.

    Rounding between a product and its bias (as in ONNX Runtime's MatMul form) is skipped, unless it is a ReLU or clips.
    """
    if isinstance(a, Pending) and a.factor > 0 and (vector := channel_vector(a, b)) is not None:
        return _biased(walk, a, vector)
    exact = a.exact if isinstance(a, OnGrid) and is_two_sided(a.grid) else None
    if exact is None or not isinstance(exact.kind, Linear) or exact.factor <= 0:
        return _sum(walk, a, b, shape, 1)
    if (vector := channel_vector(exact, b)) is None:
        return _sum(walk, a, b, shape, 1)
    assert isinstance(a, OnGrid)
    folded = _biased(walk, replace(exact, nodes=(*exact.nodes, *a.nodes, *b.nodes)), vector)
    return replace(folded, as_written=AsWritten(a.grid, _sum(walk, a, b, shape, 1)))


def _biased(walk: Walk, a: Pending, vector: Real) -> Pending:
    return replace(a, kind=with_bias(a.kind, vector / a.factor), tensor=walk.current, as_written=None)


# --- sums ---------------------------------------------------------------------------------------------------


def _sum(walk: Walk, a: Value, b: Value, shape: tuple[int, ...], sign: int) -> Pending:
    if a.shape != shape:
        a, b = b, a
        if sign < 0:
            raise RefusedError(f"subtracts {list(a.shape)} from a tensor that is broadcast")
    if a.shape != shape or not _is_suffix(b.shape, shape):
        raise RefusedError(
            f"adds tensors of shapes {list(a.shape)} and {list(b.shape)}; intaglio broadcasts leading axes only"
        )
    kind = Sum(walk.emitter.need(a, "residual"), walk.emitter.need(b, "residual"), sign)
    return walk.pending(shape, kind, a, b)


def _is_suffix(shape: tuple[int, ...], of: tuple[int, ...]) -> bool:
    """Whether `shape`, without leading ones, ends `of`."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape == of[len(of) - len(shape) :]
