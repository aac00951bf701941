"""The integer ops as Relax operators `intaglio.<name>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax
from tvm_ffi import Array, Map

from intaglio.ops import OPS, get
from intaglio.ops.base import IntegerOp, TensorType

PREFIX = "intaglio."


def register() -> None:
    """Register every op with TVM: name, type inference, purity. Harmless if called again."""
    known = set(tvm.ir.Op.list_op_names())
    for op in OPS.values():
        if PREFIX + op.name not in known:
            _register(op)


def _register(op: IntegerOp) -> None:
    tvm.ir._ffi_api.RegisterOp(PREFIX + op.name, op.summary)
    operator = tvm.ir.Op.get(PREFIX + op.name)

    def infer(call: relax.Call, _context: Any) -> relax.TensorType:
        result = op.infer([type_of(arg) for arg in call.args], attrs_of(call))
        return relax.TensorType(result.shape, result.dtype)

    operator.set_attr("FInferType", infer)
    operator.set_attr("FPurity", True)


def call(name: str, args: list[relax.Expr], attrs: Mapping[str, Any]) -> relax.Call:
    """A call of `intaglio.<name>`; its type is inferred when a BlockBuilder emits or normalizes it.

    `attrs` hold integers of up to 64 bits, strings, and lists of these. Raises ValueError for an unknown op.
    """
    operator = tvm.ir.Op.get(PREFIX + get(name).name)
    return relax.Call(operator, args, tvm.ir.make_node("ir.DictAttrs", **attrs))


def op_name(expr: relax.Expr) -> str | None:
    """The name, without prefix, of the integer op that `expr` calls; None if it calls something else."""
    is_op_call = isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op)
    if not is_op_call or not expr.op.name.startswith(PREFIX):
        return None
    return str(expr.op.name).removeprefix(PREFIX)


def attrs_of(call: relax.Call) -> dict[str, Any]:
    """The attributes of a call as plain Python integers, strings, lists and dictionaries."""
    return {str(name): _plain(call.attrs[name]) for name in call.attrs.keys()}  # noqa: SIM118 - DictAttrs only has keys()


def type_of(expr: relax.Expr) -> TensorType:
    """The static tensor type of an expression. Raises ValueError if it has none."""
    kind = expr.ty
    if not isinstance(kind, relax.TensorType) or kind.shape is None:
        raise ValueError(f"relax: expects a tensor of static shape, not {kind}.")
    sizes = list(kind.shape.values) if isinstance(kind.shape, relax.ShapeExpr) else list(kind.shape)
    if not all(isinstance(size, int | tvm.tirx.IntImm) for size in sizes):
        raise ValueError(f"relax: expects a tensor of static shape, not {kind}.")
    return TensorType(tuple(int(size) for size in sizes), str(kind.dtype))


def _plain(value: Any) -> Any:
    if isinstance(value, Array):
        return [_plain(item) for item in value]
    if isinstance(value, Map):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tvm.tirx.IntImm):
        return int(value)
    return str(value) if isinstance(value, str) else value


register()
