"""Elaboration (slang) and synthesis (Yosys): every distinct module once, side by side, added up by its instances."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio import whole_file
from intaglio.errors import InputError
from intaglio.synthesis import hierarchy
from intaglio.synthesis.cells import ECP5, XILINX, Resources, Rules, count
from intaglio.synthesis.design import Design, nearest
from intaglio.synthesis.hierarchy import Hierarchy
from intaglio.synthesis.report import Memory, ModuleCount, SynthesisReport, file_stem
from intaglio.synthesis.tools import YOSYS, Job, Tools, find, version

Progress = Callable[[str], None]

_MODULE = re.compile(r"^\s*module\s+(\w+)", re.MULTILINE)
_MAPPED = re.compile(r"^mapping memory (?P<memory>\S+) via (?P<cell>\S+)$", re.MULTILINE)
_REGISTERS = re.compile(r"^using FF mapping for memory (?P<memory>\S+)$", re.MULTILINE)

PRIMITIVES = "primitives.sv"
"""Vendor cells that sources instantiate, with their parameters: slang must know them."""


@dataclass(frozen=True)
class Family:
    """How Yosys synthesizes for a family of devices, and how its cells are counted."""

    command: str
    rules: Rules


FAMILIES = {
    "ultrascale+": Family("synth_xilinx -family xcup -noiopad -noclkbuf", XILINX),
    "7-series": Family("synth_xilinx -family xc7 -noiopad -noclkbuf", XILINX),
    "ecp5": Family("synth_ecp5", ECP5),
}


def synthesize(
    design: Design, out: Path, progress: Progress = lambda _: None, side_by_side: int | None = None
) -> SynthesisReport:
    """Count what `design` occupies on its board. Logs go to `out`/logs.

    The hierarchy is kept: nothing is optimized across the borders of modules, so counts err on the large side. A
    module that was synthesized before, by anyone with the same cache, is not synthesized again.
    Raises InputError for a family or module that there is not, ToolError if Yosys is missing or refuses the design.
    """
    started = time.perf_counter()
    family, tool = _family(design), version(YOSYS)
    jobs = side_by_side or os.cpu_count() or 1
    with workplace(out, "yosys", design) as (work, logs), Tools(jobs) as tools:
        progress(f"elaborate {design.top}")
        tree = elaborate(design, work, logs, tools)
        names = sorted(tree.modules, key=lambda name: -sum(map(len, tree.modules[name].body)))
        found: dict[str, _Own] = {}
        futures = {
            tools.pool.submit(_module, tools, family, tool, tree, name, work, logs): name for name in names
        }
        progress(f"synthesize {len(names)} modules")
        for future in as_completed(futures):
            name = futures[future]
            found[name] = future.result()
            took = "known" if found[name].cached else f"{found[name].seconds:.1f} s"
            progress(f"{name}: {took} ({len(found)} of {len(names)})")
    return SynthesisReport(design, tool, _add_up(tree, found), time.perf_counter() - started)


@contextmanager
def workplace(out: Path, flow: str, design: Design) -> Iterator[tuple[Path, Path]]:
    """A folder for intermediate files, removed afterwards, and one for logs, which stay."""
    logs = out / "logs" / file_stem(flow, design.unit)
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    work = Path(tempfile.mkdtemp(prefix=".work-", dir=out))
    try:
        yield work, logs
    finally:
        shutil.rmtree(work, ignore_errors=True)


def elaborate(design: Design, work: Path, logs: Path, tools: Tools) -> Hierarchy:
    """The distinct modules of `design`, from its unit (or top) down."""
    modules = [name for text in design.files.values() for name in _MODULE.findall(text)]
    if design.top not in modules:
        raise InputError(f"--top: there is no module {design.top!r}; {nearest(design.top, modules)}")
    for name, text in design.files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copy(Path(__file__).with_name(PRIMITIVES), work / PRIMITIVES)
    boxes = _MODULE.findall((work / PRIMITIVES).read_text(encoding="utf-8"))
    # One thread: slang starts more otherwise, which WebAssembly has not.
    read = ["read_slang -j 1 --ignore-assertions --best-effort-hierarchy"]
    read += [f"--blackboxed-module {name}" for name in boxes]
    read += [f"--top {design.top} -v {PRIMITIVES}", *design.files]
    script = f"{' '.join(read)}; opt_clean; write_rtlil design.il"
    command = [find(YOSYS), "-p", script]
    tools.run(Job(command, work, logs / "elaborate.log", f"the sources of {design.top}"))
    tree = hierarchy.build((work / "design.il").read_text(encoding="utf-8"), design.top)
    if design.unit is None:
        return tree
    if design.unit not in tree.modules:
        raise InputError(
            f"--unit: {design.top} has no module {design.unit!r}; {nearest(design.unit, tree.modules)}"
        )
    return tree.below(design.unit)


def _family(design: Design) -> Family:
    name = design.target.board.family
    if name not in FAMILIES:
        raise InputError(
            f"target {design.target.name!r}: Yosys cannot synthesize for the family {name!r} of its board; "
            f"it can for {', '.join(FAMILIES)}."
        )
    family = FAMILIES[name]
    if name == "ultrascale+" and design.target.board.urams:
        return Family(f"{family.command} -uram", family.rules)
    return family


@dataclass(frozen=True)
class _Own:
    """What one module occupies without its children, and whether that was known before."""

    resources: Resources
    memories: list[Memory]
    seconds: float
    cached: bool


def _module(
    tools: Tools, family: Family, tool: str, tree: Hierarchy, name: str, work: Path, logs: Path
) -> _Own:
    """Synthesize one module, unless the cache holds the result of the same module, tool and command."""
    key = hashlib.sha256(f"{tool} {family.command} {tree.fingerprint(name)}".encode()).hexdigest()
    file = f"synthesis-{key[:24]}.json"
    known = _known(file)
    found = known or _run(tools, family, tree, name, work, logs)
    if known is None:
        whole_file.keep(file, json.dumps(found))
    memories = [
        Memory(memory, width, words, found["memories"].get(memory, "nothing"))
        for memory, width, words in tree.modules[name].memories
    ]
    return _Own(count(found["cells"], family.rules), memories, found["seconds"], known is not None)


def _known(file: str) -> dict[str, Any] | None:
    """What the cache holds; None if it holds nothing that can be read."""
    try:
        return dict(json.loads(whole_file.kept(file) or ""))
    except ValueError:
        return None


def _run(tools: Tools, family: Family, tree: Hierarchy, name: str, work: Path, logs: Path) -> dict[str, Any]:
    """The cells of one module by type, and the style of each of its memories."""
    started = time.perf_counter()
    (work / f"{name}.il").write_text(tree.with_interfaces(name), encoding="utf-8")
    script = f"read_rtlil {name}.il; {family.command} -top {name}; tee -q -o {name}.json stat -json"
    log = tools.run(Job([find(YOSYS), "-p", script], work, logs / f"{name}.log", name))
    statistics = json.loads((work / f"{name}.json").read_text(encoding="utf-8"))
    cells = statistics["modules"][f"\\{name}"]["num_cells_by_type"]
    children = tree.modules[name].children
    styles = {m["memory"]: _style(m["cell"]) for m in _MAPPED.finditer(log)}
    styles |= {m["memory"]: "registers" for m in _REGISTERS.finditer(log)}
    return {
        "cells": {
            cell.removeprefix("\\"): number
            for cell, number in cells.items()
            if cell.removeprefix("\\") not in children
        },
        "memories": {memory.removeprefix(f"{name}."): style for memory, style in styles.items()},
        "seconds": time.perf_counter() - started,
    }


def _style(cell: str) -> str:
    for part, style in (("BLOCKRAM", "block"), ("URAM", "ultra"), ("DP16KD", "block"), ("PDPW16KD", "block")):
        if part in cell:
            return style
    return "distributed"


def _add_up(tree: Hierarchy, found: dict[str, _Own]) -> list[ModuleCount]:
    totals: dict[str, Resources] = {}
    for name, module in tree.modules.items():
        total = found[name].resources
        for child, number in module.children.items():
            total = total.plus(totals[child], number)
        totals[name] = total
    instances = tree.instances()
    return [
        ModuleCount(name, instances[name], own.resources, totals[name], own.memories, own.seconds)
        for name in reversed(tree.modules)
        for own in [found[name]]
    ]
