"""Emit equal integer ops on equal operands once.

A quantizer writes one DQ per consumer, and each brought its own table or rescale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from intaglio.ops import relax as integer_relax
from intaglio.passes.graph import Array, Graph, constant, rebuild


def eliminate_common(module: tvm.IRModule) -> tvm.IRModule:
    """Relax to Relax, on integer ops."""
    seen: dict[Any, list[tuple[list[Array], relax.Var]]] = {}

    def rewrite(var: relax.Var, value: relax.Expr, builder: relax.BlockBuilder) -> relax.Expr:
        name = integer_relax.op_name(value)
        if name is None:
            return value
        arrays = [constant(arg) for arg in value.args]
        kinds = [
            arg if array is None else (str(array.dtype), array.shape)
            for arg, array in zip(value.args, arrays, strict=True)
        ]
        attrs = {k: v for k, v in integer_relax.attrs_of(value).items() if k not in ("onnx", "grid")}
        alike = seen.setdefault((name, tuple(kinds), repr(sorted(attrs.items()))), [])
        constants = [array for array in arrays if array is not None]
        for others, emitted in alike:
            if all(map(np.array_equal, constants, others)):
                return emitted
        alike.append((constants, builder.emit(value, name_hint=var.name)))
        return alike[-1][1]

    return rebuild(Graph(module), rewrite)
