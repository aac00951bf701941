"""Time of a program's ops under a roofline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from intaglio.hw.roofline.machine import Machine
from intaglio.ops import get
from intaglio.ops.base import Cost, TensorType
from intaglio.program import Program, Step

VALUES = ("layernorm", "softmax")


@dataclass(frozen=True)
class Work:
    """One op: what it costs; `values`: those that LayerNorm and softmax make."""

    name: str
    op: str
    onnx_nodes: Sequence[str]
    cost: Cost
    values: int


@dataclass(frozen=True)
class OpTime:
    """One op's microseconds, and which roof it is under: compute, memory or latency."""

    name: str
    op: str
    onnx_nodes: Sequence[str]
    macs: int
    bytes: int
    us: float
    bound: str


@dataclass(frozen=True)
class Evaluation:
    """One call of a program; ops run one after the other."""

    machine: Machine
    ops: Sequence[OpTime]

    @property
    def seconds(self) -> float:
        return sum(op.us for op in self.ops) * 1e-6

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.ops)

    def by_bound(self) -> dict[str, float]:
        """Microseconds by roof."""
        total = {"compute": 0.0, "memory": 0.0, "latency": 0.0}
        for op in self.ops:
            total[op.bound] += op.us
        return total


def works(program: Program) -> Iterable[Work]:
    """The ops of a program and their costs."""
    for step in program.steps:
        types = [_type(program, name) for name in step.inputs]
        out = _type(program, step.output)
        yield Work(
            step.name, step.op, step.onnx_nodes, get(step.op).cost(types, step.attrs), _values(step, out)
        )


def _values(step: Step, out: TensorType) -> int:
    return out.size if step.op in VALUES else 0


def _type(program: Program, name: str) -> TensorType:
    tensor = program.tensors[name]
    return TensorType(tuple(tensor.shape), tensor.dtype)


def evaluate(program: Program, machine: Machine) -> Evaluation:
    """Every op takes what the slower of computing and of moving its bytes takes, or one call."""
    return Evaluation(machine, [_time(work, machine) for work in works(program)])


def _time(work: Work, machine: Machine) -> OpTime:
    rate = machine.attention_macs_per_s if work.op == "attention" else machine.macs_per_s
    moved = work.cost.bytes_weights + work.cost.bytes_moved
    times = {
        "compute": 1e6 * (work.cost.macs / rate + work.values / machine.values_per_s),
        "memory": 1e6 * moved / machine.bytes_per_s,
        "latency": machine.call_us,
    }
    bound = max(times, key=lambda name: times[name])
    return OpTime(work.name, work.op, work.onnx_nodes, work.cost.macs, moved, times[bound], bound)
