"""A whole model on the real RTL: build once, run images from pixels to logits, compare every bit."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import HEADER, ProgramFile
from intaglio.accelerator.registers import ERRORS
from intaglio.backends.fpga import rtl
from intaglio.errors import InputError, ToolError
from intaglio.resources import cache_folder
from intaglio.simulation import memory as external
from intaglio.simulation import verilator
from intaglio.simulation.events import Span, perfetto, spans
from intaglio.target import Board

Progress = Callable[[str], None]

WATCHDOG = 1_000_000
LIMIT = 400_000_000
"""Cycles after which a run that neither ends nor trips the watchdog is given up."""

MAX_LATENCY = 100_000
MIN_BANDWIDTH, MAX_BANDWIDTH = 0.25, 65536
"""Of the modelled memory: cycles, and bytes per cycle."""

MINIMUM_BEATS = 1 << 17
"""Memory of every built simulator at least, so that small jobs share one."""

_ARGS = ("--timing", "-CFLAGS", "-std=gnu++20 -fcoroutines", "--timescale", "1ns/1ps")
_STALLS = ("dm", "io", "cp", "mm", "vu", "softmax", "drain")


@dataclass(frozen=True)
class MemoryModel:
    """External memory: cycles from a read request to its first beat, and bytes per cycle shared by all ports.

    `stall_rate`: of 256 cycles, how many it stands still, by chance.
    """

    latency: int = 100
    bytes_per_cycle: float = 57.0
    stall_rate: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.latency <= MAX_LATENCY:
            raise InputError(f"--latency must be in 1..{MAX_LATENCY} cycles, not {self.latency}.")
        if not MIN_BANDWIDTH <= self.bytes_per_cycle <= MAX_BANDWIDTH:
            wanted = f"{MIN_BANDWIDTH}..{MAX_BANDWIDTH} bytes per cycle"
            raise InputError(f"--bandwidth must be in {wanted}, not {self.bytes_per_cycle}.")

    @property
    def watchdog(self) -> int:
        """Cycles without progress that mean a hang, however slow the memory is."""
        return round(WATCHDOG * max(1.0, 8 / self.bytes_per_cycle, self.latency / 1000))

    def as_json(self) -> dict[str, float]:
        """What every command prints of it."""
        return {"latency": self.latency, "bytes_per_cycle": self.bytes_per_cycle}


def memory_of(
    board: Board, clock_mhz: int, latency: int | None = None, bytes_per_cycle: float | None = None
) -> MemoryModel:
    """The memory of a board in cycles of an accelerator's clock; what is given holds."""
    known = MemoryModel()
    if latency is None:
        latency = (
            known.latency if board.latency_ns is None else max(round(board.latency_ns * clock_mhz / 1e3), 1)
        )
    if bytes_per_cycle is None:
        peak = board.bandwidth_gb_s
        bytes_per_cycle = known.bytes_per_cycle if peak is None else peak * 1e3 / clock_mhz
    return MemoryModel(latency, bytes_per_cycle)


@dataclass(frozen=True)
class Job:
    """What to run: a program for a configuration, its weights, and images as bytes, all for one task.

    `layout`: default, one by one.
    """

    config: AcceleratorConfig
    program: ProgramFile
    weights: bytes
    images: Sequence[bytes]
    comments: Mapping[int, str] = field(default_factory=dict)
    layout: external.MemoryMap | None = None
    task: int = 0

    def placed(self) -> external.MemoryMap:
        """Where in external memory all lies."""
        return self.layout or external.place(self.program, len(self.weights), len(self.images))


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
    design: Mapping[str, str] | None = None,
) -> Frames:
    """Run `job` on the RTL. `waves`: where to put a VCD file; `design`: see `build_bench`.

    Raises ToolError if a tool is missing or fails.
    """
    return simulate_all([job], memory, waves=waves, progress=progress, cache=cache, design=design)[0]


def simulate_all(
    jobs: Sequence[Job],
    memory: MemoryModel = MemoryModel(),
    *,
    waves: Path | None = None,
    progress: Progress = lambda _: None,
    cache: Path | None = None,
    design: Mapping[str, str] | None = None,
) -> list[Frames]:
    """Run jobs for one configuration on the RTL, one after another without a reset between; as `simulate`."""
    config = jobs[0].config
    if any(job.config != config for job in jobs):
        raise ValueError("simulate_all: all jobs must be for one configuration.")
    started = time.perf_counter()
    progress("build the simulator")
    size = max(job.placed().size for job in jobs)
    build = build_bench(config, size, waves=waves is not None, cache=cache, design=design)
    built = time.perf_counter()
    progress(f"simulate {sum(len(job.images) for job in jobs)} image(s)")
    with tempfile.TemporaryDirectory(prefix="intaglio-sim-") as name:
        folder = Path(name)
        try:
            report = _run(jobs, memory, build, folder, waves is not None)
        finally:
            # Waveforms are wanted most of a run that went wrong.
            if waves is not None and (folder / "dump.vcd").exists():
                shutil.move(folder / "dump.vcd", waves)
        found = _collect(jobs, folder, report)
    ended = time.perf_counter()
    return [Frames(runs, times, built - started, ended - built) for runs, times in found]


def build_bench(
    config: AcceleratorConfig,
    size: int = 0,
    *,
    waves: bool = False,
    cache: Path | None = None,
    design: Mapping[str, str] | None = None,
) -> Path:
    """The folder of a simulator with at least `size` bytes of external memory, from the cache if it is there.

    `design`: the accelerator's sources, {"rtl/<name>.sv": text}; default: as rendered for `config`.
    """
    files = {name: text for name, text in rtl.emit(config).items() if name.endswith(".sv")}
    if design is not None:
        files = {name: text for name, text in files.items() if not name.startswith("rtl/")} | dict(design)
    return _build(files, _power_of_two(size // config.depth), waves, cache or cache_folder())


def run_module(
    build: Path,
    config: AcceleratorConfig,
    module: str,
    folder: Path,
    memory: MemoryModel = MemoryModel(),
    *,
    env: Mapping[str, str] | None = None,
    python_path: Sequence[Path] = (),
    waves: bool = False,
) -> Path:
    """Run the cocotb tests of `module`, which use `cocotb_bench`, in `folder`; returns the results file (JUnit XML)."""
    results = folder / "results.xml"
    results.unlink(missing_ok=True)
    try:
        verilator.run(
            "testbench",
            build,
            module,
            test_dir=folder,
            env={"INTAGLIO_BENCH": str(folder), "INTAGLIO_BEAT": str(config.depth), **(env or {})},
            plusargs=[
                f"+load={folder / 'load.hex'}",
                f"+dump={folder / 'dump.hex'}",
                f"+events={folder / 'events.txt'}",
                f"+latency={memory.latency}",
                f"+bandwidth={round(memory.bytes_per_cycle * 256)}",
            ],
            python_path=python_path,
            waves=waves,
            log=folder / "log.txt",
        )
    except ToolError:
        # A failed test has its results, which say more.
        if not results.exists():
            raise
    return results


def _power_of_two(size: int) -> int:
    return max(MINIMUM_BEATS, 1 << (size - 1).bit_length())


def _build(files: dict[str, str], beats: int, waves: bool, cache: Path) -> Path:
    """The folder of a simulator of `files`; made if it is not in the cache, complete or not there at all."""
    names = [*rtl.sources(files, "rtl"), *rtl.sources(files, "sim")]
    key = json.dumps([verilator.identity(), _ARGS, beats, waves, files], sort_keys=True).encode()
    folder = cache / f"verilator-{hashlib.sha256(key).hexdigest()[:24]}"
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
            args=_ARGS,
        )
        _rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _rename(partial: Path, folder: Path) -> None:
    """Put a simulator in its place, unless another process was faster."""
    try:
        partial.rename(folder)
    except OSError:
        if not (folder / "testbench").exists():
            raise


def _run(jobs: Sequence[Job], memory: MemoryModel, build: Path, folder: Path, waves: bool) -> dict[str, Any]:
    description = {
        "jobs": [_describe(job, folder, number) for number, job in enumerate(jobs)],
        "stall_rate": memory.stall_rate,
        "watchdog": memory.watchdog,
        "limit": LIMIT,
        "report": str(folder / "report.json"),
    }
    (folder / "job.json").write_text(json.dumps(description))
    env = {"INTAGLIO_JOB": str(folder / "job.json")}
    run_module(
        build, jobs[0].config, "intaglio.simulation.cocotb_frame", folder, memory, env=env, waves=waves
    )
    if not (folder / "report.json").exists():
        tail = "\n".join((folder / "log.txt").read_text().splitlines()[-15:])
        raise ToolError(f"the simulation ended without a report:\n{tail}")
    return dict(json.loads((folder / "report.json").read_text()))


def _describe(job: Job, folder: Path, number: int) -> dict[str, Any]:
    """One program for `cocotb_frame`; its memory goes to a file."""
    layout = job.placed()
    code = job.program.pack()[HEADER.size :]
    before = external.contents(layout, code, job.weights, job.images)
    external.write_hex(before, folder / f"memory{number}.hex", job.config.depth, layout.base)
    first = min(layout.outputs)
    return {
        "memory": str(folder / f"memory{number}.hex"),
        "program": layout.program,
        "count": len(job.program.descriptors),
        "weights": layout.weights,
        "task": job.task,
        "inputs": layout.inputs,
        "outputs": layout.outputs,
        "dump": str(folder / f"dump{number}.hex"),
        "dump_from": first,
        "dump_bytes": max(layout.outputs) + max(job.program.output_bytes, 1) - first,
    }


def _collect(
    jobs: Sequence[Job], folder: Path, report: Mapping[str, Any]
) -> list[tuple[list[Run], list[Span]]]:
    """Runs and spans of every job."""
    begins = [[run["begin"] for run in runs] for runs in report["jobs"]]
    with (folder / "events.txt").open() as lines:
        logs = _by_job(lines, [times[0] for times in begins])
    return [
        (
            _results(job, folder / f"dump{number}.hex", report["jobs"][number]),
            _spans(job, log, begins[number]),
        )
        for number, (job, log) in enumerate(zip(jobs, logs, strict=True))
    ]


def _by_job(lines: Iterable[str], starts: Sequence[int]) -> list[list[str]]:
    """Lines of the events file by the job that was running."""
    logs: list[list[str]] = [[] for _ in starts]
    for line in lines:
        cycle = line.partition(" ")[0]
        place = bisect(starts, int(cycle)) - 1 if cycle.isdecimal() else -1
        if place >= 0:
            logs[place].append(line)
    return logs


def _results(job: Job, dump: Path, found: Sequence[Mapping[str, Any]]) -> list[Run]:
    layout = job.placed()
    data = external.read_hex(dump, job.config.depth)
    starts = [output - min(layout.outputs) for output in layout.outputs]
    return [
        Run(
            data[start : start + job.program.result_bytes],
            run["status"],
            run["info"],
            run["counters"],
            run["begin"],
        )
        for start, run in zip(starts, found, strict=False)
    ]


def _spans(job: Job, lines: Sequence[str], begins: Sequence[int]) -> list[Span]:
    return spans(lines, job.program.descriptors, begins, job.config, job.comments)
