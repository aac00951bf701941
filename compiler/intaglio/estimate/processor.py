"""A model on a processor or a GPU, by its roofline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from intaglio.hw import roofline
from intaglio.hw.roofline import Evaluation, Machine
from intaglio.program import Program


@dataclass(frozen=True)
class ProcessorEstimate:
    """A model on a machine. `energy`: millijoules of one call, at the least and the most power assumed."""

    name: str
    target: str
    evaluation: Evaluation

    @property
    def machine(self) -> Machine:
        return self.evaluation.machine

    @property
    def band_mj(self) -> tuple[float, float]:
        low, high = self.machine.watts
        return 1e3 * low * self.evaluation.seconds, 1e3 * high * self.evaluation.seconds

    @property
    def energy_mj(self) -> float:
        """The middle of the band."""
        return sum(self.band_mj) / 2

    @property
    def notes(self) -> list[str]:
        machine = self.machine
        notes = [f"Energy is time times power; power is {machine.watts_source}. The band is its limits."]
        if not machine.measured:
            assumed = "a launch takes an assumed time, and nothing is fused"
            notes.insert(0, f"NOT MEASURED: {machine.name} by {machine.source}; {assumed}.")
        return notes

    def as_json(self) -> dict[str, Any]:
        found, machine = self.evaluation, self.machine
        checked = machine.check_percent
        return {
            "model": self.name,
            "target": self.target,
            "machine": machine.model_dump(),
            "cycles": None,
            "latency_ms": 1e3 * found.seconds,
            "first_frame_ms": None,
            "fps": 1 / found.seconds,
            "macs": found.macs,
            "utilization": found.macs / (found.seconds * machine.macs_per_s),
            "bound_by": found.by_bound(),
            "energy_mj": self.energy_mj,
            "energy_band_mj": list(self.band_mj),
            "power_w": sum(machine.watts) / 2,
            "resources": None,
            "fits": None,
            "bounds": {
                "latency": "not measured" if checked is None else {"transformer_block_percent": checked},
                "energy": machine.watts_source,
                "resources": None,
            },
            "measured": machine.measured,
            "ops": [asdict(op) for op in found.ops],
            "notes": self.notes,
        }


def estimate_processor(program: Program, target: str, machine: Machine) -> ProcessorEstimate:
    """One call of `program` on a machine."""
    return ProcessorEstimate(program.name, target, roofline.evaluate(program, machine))
