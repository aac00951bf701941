"""What synthesis found out, for programs (JSON) and for people (Markdown), beside the board's amounts."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio import whole_file
from intaglio.backends import generator
from intaglio.synthesis.cells import Resources
from intaglio.synthesis.design import Design
from intaglio.use import NAMES, Use, cells, fits, number, uses, verdict


@dataclass(frozen=True)
class Memory:
    """One memory of a module, and what it became: block, distributed, ultra or registers."""

    name: str
    width: int
    words: int
    style: str

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "width": self.width, "words": self.words, "style": self.style}


@dataclass(frozen=True)
class ModuleCount:
    """A distinct module: `own` cells of one instance, and the `total` of one with all that it holds."""

    name: str
    instances: int
    own: Resources
    total: Resources
    memories: list[Memory]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "instances": self.instances,
            "own": self.own.as_json(),
            "total": self.total.as_json(),
            "memories": [memory.as_json() for memory in self.memories],
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class SynthesisReport:
    """Resources of a design, from the top down (the first module is the top)."""

    design: Design
    tool: str
    modules: list[ModuleCount]
    seconds: float

    flow = "yosys"

    @property
    def resources(self) -> Resources:
        return self.modules[0].total

    @property
    def uses(self) -> dict[str, Use]:
        return uses(self.resources, self.design.target.board)

    @property
    def fits(self) -> bool | None:
        """Whether the board has enough of all; None if its file has no numbers."""
        return fits(self.uses)

    def as_json(self) -> dict[str, Any]:
        return {
            **_header(self.flow, self.design, self.tool),
            "resources": self.resources.as_json(),
            "board": {name: use.as_json() for name, use in self.uses.items()},
            "fits": self.fits,
            "modules": [module.as_json() for module in self.modules],
            "seconds": round(self.seconds, 1),
        }

    def as_markdown(self) -> str:
        rows = [[m.name, str(m.instances), *_amounts(m.total), *_amounts(m.own)[3:]] for m in self.modules]
        head = ["module", "instances", *NAMES.values(), "own LUT", "own FF"]
        others = [f"- {name}: {number}" for name, number in sorted(self.resources.other.items())]
        return "\n".join(
            [
                *_title(self.flow, self.design, self.tool),
                verdict(self.uses, self.design.target.name),
                "",
                *use_table(self.uses),
                "",
                f"LUT: {_parts(self.resources)}. MUXF/PFUMX: {self.resources.muxes}; carry: {self.resources.carry}.",
                "",
                "Of one instance of each module, with all that it holds; then its own cells:",
                "",
                *_markdown(head, rows),
                *(["", "Memories:", "", *self._memories()] if any(m.memories for m in self.modules) else []),
                *(["", "Cells that no rule counts:", "", *others] if others else []),
                "",
            ]
        )

    def _memories(self) -> list[str]:
        """Memories of one module that differ in their index only share a line."""
        alike = Counter(
            (
                module.name,
                re.sub(r"\[\d+\]", "[*]", memory.name),
                f"{memory.words} x {memory.width}",
                memory.style,
            )
            for module in self.modules
            for memory in module.memories
        )
        rows = [[module, f"{times} x {name}", *rest] for (module, name, *rest), times in alike.items()]
        return _markdown(["module", "memories", "words x bits", "in"], rows)


@dataclass(frozen=True)
class SeedRun:
    """One place and route. `fmax_mhz` of every clock; `path`: the slowest one's longest path; `error`: why none."""

    seed: int
    fmax_mhz: dict[str, float]
    utilization: dict[str, tuple[int, int]]
    path: str
    seconds: float
    error: str = ""

    @property
    def fmax(self) -> float | None:
        return min(self.fmax_mhz.values(), default=None)

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "fmax_mhz": self.fmax_mhz,
            "utilization": {k: {"used": u, "available": a} for k, (u, a) in self.utilization.items()},
            "critical_path": self.path,
            "seconds": round(self.seconds, 1),
            "error": self.error,
        }


@dataclass(frozen=True)
class RouteReport:
    """Place and route with one or more seeds. `hidden_bits`: ports behind the wrapper's shift registers, 0 without."""

    design: Design
    tool: str
    part: str
    target_mhz: float
    hidden_bits: int
    resources: Resources
    runs: list[SeedRun]
    seconds: float

    flow = "nextpnr-ecp5"

    @property
    def best(self) -> SeedRun:
        return max(self.runs, key=lambda run: (not run.error, run.fmax or 0))

    @property
    def median_mhz(self) -> float | None:
        found = [run.fmax for run in self.runs if run.fmax is not None]
        return statistics.median(found) if found else None

    @property
    def uses(self) -> dict[str, Use]:
        return uses(self.resources, self.design.target.board)

    @property
    def fits(self) -> bool | None:
        """Whether the board has enough of all: what was placed, fits the part."""
        return fits(self.uses)

    def as_json(self) -> dict[str, Any]:
        return {
            **_header(self.flow, self.design, self.tool),
            "device": self.part,
            "fmax_mhz": self.best.fmax,
            "fmax_mhz_median": self.median_mhz,
            "target_mhz": self.target_mhz,
            "hidden_port_bits": self.hidden_bits,
            "resources": self.resources.as_json(),
            "board": {name: use.as_json() for name, use in self.uses.items()},
            "fits": self.fits,
            "seeds": [run.as_json() for run in self.runs],
            "seconds": round(self.seconds, 1),
        }

    def as_markdown(self) -> str:
        rows = [
            [str(run.seed), mhz(run.fmax), f"{run.seconds:.0f}", run.error or run.path] for run in self.runs
        ]
        used = [[name, str(used), str(of)] for name, (used, of) in self.best.utilization.items() if used]
        hidden = (
            f"{self.hidden_bits} port bits are behind shift registers, which are counted."
            if self.hidden_bits
            else ""
        )
        return "\n".join(
            [
                *_title(self.flow, self.design, self.tool),
                f"{self.part}: {mhz(self.best.fmax)} MHz with the best seed ({mhz(self.median_mhz)} median), "
                f"{self.target_mhz:g} asked for. {hidden}".rstrip(),
                "",
                *_markdown(["seed", "Fmax, MHz", "seconds", "longest path"], rows),
                "",
                *_markdown(["cells of the part", "used", "available"], used),
                "",
            ]
        )


Report = SynthesisReport | RouteReport


def save(report: Report, folder: Path) -> list[Path]:
    """Write the report as JSON and as Markdown to `folder`, each completely or not at all; returns their paths."""
    stem = file_stem(report.flow, report.design.unit)
    contents = {
        folder / f"{stem}.json": json.dumps(report.as_json(), indent=2) + "\n",
        folder / f"{stem}.md": report.as_markdown(),
    }
    for path, text in contents.items():
        whole_file.write(path, text)
    return list(contents)


def file_stem(flow: str, unit: str | None) -> str:
    """What the files of one run are called."""
    return flow if unit is None else f"{flow}-{unit}"


def use_table(found: Mapping[str, Use]) -> list[str]:
    """Markdown: used, available, share."""
    rows = [[NAMES[name], *cells(use)] for name, use in found.items()]
    return _markdown(["resource", "used", "available", "share"], rows)


def mhz(value: float | None) -> str:
    """A frequency; a dash if no path has registers at both ends."""
    return "-" if value is None else f"{value:.1f}"


def _amounts(resources: Resources) -> list[str]:
    return [number(getattr(resources, name)) for name in NAMES]


def _parts(resources: Resources) -> str:
    parts = {"logic": resources.lut_logic, "RAM": resources.lut_ram, "shift registers": resources.lut_shift}
    parts["carry"] = resources.lut_carry
    return ", ".join(f"{number(value)} {name}" for name, value in parts.items() if value) or "none"


def _header(flow: str, design: Design, tool: str) -> dict[str, Any]:
    return {
        "flow": flow,
        "top": design.top,
        "unit": design.unit,
        "target": design.target.name,
        "part": design.target.board.part,
        "family": design.target.board.family,
        "tool": tool,
        "generator": generator(),
    }


def _title(flow: str, design: Design, tool: str) -> list[str]:
    return [f"# {design.name}, {flow}", "", f"{tool}; {generator()}; {design.target.name}.", ""]


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
