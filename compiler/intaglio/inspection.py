"""A program op by op: shapes, grids, work, and the ONNX nodes each op stands for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from intaglio import ops
from intaglio.ops.base import TensorType
from intaglio.program import Program, Step, Tensor


@dataclass(frozen=True)
class OpSummary:
    """One integer op of a program; `scale` is `None` where the output has no single grid."""

    name: str
    op: str
    onnx_nodes: list[str]
    macs: int
    weight_bytes: int
    inputs: list[str]
    shape: list[int]
    dtype: str
    scale: float | None
    zero_point: int

    @property
    def output(self) -> str:
        return f"{self.dtype} {self.shape}"


@dataclass(frozen=True)
class Summary:
    """All ops of a program. `float_ops`: those that read or write a floating-point tensor."""

    ops: list[OpSummary]
    macs: int
    weight_bytes: int
    float_ops: int

    def as_json(self) -> dict[str, Any]:
        return {
            "ops": [asdict(entry) for entry in self.ops],
            "macs": self.macs,
            "weight_bytes": self.weight_bytes,
            "float_ops": self.float_ops,
        }


def summarize(program: Program) -> Summary:
    """Shapes, grids and cost of every step of `program`."""
    rows = [_summarize(program, step) for step in program.steps]
    return Summary(
        ops=rows,
        macs=sum(row.macs for row in rows),
        weight_bytes=sum(row.weight_bytes for row in rows),
        float_ops=sum(_touches_float(program, step) for step in program.steps),
    )


def _summarize(program: Program, step: Step) -> OpSummary:
    inputs = [program.tensors[name] for name in step.inputs]
    output = program.tensors[step.output]
    cost = ops.get(step.op).cost([_type(tensor) for tensor in inputs], step.attrs)
    return OpSummary(
        name=step.name,
        op=step.op,
        onnx_nodes=list(step.onnx_nodes),
        macs=cost.macs,
        weight_bytes=cost.bytes_weights,
        inputs=[f"{tensor.dtype} {list(tensor.shape)}" for tensor in inputs if not tensor.is_constant],
        shape=list(output.shape),
        dtype=output.dtype,
        scale=output.scale,
        zero_point=output.zero_point,
    )


def _type(tensor: Tensor) -> TensorType:
    return TensorType(tuple(tensor.shape), tensor.dtype)


def _touches_float(program: Program, step: Step) -> bool:
    tensors = (program.tensors[name] for name in (*step.inputs, step.output))
    return any(np.dtype(tensor.dtype).kind == "f" for tensor in tensors)
