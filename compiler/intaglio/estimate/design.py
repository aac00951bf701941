"""A model on an accelerator that is not ours, by its design file: cycles by its loops, energy by action counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from intaglio.errors import InputError
from intaglio.estimate import errors
from intaglio.hw import dataflow, energy
from intaglio.hw.dataflow import Design, Evaluation, Routing, Work
from intaglio.hw.energy import Actions, Device, Energy
from intaglio.program import Program

UNKNOWN_ERROR = "not measured: the design is described by its loops and ports, and never ran here"


@dataclass(frozen=True)
class DesignEstimate:
    """A model on another accelerator. `how`: where `routing` comes from, "" without mixtures of experts."""

    name: str
    evaluation: Evaluation
    energy: Energy
    routing: Routing
    how: str

    @property
    def published(self) -> list[dict[str, Any]]:
        """What the design's file quotes, and how far the estimate is from it: of use for the same model only."""
        mine = self.evaluation.latency_ms
        return [
            {**one.model_dump(), "difference_percent": 100 * (mine / one.ms - 1)}
            for one in self.evaluation.design.published
        ]

    def as_json(self) -> dict[str, Any]:
        found, design = self.evaluation, self.evaluation.design
        return {
            "model": self.name,
            "target": design.name,
            "design": design.model_dump(),
            "cycles": found.cycles,
            "clock_mhz": design.clock_mhz,
            "latency_ms": found.latency_ms,
            "first_frame_ms": found.latency_ms,
            "fps": 1e3 / found.latency_ms,
            "macs": found.macs,
            "external_bytes": found.bytes,
            "by_kind": found.by_kind(),
            "bound_by": found.by_bound(),
            "energy_mj": self.energy.total,
            "energy_band_mj": [self.energy.low, self.energy.high],
            "energy_components_mj": dict(self.energy.components),
            "power_w": self.energy.watts,
            "resources": None,
            "fits": None,
            "bounds": {"cycles": UNKNOWN_ERROR, "energy": errors.energy_bounds(), "resources": None},
            "routing": {"how": self.how, "tokens": [list(tokens) for tokens in self.routing]}
            if self.how
            else None,
            "published": self.published,
            "ops": [{**asdict(one), "cycles": one.cycles, "bound": one.bound} for one in found.stages],
            "notes": list(self.energy.notes),
        }


def estimate_design(program: Program, design: Design, routing: str = "uniform") -> DesignEstimate:
    """`program` on `design`. `routing`: uniform, worst, or the file of a recorded one.

    Raises UnsupportedError for an op that the design does not describe, InputError for a routing of another model.
    """
    work = dataflow.workload(program)
    tokens = _routing(work, routing)
    found = dataflow.evaluate(design, work, tokens)
    return DesignEstimate(program.name, found, _energy(found), tokens, routing if tokens else "")


def _energy(found: Evaluation) -> Energy:
    part = found.design.energy
    device = Device(part.family, part.device_luts, part.host, part.memory)
    actions = [
        Actions(products=round(one.macs * part.product), weight_buffer=one.onchip, memory=one.bytes)
        for one in found.stages
    ]
    return energy.estimate(actions, found.latency_ms / 1e3, found.design.clock_mhz, part.luts, device)


def _routing(work: Sequence[Work], how: str) -> Routing:
    if how in ("uniform", "worst"):
        return dataflow.spread(work, "uniform" if how == "uniform" else "worst")
    return dataflow.recorded(work, read_routing(Path(how)))


def read_routing(path: Path) -> Routing:
    """Tokens per expert of every mixture, as `intaglio inspect --routing --json` prints them, or as lists of numbers.

    Raises InputError if the file is not there or holds something else.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError:
        raise InputError(
            f"--routing: expected uniform, worst or a file, not {str(path)!r}; FPGA targets also take recorded."
        ) from None
    except ValueError as error:
        raise InputError(f"--routing: {path} is not valid JSON: {error}.") from None
    layers = values.get("routing") if isinstance(values, dict) else values
    if isinstance(layers, list):
        tokens = [layer.get("tokens") if isinstance(layer, dict) else layer for layer in layers]
        if all(isinstance(one, list) and all(isinstance(n, int) and n >= 0 for n in one) for one in tokens):
            return [list(one) for one in tokens if one is not None]
    raise InputError(f"--routing: {path} must hold a list of numbers of tokens for every mixture of experts.")
