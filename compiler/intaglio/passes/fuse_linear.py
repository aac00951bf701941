"""Fuse what follows a linear into its epilogue: a table activation, then a residual add.

Only where nothing else reads the value between. A fused op equals the unfused sequence to the bit
(docs/integer-semantics.md, linear).
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from intaglio.ops import relax as integer_relax
from intaglio.passes.graph import Graph, constant, rebuild, shape_of

ADD_ATTRS = ("a_multiplier", "b_multiplier", "offset", "shift", "zero_point", "dtype")
SWAPPED = {"a_multiplier": "b_multiplier", "b_multiplier": "a_multiplier"}


def fuse_linear(module: tvm.IRModule) -> tvm.IRModule:
    """Relax to Relax, on integer ops."""
    return _fuse(_fuse(module, "table"), "add")


def _fuse(module: tvm.IRModule, op: str) -> tvm.IRModule:
    graph = Graph(module)

    def single_linear(
        expr: relax.Expr, original: relax.Expr, builder: relax.BlockBuilder
    ) -> relax.Call | None:
        """The linear that defines `expr`, if only this op reads it and it has room for one more."""
        call = builder.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        if call is None or integer_relax.op_name(call) != "linear" or len(graph.users(original)) != 1:
            return None
        return None if int(call.attrs["has_residual"]) else call

    def rewrite(var: relax.Var, value: relax.Expr, builder: relax.BlockBuilder) -> relax.Expr:
        if integer_relax.op_name(value) != op:
            return value
        original = graph.definition[var]
        if op == "table":
            linear = single_linear(value.args[0], original.args[0], builder)
            return value if linear is None else _with_table(linear, value)
        for mine, other in ((0, 1), (1, 0)):
            linear = single_linear(value.args[mine], original.args[mine], builder)
            residual = value.args[other]
            fits = all(shape_of(operand) == shape_of(var) for operand in value.args[:2])
            if linear is not None and constant(residual) is None and fits:
                return _with_residual(linear, value, residual, swap=mine == 1)
        return value

    return rebuild(graph, rewrite)


def _with_table(linear: relax.Call, table: relax.Call) -> relax.Call:
    attrs = integer_relax.attrs_of(linear)
    if attrs["has_table"]:
        return table
    attrs |= {"has_table": 1, "onnx": _both(linear, table), "grid": table.attrs["grid"]}
    return _reading(linear, table.args[1], attrs)


def _with_residual(linear: relax.Call, add: relax.Call, residual: relax.Expr, swap: bool) -> relax.Call:
    attrs = integer_relax.attrs_of(linear)
    added: dict[str, Any] = integer_relax.attrs_of(add)
    for name in ADD_ATTRS:
        attrs[f"add_{name}"] = added[SWAPPED.get(name, name) if swap else name]
    attrs |= {"has_residual": 1, "onnx": _both(linear, add), "grid": add.attrs["grid"]}
    return _reading(linear, residual, attrs)


def _reading(linear: relax.Call, operand: relax.Expr, attrs: dict[str, Any]) -> relax.Call:
    """The linear with one more operand; the task, if there is one, stays the last."""
    end = len(linear.args) - int(attrs.get("has_task", 0))
    return integer_relax.call("linear", [*linear.args[:end], operand, *linear.args[end:]], attrs)


def _both(first: relax.Call, second: relax.Call) -> list[str]:
    names = [*integer_relax.attrs_of(first)["onnx"], *integer_relax.attrs_of(second)["onnx"]]
    return list(dict.fromkeys(names))
