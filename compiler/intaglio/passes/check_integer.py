"""After the pipeline nothing but integer ops on integer tensors is left; if anything is, stop and name it."""

from __future__ import annotations

import tvm

from intaglio.errors import UnsupportedError
from intaglio.ops import relax as integer_relax
from intaglio.passes.graph import Graph, dtype_of


def check_integer(module: tvm.IRModule) -> tvm.IRModule:
    """Relax to Relax, unchanged. Raises UnsupportedError naming every op that is not an integer op."""
    graph = Graph(module)
    left = [
        f"{var.name!r} ({getattr(getattr(value, 'op', None), 'name', type(value).__name__)}, {dtype_of(var)})"
        for var, value in graph.bindings
        if var is not graph.bindings[-1][0]
        and (integer_relax.op_name(value) is None or dtype_of(var).startswith("float"))
    ]
    if left:
        raise UnsupportedError(
            f"{len(left)} ops are left in floating point: {', '.join(left[:8])}; "
            "this is a defect of the compiler, please report it"
        )
    return module
