"""BYOC partitioning for the accelerator: everything in one partition, or a refusal that names what is left outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax
from tvm.relax.dpl import CallPattern, is_op

from intaglio.accelerator.support import OTHER_TARGET, reason, sentence
from intaglio.errors import UnsupportedError
from intaglio.ops import OPS
from intaglio.ops import relax as integer_relax
from intaglio.passes.graph import Graph, dtype_of

CODEGEN = "intaglio_fpga"


class PartitionFpga:
    """Relax to Relax, integer ops on both sides. `nodes` maps ONNX tensors to the nodes that compute them.

    Requires `check_integer`. Ensures that TVM's BYOC machinery puts all of `main` into one partition of codegen
    `intaglio_fpga`, and marks `main` with it; bindings stay as they are, as the back end reads them one by one.
    Raises UnsupportedError for the first op outside the partition.
    """

    def __init__(self, nodes: Mapping[str, str]) -> None:
        self.nodes = nodes

    def __call__(self, module: tvm.IRModule) -> tvm.IRModule:
        graph = Graph(partitioned(module))
        for _, value in graph.bindings:
            op = integer_relax.op_name(value)
            if op is not None:
                raise self._refusal(op, value)
        parts = [value for _, value in graph.bindings if isinstance(value, relax.Call)]
        if len(parts) != 1:
            raise UnsupportedError(
                f"the model falls into {len(parts)} parts for the accelerator, it must be one; {OTHER_TARGET}."
            )
        module["main"] = module["main"].with_attr("partition", CODEGEN)
        return module

    def _refusal(self, op: str, call: relax.Call) -> UnsupportedError:
        attrs = integer_relax.attrs_of(call)
        tensors = attrs.get("onnx", [])
        names = list(dict.fromkeys(self.nodes[tensor] for tensor in tensors if tensor in self.nodes))
        why, what_to_do = _reason(op, call) or ("there is no unit for it", OTHER_TARGET)
        return UnsupportedError(sentence(op, names or [op], why, what_to_do))


def partitioned(module: tvm.IRModule) -> tvm.IRModule:
    """`module` with every run of ops that the accelerator executes as one function of codegen `intaglio_fpga`."""
    fused = relax.transform.FuseOpsByPattern([_pattern(name) for name in OPS], bind_constants=True)(module)
    return relax.transform.MergeCompositeFunctions()(fused)


def _pattern(name: str) -> tuple[str, CallPattern, dict[str, Any], Any]:
    """One op with any number of operands, if the accelerator executes it with these types and attributes."""
    pattern = CallPattern(is_op(integer_relax.PREFIX + name), [], varg_default_wildcard=True)
    return f"{CODEGEN}.{name}", pattern, {}, lambda context: _reason(name, context.matched_expr) is None


def _reason(op: str, call: relax.Call) -> tuple[str, str] | None:
    return reason(op, [dtype_of(arg) for arg in call.args], integer_relax.attrs_of(call))
