"""What other commands found: `intaglio simulate --json`, and the designs of `intaglio explore`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.errors import InputError
from intaglio.hw.iss.routing import RoutedLayer
from intaglio.report.ops import Span, Timing


@dataclass(frozen=True)
class Simulation:
    """The first image of a simulation on the RTL. `routing`: of its mixtures of experts; `facts`: figures by name."""

    timing: Timing
    bit_exact: bool
    latency_ms: float
    memory: Mapping[str, float]
    task: int
    routing: Sequence[RoutedLayer]


def read_simulation(path: Path, config: AcceleratorConfig, program: Sequence[Descriptor]) -> Simulation:
    """The file that `intaglio simulate --json` printed. Raises InputError if it is none of this program."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _simulation(values, path, config, program)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no output of intaglio simulate --json: {error.reason}.") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: is no output of intaglio simulate --json ({reason}).") from error


def _simulation(
    values: Mapping[str, Any], path: Path, config: AcceleratorConfig, program: Sequence[Descriptor]
) -> Simulation:
    spans = {entry["index"]: entry for entry in values["descriptors"] if entry["image"] == 0}
    kinds = [d.kind for d in program]
    same = [spans[i]["kind"] for i in sorted(spans)] == kinds
    if values.get("config", f"{config.hash:08x}") != f"{config.hash:08x}" or not same:
        raise InputError(
            f"{path}: is of another program or configuration than this one; simulate this folder again."
        )
    found = [Span(int(spans[i]["start"]), int(spans[i]["end"])) for i in range(len(program))]
    timing = Timing("simulated", int(values["cycles"]), found)
    layers = [_layer(layer) for layer in (values.get("routing") or [[]])[0]]
    return Simulation(
        timing,
        bool(values["bit_exact"]),
        float(values["latency_ms"]),
        dict(values.get("memory", {})),
        int(values.get("task", 0)),
        layers,
    )


def _layer(values: Mapping[str, Any]) -> RoutedLayer:
    tokens = tuple(int(n) for n in values["tokens"])
    return RoutedLayer(values["index"], values["name"], tokens, values["bytes_read"], values["bytes_saved"])


@dataclass(frozen=True)
class Design:
    """One design that was explored; `pareto`: no other is as good in everything and better in something."""

    latency_ms: float
    energy_mj: float
    dsp: float
    pareto: bool
    name: str


@dataclass(frozen=True)
class Explored:
    """Designs of a file; `skipped`: lines that have not all the figures."""

    designs: Sequence[Design]
    skipped: int


def read_explored(path: Path) -> Explored:
    """JSON lines with `latency_ms`, `energy_mj`, `dsp`, `pareto`. Raises InputError if no line has all of them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"--explore: {path} is no text: {error.reason}.") from error
    found = [_design(line) for line in lines if line.strip()]
    designs = [design for design in found if design is not None]
    if not designs:
        raise InputError(
            f"--explore: no line of {path} is a JSON object with latency_ms, energy_mj, dsp and pareto."
        )
    return Explored(designs, len(found) - len(designs))


def _design(line: str) -> Design | None:
    """One line; None if it is no design that can be drawn."""
    try:
        values = json.loads(line)
        ms, mj, dsp = (float(values[key]) for key in ("latency_ms", "energy_mj", "dsp"))
        if not all(map(math.isfinite, (ms, mj, dsp))) or min(ms, mj) <= 0:
            return None
        return Design(ms, mj, dsp, bool(values["pareto"]), str(values.get("name", values.get("config", ""))))
    except (ValueError, KeyError, TypeError):
        return None
