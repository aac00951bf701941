"""A compiled accelerator on its real RTL: every output bit compared with the reference, every cycle accounted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor, ProgramFile
from intaglio.artifact import sources
from intaglio.backends import fpga
from intaglio.hw.iss.routing import rows
from intaglio.ops import reference
from intaglio.program import Array
from intaglio.routing import RoutedLayer, Routing, routed, routed_layers
from intaglio.simulation.frame import Frames, Job, MemoryModel, memory_of, simulate

if TYPE_CHECKING:
    from intaglio.artifact import Artifact

Progress = Callable[[str], None]


@dataclass(frozen=True)
class SimulationReport:
    """What the RTL did with the images, beside what the reference says of them.

    `mismatches`: images whose result differs in any bit, or that ended with an error. `macs`: products that the
    program makes for rows and keys that it keeps, counted once each: an exponential times a value is one, though the
    array makes it in two passes; rows that the compiler left out, because no result reads them, are none; channels
    that pad heads or depth to the array's width do count. Of experts, the tokens that chose them in the first image
    count. `routing`: what the router did with every image, by mixture of experts: in the functional simulator, whose
    results are the reference's.
    """

    config: AcceleratorConfig
    frames: Frames
    results: Array
    mismatches: list[int]
    macs: int
    memory: MemoryModel
    task: int = 0
    routing: list[list[RoutedLayer]] = field(default_factory=list)

    @property
    def bit_exact(self) -> bool:
        return not self.mismatches

    @property
    def utilization(self) -> float:
        """Share of the array's products, over the whole frame, that are `macs`."""
        return self.macs / (self.frames.cycles * self.config.macs)

    @property
    def occupancy(self) -> float:
        """Share of cycles in which the array was issued a step."""
        counters = self.frames.runs[0].counters
        return counters["mac_steps"] / max(counters["cycles"], 1)

    @property
    def latency_ms(self) -> float:
        """Simulated cycles of one image at the configuration's clock."""
        return self.frames.cycles / (self.config.clock_mhz * 1e3)

    @property
    def errors(self) -> list[str]:
        return [
            f"image {i}: {run.error} (descriptor {run.info})"
            for i, run in enumerate(self.frames.runs)
            if run.status
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "bit_exact": self.bit_exact,
            "images": len(self.frames.runs),
            "mismatches": self.mismatches,
            "cycles": self.frames.cycles,
            "config": f"{self.config.hash:08x}",
            "memory": self.memory.as_json(),
            "task": self.task,
            "clock_mhz": self.config.clock_mhz,
            "latency_ms": self.latency_ms,
            "macs_per_cycle": self.config.macs,
            "utilization": self.utilization,
            "occupancy": self.occupancy,
            "stalls": self.frames.stalls(),
            "counters": [dict(run.counters) for run in self.frames.runs],
            "routing": [[layer.as_json() for layer in image] for image in self.routing],
            "descriptors": [span.as_json() for span in self.frames.spans],
            "errors": self.errors,
        }


def macs(program: ProgramFile, config: AcceleratorConfig, routings: Sequence[Routing] = ()) -> int:
    """Products of valid rows, keys and channels in a program, each counted once; of experts, as they were chosen."""
    counts = rows(program.descriptors, routings)
    return sum(_macs(d, count, config) for d, count in zip(program.descriptors, counts, strict=True))


def _macs(d: Descriptor, rows: int, config: AcceleratorConfig) -> int:
    if d.kind == "GEMM":
        return rows * d["groups"] * config.group * d["k_steps"] * config.depth
    if d.kind == "ATTENTION":
        return d["heads"] * d["rows"] * d["keys"] * (d["qk_steps"] + d["v_words"]) * config.depth
    return 0


def memory_model(
    artifact: Artifact,
    config: AcceleratorConfig | None = None,
    latency: int | None = None,
    bytes_per_cycle: float | None = None,
) -> MemoryModel:
    """External memory as the artifact's board has it, in cycles of `config` (default: its own); what is given holds."""
    compiled = fpga.load(artifact)
    board, clock = compiled.board, (config or compiled.config).clock_mhz
    return memory_of(board, clock, latency, bytes_per_cycle)


def simulate_artifact(
    artifact: Artifact,
    inputs: Array,
    *,
    config: AcceleratorConfig | None = None,
    memory: MemoryModel | None = None,
    waves: Path | None = None,
    progress: Progress = lambda _: None,
    task: int = 0,
) -> SimulationReport:
    """Run `inputs` [N, ...] (the program's input type) through the RTL in `artifact` and compare with the reference.

    `config`: another configuration than the one it was compiled for; the program is scheduled again for it.
    `memory`: default, the board's. Raises ArtifactError if it is no accelerator, InputError if it has no such task,
    ToolError if a tool is missing.
    """
    artifact.program.check_task(task)
    compiled = fpga.load(artifact) if config is None else fpga.compile_program(artifact.program, config)
    program = artifact.program
    progress(f"reference on {len(inputs)} image(s)")
    expected = np.concatenate([reference.run(program, image[None], task=task) for image in inputs])
    images = [np.ascontiguousarray(image).tobytes() for image in inputs]
    routings = routed(compiled, images, task)
    comments = dict(enumerate(compiled.comments))
    job = Job(compiled.config, compiled.program, compiled.weights, images, comments, task=task)
    # The artifact's own RTL is what a board would get.
    design = sources(artifact, "rtl") if config is None else None
    memory = memory or memory_model(artifact, compiled.config)
    frames = simulate(job, memory, waves=waves, progress=progress, design=design)
    output = program.tensors[program.output]
    results = [fpga.result(output, run.result) for run in frames.runs]
    wrong = [
        i
        for i, want in enumerate(expected)
        if i >= len(results) or frames.runs[i].status or not np.array_equal(results[i][0], want)
    ]
    return SimulationReport(
        compiled.config,
        frames,
        np.concatenate(results),
        wrong,
        macs(compiled.program, compiled.config, routings[0]),
        memory,
        task,
        [routed_layers(compiled, found) for found in routings],
    )
