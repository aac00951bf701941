"""Emit equal integer ops on equal operands once.

A quantizer writes one DQ per consumer, and each brought its own table or rescale.
"""

from __future__ import annotations

import hashlib
from typing import Any

import tvm
from tvm import relax

from intaglio.ops import relax as integer_relax
from intaglio.passes.graph import Graph, constant, rebuild


def eliminate_common(module: tvm.IRModule) -> tvm.IRModule:
    """Relax to Relax, on integer ops."""
    graph = Graph(module)
    seen: dict[Any, relax.Var] = {}
    tokens: dict[relax.Var, int] = {}

    def token(expr: relax.Expr) -> Any:
        array = constant(expr)
        if array is not None:
            return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()
        return tokens.setdefault(expr, len(tokens))

    def rewrite(var: relax.Var, value: relax.Expr, builder: relax.BlockBuilder) -> relax.Expr:
        name = integer_relax.op_name(value)
        if name is None:
            return value
        attrs = {k: v for k, v in integer_relax.attrs_of(value).items() if k not in ("onnx", "grid")}
        key = (name, tuple(token(arg) for arg in value.args), repr(sorted(attrs.items())))
        if key not in seen:
            seen[key] = builder.emit(value, name_hint=var.name)
        return seen[key]

    return rebuild(graph, rewrite)
