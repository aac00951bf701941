"""A compiled model on an accelerator: cycles, energy and resources by their models, op by op."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.estimate import errors, resources
from intaglio.estimate.board import device_of
from intaglio.estimate.compiled import Compiled
from intaglio.estimate.ops import Op, ops_of
from intaglio.estimate.resources import DeviceUse
from intaglio.hw import energy
from intaglio.hw.cycles import Prediction, Span, predict
from intaglio.hw.cycles.program import macs
from intaglio.hw.cycles.routing import Assumption, Routings
from intaglio.hw.energy import Energy
from intaglio.hw.iss.routing import Routing, rows
from intaglio.simulation.frame import MemoryModel
from intaglio.target import Board

BOUNDS: Mapping[str, str] = {
    "compute": "compute",
    "drain": "compute",
    "softmax": "compute",
    "bank A": "compute",
    "weight buffer": "compute",
    "wait mm": "compute",
    "wait vu": "compute",
    "wait cp": "compute",
    "bandwidth": "memory",
    "port": "memory",
    "unit": "memory",
    "wait dm": "memory",
    "wait io": "memory",
    "latency": "latency",
    "pipeline": "latency",
    "none": "latency",
}
"""Of every cause that the cycle model knows: compute (waiting for another unit of the chip too), memory, latency."""


@dataclass(frozen=True)
class OpEstimate:
    """One op: cycles from the offer of its work, or the end of what its unit did before, to its end.

    `bound`: compute, memory or latency; `cause`: which, in the words of the cycle model; `utilization`: share of the
    array's products in these cycles that are `macs`, counted as `simulate` does: rows that no result reads are none.
    `energy_mj`: of its descriptors, loads and copies among them. Ops on different units overlap.
    """

    name: str
    op: str
    onnx_nodes: Sequence[str]
    unit: str
    cycles: int
    macs: int
    bound: str
    cause: str
    utilization: float
    energy_mj: float


@dataclass(frozen=True)
class Estimate:
    """A model on an accelerator, estimated. `seconds`: that the models took."""

    name: str
    target: str
    config: AcceleratorConfig
    memory: MemoryModel
    prediction: Prediction
    energy: Energy
    use: DeviceUse
    ops: Sequence[OpEstimate]
    notes: Sequence[str]
    seconds: float
    cached: bool = False

    @property
    def bound_by(self) -> dict[str, int]:
        """Cycles of the array by what bounds them; `start`: before its first descriptor."""
        return _bounds([span for span in self.prediction.spans if span.unit == "mm"], self.prediction.cycles)

    def as_json(self) -> dict[str, Any]:
        found, used = self.prediction, self.energy
        return {
            "model": self.name,
            "target": self.target,
            "configuration": self.config.model_dump(),
            "memory": self.memory.as_json(),
            "cycles": found.cycles,
            "clock_mhz": found.clock_mhz,
            "latency_ms": found.latency_ms,
            "first_frame_ms": found.latency_ms,
            "fps": found.frames_per_second,
            "macs": found.macs,
            "macs_per_cycle": found.peak,
            "utilization": found.utilization,
            "occupancy": found.occupancy,
            "routing": {"how": found.routed_by, "tokens": [list(one) for one in found.routing]}
            if found.routed_by
            else None,
            "bound_by": self.bound_by,
            "energy_mj": used.total,
            "energy_band_mj": [used.low, used.high],
            "energy_components_mj": dict(used.components),
            "power_w": used.watts,
            "resources": self.use.used,
            "available": self.use.available,
            "exceeded": self.use.exceeded,
            "fits": self.use.fits,
            "bounds": {
                "cycles": errors.cycle_bounds(),
                "energy": errors.energy_bounds(),
                "resources": resources.error_bounds(self.use.family),
            },
            "ops": [asdict(op) for op in self.ops],
            "notes": list(self.notes),
            "model_seconds": self.seconds,
            "cached": self.cached,
        }


def estimate(
    compiled: Compiled,
    target: str,
    board: Board,
    memory: MemoryModel,
    routing: Routings | Assumption = "uniform",
    task: int = 0,
) -> Estimate:
    """All models of one compiled model. `routing`, `task`: as `predict` takes them.

    Raises InputError for a descriptor that the cycle model does not know, or another model's routing.
    """
    begin = time.perf_counter()
    config, descriptors = compiled.config, compiled.descriptors
    prediction = predict(descriptors, config, memory, routing, task)
    used = resources.device_use(config, board)
    work = rows_of(descriptors, prediction.routing)
    actions = energy.count(descriptors, config, lambda i, _: work[i])
    seconds = prediction.latency_ms / 1e3
    joules = energy.estimate(actions, seconds, config.clock_mhz, used.used["lut"], device_of(board))
    ops = _ops(compiled, prediction, joules, work)
    beyond = errors.beyond(memory)
    notes = [*([] if beyond is None else [beyond]), *joules.notes, *_notes(board, used)]
    took = time.perf_counter() - begin
    return Estimate(
        compiled.name, target, config, memory, prediction, joules, used, ops, notes, took, compiled.cached
    )


def rows_of(descriptors: Sequence[Descriptor], routing: Routings) -> list[int]:
    """Rows that every descriptor works on."""
    routes = [index for index, d in enumerate(descriptors) if d.kind == "ROUTE"]
    found = [Routing(index, tuple(tokens)) for index, tokens in zip(routes, routing, strict=True)]
    return rows(descriptors, found)


def _notes(board: Board, used: DeviceUse) -> list[str]:
    """How wrong resources may be, and what stands for what is not known."""
    notes = [resources.errors(used.family)]
    if not board.family:
        notes.append(
            "The target has no board: resources are those of an UltraScale+ device, energy that of a ZU9EG."
        )
    elif board.family != used.family:
        notes.append(
            f"Resources are counted as on {used.family}: there is no model of them for {board.family}."
        )
    return notes


def _bounds(spans: Sequence[Span], cycles: int) -> dict[str, int]:
    total = {"compute": 0, "memory": 0, "latency": 0}
    for span in spans:
        total[BOUNDS[span.bound]] += span.cycles
    return {**total, "start": max(cycles - sum(total.values()), 0)}


def _ops(compiled: Compiled, prediction: Prediction, joules: Energy, rows: Sequence[int]) -> list[OpEstimate]:
    """Ops with time of their own, in the order of the program."""
    products = [macs(d, n, compiled.config) for d, n in zip(compiled.descriptors, rows, strict=True)]
    return [
        _op(op, prediction, sum(products[i] for i in op.descriptors), joules)
        for op in ops_of(compiled.ops, compiled.steps, compiled.descriptors)
    ]


def _op(op: Op, prediction: Prediction, products: int, joules: Energy) -> OpEstimate:
    cycles, cause = op.cycles(prediction.spans), op.bound(prediction.spans)
    share = products / (cycles * prediction.peak) if cycles else 0.0
    spent = sum(joules.descriptors[i] for i in op.descriptors)
    return OpEstimate(
        op.name, op.op, op.onnx_nodes, op.unit, cycles, products, BOUNDS[cause], cause, share, spent
    )
