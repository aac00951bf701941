"""What other commands found: `intaglio simulate --json`, and the designs of `intaglio explore`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.errors import InputError
from intaglio.hw.iss.routing import RoutedLayer
from intaglio.report.timing import Span, Timing
from intaglio.target import Board
from intaglio.use import NAMES, uses


@dataclass(frozen=True)
class Simulation:
    """The first image of a simulation on the RTL. `memory`: figures by name; `routing`: of its mixtures of experts."""

    timing: Timing
    bit_exact: bool
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
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
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
        {name: float(value) for name, value in values.get("memory", {}).items()},
        int(values.get("task", 0)),
        layers,
    )


def _layer(values: Mapping[str, Any]) -> RoutedLayer:
    tokens = tuple(int(n) for n in values["tokens"])
    return RoutedLayer(values["index"], values["name"], tokens, values["bytes_read"], values["bytes_saved"])


NO_BOARD = Board()


@dataclass(frozen=True)
class Design:
    """One design that was explored; `pareto`: no other is as good in everything and better in something.

    `share`: of the scarcest resource, or DSPs where the board's are not known; `rough`: by a fast model, before a
    better one looked at the best.
    """

    latency_ms: float
    energy_mj: float
    dsp: float
    pareto: bool
    name: str
    rough: bool = False
    share: float = 0.0


@dataclass(frozen=True)
class Explored:
    """Designs of a file; `skipped`: lines that lack a figure, or of what does not run the model or fit the board."""

    designs: Sequence[Design]
    skipped: int


def read_explored(path: Path, model: str = "", board: Board = NO_BOARD) -> Explored:
    """JSON lines with `latency_ms`, `energy_mj`, `dsp` (or `resources` with it), as `intaglio explore` writes them.

    `pareto` and `name` may be given; where no line has the first, it is found here. What is of `stage` `fast` is rough:
    of a configuration that two models looked at the other one counts. What does not fit `board` is left out. Raises
    InputError if no line has the figures, or a header says that they are of another model or part.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"--explore: {path} is no text: {error.reason}.") from error
    designs: dict[str, Design] = {}
    skipped, marked = 0, False
    for number, line in enumerate(lines):
        values = _values(line)
        if not line.strip():
            continue
        if "format" in values:
            _same(path, values, model, board)
            continue
        design = _design(values, board)
        if design is None:
            skipped += 1
            continue
        marked = marked or "pareto" in values
        key = json.dumps(values.get("config", number), sort_keys=True)
        if key not in designs or designs[key].rough or not design.rough:
            designs[key] = design
    if not designs:
        raise InputError(f"--explore: no line of {path} is a JSON object with latency_ms, energy_mj and dsp.")
    found = list(designs.values())
    return Explored(found if marked else _front(found), skipped)


def _values(line: str) -> dict[str, Any]:
    """The object of a line; nothing if it holds none."""
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _same(path: Path, header: Mapping[str, Any], model: str, board: Board) -> None:
    """Refuse designs of another model, or for another part."""
    for what, there, here in (
        ("model", header.get("model"), model),
        ("part", header.get("part"), board.part),
    ):
        if there and here and there != here:
            raise InputError(f"--explore: {path} is of the {what} {there!r}, not of {here!r}.")


def _design(values: Mapping[str, Any], board: Board) -> Design | None:
    """None if it is no design that can be drawn."""
    try:
        dsp = values["dsp"] if "dsp" in values else values["resources"]["dsp"]
        figures = float(values["latency_ms"]), float(values["energy_mj"]), float(dsp)
    except (ValueError, KeyError, TypeError):
        return None
    if values.get("reason") or not all(map(math.isfinite, figures)) or min(figures[:2]) <= 0:
        return None
    share = _share(values.get("resources"), board)
    if share is not None and share > 1:
        return None
    rough = values.get("stage") == "fast"
    pareto = bool(values.get("pareto", False))
    return Design(*figures, pareto, _name(values), rough, figures[2] if share is None else share)


def _share(resources: Any, board: Board) -> float | None:
    """What is used of the board's scarcest resource; None if that is not known."""
    if not isinstance(resources, dict) or not NAMES.keys() <= resources.keys():
        return None
    shares = [
        use.share for use in uses(SimpleNamespace(**resources), board).values() if use.share is not None
    ]
    return max(shares, default=None)


def _name(values: Mapping[str, Any]) -> str:
    """As it is called, or the shape of its array."""
    config = values.get("config")
    if "name" in values or not isinstance(config, dict):
        return str(values.get("name", config or ""))
    shape = " x ".join(str(config.get(key, "?")) for key in ("rows", "cols", "depth"))
    return f"{shape} at {config.get('clock_mhz', '?')} MHz"


def _front(designs: Sequence[Design]) -> list[Design]:
    """The same, those marked that no other beats in latency, energy and share; rough ones if there are no others."""
    fine = [design for design in designs if not design.rough] or list(designs)
    figures = np.array([(d.latency_ms, d.energy_mj, d.share) for d in fine])
    beaten = [((figures <= own).all(axis=1) & (figures < own).any(axis=1)).any() for own in figures]
    front = {id(design) for design, worse in zip(fine, beaten, strict=True) if not worse}
    return [replace(design, pareto=id(design) in front) for design in designs]
