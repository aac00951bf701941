"""A whole model on the real RTL: build once, run images from pixels to logits, compare every bit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import HEADER, ProgramFile
from intaglio.accelerator.registers import ERRORS
from intaglio.backends.fpga import rtl
from intaglio.errors import ToolError
from intaglio.simulation import memory as external
from intaglio.simulation import verilator
from intaglio.simulation.events import Span, perfetto, spans

Progress = Callable[[str], None]

WATCHDOG = 1_000_000
_NS_PER_CYCLE = 10
_STALLS = ("dm", "io", "cp", "mm", "vu", "softmax", "drain")


@dataclass(frozen=True)
class MemoryModel:
    """External memory: cycles from a read request to its first beat, and bytes per cycle shared by all ports."""

    latency: int = 100
    bytes_per_cycle: float = 57.0


@dataclass(frozen=True)
class Job:
    """What to run: a program for a configuration, its weights, and images as bytes."""

    config: AcceleratorConfig
    program: ProgramFile
    weights: bytes
    images: Sequence[bytes]
    comments: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One image on the RTL. `status`: the error code of the accelerator, 0 if it finished."""

    result: bytes
    status: int
    info: int
    counters: Mapping[str, int]
    begin: int

    @property
    def error(self) -> str:
        return ERRORS.get(self.status, f"unknown error {self.status}")


@dataclass(frozen=True)
class Frames:
    """What a simulation found: one `Run` per image, and the time of every descriptor."""

    runs: Sequence[Run]
    spans: Sequence[Span]
    build_seconds: float
    run_seconds: float

    @property
    def cycles(self) -> int:
        """Cycles of the slowest image."""
        return max(run.counters["cycles"] for run in self.runs)

    def stalls(self) -> dict[str, int]:
        """Cycles in which the MAC array was not issued a step, by cause, of the first image."""
        counters = self.runs[0].counters
        found = {cause: counters[f"stall_{cause}"] for cause in _STALLS}
        return {**found, "idle": counters["idle_mm"]}

    def trace(self, clock_mhz: int) -> dict[str, Any]:
        return perfetto(self.spans, [run.begin for run in self.runs], clock_mhz)


def simulate(
    job: Job,
    memory: MemoryModel = MemoryModel(),
    *,
    waves: Path | None = None,
    progress: Progress = lambda _: None,
    cache: Path | None = None,
) -> Frames:
    """Run `job` on the RTL. `waves`: where to put a VCD file. Raises ToolError if a tool is missing or fails."""
    layout = external.place(job.program, len(job.weights), len(job.images))
    beats = _power_of_two(layout.size // job.config.depth)
    started = time.perf_counter()
    progress("build the simulator")
    build = _build(job.config, beats, waves is not None, cache or cache_folder())
    built = time.perf_counter()
    progress(f"simulate {len(job.images)} image(s)")
    with tempfile.TemporaryDirectory(prefix="intaglio-sim-") as name:
        folder = Path(name)
        report = _run(job, layout, memory, build, folder, waves is not None)
        frames = _collect(job, layout, folder, report)
        if waves is not None:
            shutil.move(folder / "dump.vcd", waves)
    return Frames(frames[0], frames[1], built - started, time.perf_counter() - built)


def cache_folder() -> Path:
    """Where built simulators are kept: $INTAGLIO_CACHE, else the user's cache folder."""
    base = os.environ.get("INTAGLIO_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "intaglio"


def _power_of_two(size: int) -> int:
    return 1 << max(10, (size - 1).bit_length())


def _build(config: AcceleratorConfig, beats: int, waves: bool, cache: Path) -> Path:
    """The folder of a simulator for `config`; made if it is not in the cache, complete or not there at all."""
    files = {name: text for name, text in rtl.emit(config).items() if name.endswith(".sv")}
    names = [*rtl.sources(files, "rtl"), *rtl.sources(files, "sim")]
    key = hashlib.sha256(json.dumps([verilator.version(), beats, waves, files], sort_keys=True).encode()).hexdigest()
    folder = cache / f"verilator-{key[:24]}"
    if (folder / "testbench").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name in names:
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name])
        verilator.build(
            [partial / name for name in names],
            "testbench",
            partial,
            public=["testbench"],
            waves=waves,
            parameters={"MEMORY_BEATS": beats},
            args=["--timing", "-CFLAGS", "-std=gnu++20 -fcoroutines", "--timescale", "1ns/1ps"],
        )
        partial.rename(folder)
    except BaseException:
        shutil.copy(partial / "build.log", folder.with_suffix(".log")) if (partial / "build.log").exists() else None
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _run(
    job: Job, layout: external.MemoryMap, memory: MemoryModel, build: Path, folder: Path, waves: bool
) -> dict[str, Any]:
    program = job.program.pack()[HEADER.size :]
    external.write_hex(
        external.contents(layout, program, job.weights, job.images), folder / "memory.hex", job.config.depth
    )
    description = {
        "program": layout.program,
        "count": len(job.program.descriptors),
        "weights": layout.weights,
        "inputs": layout.inputs,
        "outputs": layout.outputs,
        "watchdog": WATCHDOG,
        "limit_ns": 4 * WATCHDOG * _NS_PER_CYCLE * 100,
        "progress": str(folder / "progress"),
        "report": str(folder / "report.json"),
        "dump_from": layout.outputs[0] // job.config.depth,
        "dump_to": layout.size // job.config.depth - 1,
    }
    (folder / "job.json").write_text(json.dumps(description))
    verilator.run(
        "testbench",
        build,
        "intaglio.simulation.cocotb_frame",
        test_dir=folder,
        env={"INTAGLIO_JOB": str(folder / "job.json")},
        plusargs=[
            f"+memory={folder / 'memory.hex'}",
            f"+dump={folder / 'dump.hex'}",
            f"+events={folder / 'events.txt'}",
            f"+latency={memory.latency}",
            f"+bandwidth={round(memory.bytes_per_cycle * 256)}",
        ],
        waves=waves,
        log=folder / "log.txt",
    )
    if not (folder / "report.json").exists():
        tail = "\n".join((folder / "log.txt").read_text().splitlines()[-15:])
        raise ToolError(f"the simulation ended without a report:\n{tail}")
    return dict(json.loads((folder / "report.json").read_text()))


def _collect(
    job: Job, layout: external.MemoryMap, folder: Path, report: Mapping[str, Any]
) -> tuple[list[Run], list[Span]]:
    dump = external.read_hex(folder / "dump.hex", job.config.depth)
    base = layout.outputs[0]
    runs = []
    for start, found in zip(layout.outputs, report["runs"], strict=False):
        result = dump[start - base : start - base + job.program.output_bytes]
        status = found["status"]
        code = status >> 8 & 0xFF if status & 4 else (0 if status & 2 else 8)
        runs.append(Run(result, code, found["info"], found["counters"], found["begin"]))
    begins = [run.begin for run in runs]
    with (folder / "events.txt").open() as lines:
        return runs, spans(lines, job.program.descriptors, begins, job.config, job.comments)
