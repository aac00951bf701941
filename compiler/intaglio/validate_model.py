"""The cycle model against the RTL: random programs and whole models, and the errors as a table."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.artifact import Artifact
from intaglio.backends import fpga
from intaglio.errors import UnsupportedError
from intaglio.hw.cycles import predict
from intaglio.hw.iss.random_program import random_program
from intaglio.routing import routed
from intaglio.samples import random_inputs
from intaglio.simulation.frame import Frames, Job, MemoryModel, simulate, simulate_all

Progress = Callable[[str], None]

MAX_CYCLES, MAX_SHARE = 20, 0.02
"""A descriptor may be off by so many cycles or by this share of its time, whichever is more."""

MAX_MODEL_SHARE = 0.01
"""The cycles of a whole model may be off by this share."""

MEMORIES: Mapping[str, MemoryModel] = {
    "fast": MemoryModel(latency=60, bytes_per_cycle=57.0),
    "slow": MemoryModel(latency=150, bytes_per_cycle=16.0),
}
"""External memories to validate with: as a ZCU102 has it at 300 MHz, and less than a third of that."""


@dataclass(frozen=True)
class Measured:
    """One descriptor: cycles on the RTL and in the model. `index`: its place in the program."""

    index: int
    kind: str
    rtl: int
    model: int

    @property
    def error(self) -> int:
        return self.model - self.rtl

    @property
    def share(self) -> float:
        return self.error / max(self.rtl, 1)

    @property
    def within(self) -> bool:
        return abs(self.error) <= max(MAX_CYCLES, MAX_SHARE * self.rtl)

    def __str__(self) -> str:
        return f"descriptor {self.index} ({self.kind}): {self.rtl:,} cycles on the RTL, {self.model:,} in the model"


@dataclass(frozen=True)
class KindError:
    """All descriptors of a kind. `cases`: programs that have one; errors are absolute; `beyond`: outside the bounds."""

    kind: str
    cases: int
    descriptors: int
    median_cycles: float
    max_cycles: int
    median_percent: float
    max_percent: float
    beyond: int


@dataclass(frozen=True)
class ModelError:
    """A whole frame of a model, for a configuration and a memory."""

    model: str
    config: str
    latency: int
    bytes_per_cycle: float
    rtl: int
    predicted: int

    @property
    def share(self) -> float:
        return (self.predicted - self.rtl) / self.rtl

    @property
    def within(self) -> bool:
        return abs(self.share) <= MAX_MODEL_SHARE


@dataclass(frozen=True)
class Validation:
    """What the comparison found.

    `outliers`: a sentence for every descriptor beyond its bound, with the program to repeat it; `refused`: models that
    do not fit a configuration, with the reason.
    """

    cases: int
    configs: Sequence[str]
    kinds: Sequence[KindError]
    models: Sequence[ModelError]
    refused: Sequence[str]
    outliers: Sequence[str] = ()
    memories: Mapping[str, MemoryModel] = field(default_factory=lambda: MEMORIES)

    @property
    def within(self) -> bool:
        """Whether everything is within the bounds."""
        return not any(kind.beyond for kind in self.kinds) and all(model.within for model in self.models)

    def as_json(self) -> dict[str, Any]:
        models = [{**asdict(m), "error_percent": round(100 * m.share, 4)} for m in self.models]
        return {
            "cases": self.cases,
            "configs": list(self.configs),
            "memories": {name: asdict(memory) for name, memory in self.memories.items()},
            "within": self.within,
            "kinds": [asdict(kind) for kind in self.kinds],
            "models": models,
            "refused": list(self.refused),
            "outliers": list(self.outliers),
        }

    def markdown(self) -> str:
        """The tables, as docs/models.md has them."""
        bound = f"{100 * MAX_SHARE:.0f} % or {MAX_CYCLES} cycles"
        lines = [
            f"{self.cases} random programs on {', '.join(self.configs)}, each with {_memories(self.memories)}. "
            f"Errors are absolute, of the cycles from a descriptor's offer to its end; bound: {bound}.",
            "",
            "| kind | programs | descriptors | median, cycles | max, cycles | median, % | max, % | beyond the bound |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {k.kind} | {k.cases} | {k.descriptors} | {k.median_cycles:g} | {k.max_cycles} "
            f"| {k.median_percent:.2f} | {k.max_percent:.2f} | {k.beyond} |"
            for k in self.kinds
        ]
        lines += ["", *(f"- {sentence}" for sentence in self.outliers)] if self.outliers else []
        lines += [
            "",
            f"Whole models, first frame; bound: {100 * MAX_MODEL_SHARE:.0f} %.",
            "",
            "| model | configuration | latency, cycles | bytes per cycle | RTL, cycles | model, cycles | error, % |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {m.model} | {m.config} | {m.latency} | {m.bytes_per_cycle:g} | {m.rtl:,} | {m.predicted:,} "
            f"| {100 * m.share:+.3f} |"
            for m in self.models
        ]
        lines += ["", *(f"- {sentence}" for sentence in self.refused)] if self.refused else []
        return "\n".join(lines) + "\n"


def _memories(memories: Mapping[str, MemoryModel]) -> str:
    listed = " and ".join(
        f"{memory.latency} cycles latency, {memory.bytes_per_cycle:g} bytes per cycle"
        for memory in memories.values()
    )
    return listed if len(memories) == 1 else f"one of {listed}"


def validate(
    models: Mapping[str, Artifact],
    configs: Mapping[str, AcceleratorConfig],
    cases: int,
    progress: Progress = lambda _: None,
    only: Mapping[str, Collection[str]] = MappingProxyType({}),
    memories: Mapping[str, MemoryModel] = MEMORIES,
) -> Validation:
    """Run RTL and model. `cases`: random programs, dealt out to configurations and `memories` in turn.

    `only`: models that are run on some of the configurations. Raises ToolError if a tool is missing or fails.
    """
    found, outliers = [], []
    for name, measured in _unit_cases(configs, memories, cases, progress):
        found.append(measured)
        outliers += [f"{name}: {one}" for one in measured if not one.within]
    whole, refused = _whole_models(models, configs, memories, only, progress)
    return Validation(cases, list(configs), _by_kind(found), whole, refused, outliers, memories)


def _unit_cases(
    configs: Mapping[str, AcceleratorConfig],
    memories: Mapping[str, MemoryModel],
    cases: int,
    progress: Progress,
) -> Iterable[tuple[str, list[Measured]]]:
    """What every random program is called, and its descriptors."""
    parts = [(config, memory) for config in configs for memory in memories]
    for number, (name, memory_name) in enumerate(parts):
        seeds, memory = range(number, cases, len(parts)), memories[memory_name]
        if not seeds:
            continue
        progress(f"{len(seeds)} random programs on {name}, {memory_name} memory")
        jobs = []
        for seed in seeds:
            program, weights, image = random_program(configs[name], seed)
            jobs.append(Job(configs[name], program, weights, [image], task=seed % program.tasks))
        for seed, job, frames in zip(seeds, jobs, simulate_all(jobs, memory), strict=True):
            yield f"random program {seed} on {name}, {memory_name} memory", compare(job, frames, memory)


def compare(job: Job, frames: Frames, memory: MemoryModel) -> list[Measured]:
    """Every descriptor of the first image of a job."""
    prediction = predict(job.program.descriptors, job.config, memory, _routing(job), job.task)
    return [
        Measured(span.index, span.kind, span.cycles, prediction.spans[span.index].cycles)
        for span in frames.spans
        if span.image == 0
    ]


def _routing(job: Job) -> list[tuple[int, ...]]:
    """What every ROUTE does with the first image of a job: recorded in the functional simulator."""
    compiled = fpga.Compiled(job.config, job.program, job.weights, [])
    (found,) = routed(compiled, job.images[:1], job.task)
    return [routing.tokens for routing in found]


def _by_kind(programs: Sequence[Sequence[Measured]]) -> list[KindError]:
    """Errors by kind, in the order of their names."""
    measured: dict[str, list[Measured]] = defaultdict(list)
    cases: dict[str, int] = defaultdict(int)
    for program in programs:
        for one in program:
            measured[one.kind].append(one)
        for kind in {one.kind for one in program}:
            cases[kind] += 1
    return [_kind_error(kind, cases[kind], measured[kind]) for kind in sorted(measured)]


def _kind_error(kind: str, cases: int, found: Sequence[Measured]) -> KindError:
    cycles = [abs(one.error) for one in found]
    shares = [100 * abs(one.share) for one in found]
    beyond = sum(not one.within for one in found)
    return KindError(
        kind, cases, len(found), median(cycles), max(cycles), median(shares), max(shares), beyond
    )


def _whole_models(
    models: Mapping[str, Artifact],
    configs: Mapping[str, AcceleratorConfig],
    memories: Mapping[str, MemoryModel],
    only: Mapping[str, Collection[str]],
    progress: Progress,
) -> tuple[list[ModelError], list[str]]:
    """Every model on every configuration with every memory, and who refuses what; the last task, if there are more."""
    found, refused = [], []
    for name, artifact in models.items():
        inputs = random_inputs(artifact.program.tensors[artifact.program.input], 1)
        image = np.ascontiguousarray(inputs[0]).tobytes()
        for config_name, config in configs.items():
            if config_name not in only.get(name, configs):
                continue
            try:
                compiled = fpga.compile_program(artifact.program, config)
            except UnsupportedError as error:
                refused.append(f"{name} on {config_name}: {error}")
                continue
            task = compiled.program.tasks - 1
            job = Job(config, compiled.program, compiled.weights, [image], task=task)
            routing = _routing(job)
            full_name = f"{name}, task {task}" if task else name
            for memory_name, memory in memories.items():
                progress(f"{name} on {config_name}, {memory_name} memory")
                rtl = simulate(job, memory).cycles
                predicted = predict(job.program.descriptors, config, memory, routing, task).cycles
                found.append(
                    ModelError(full_name, config_name, memory.latency, memory.bytes_per_cycle, rtl, predicted)
                )
    return found, refused


def text(validation: Validation, suffix: str) -> str:
    """The tables (.md), or all figures (.json)."""
    return json.dumps(validation.as_json(), indent=1) + "\n" if suffix == ".json" else validation.markdown()
