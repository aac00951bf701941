"""Everything that a report says, from an artifact and the models: no layout. What cannot be said is a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intaglio.accelerator.descriptors import Descriptor
from intaglio.backends import fpga
from intaglio.errors import InputError, IntaglioError
from intaglio.estimate import Compiled, Estimate, device_of, estimate, memory_of, of_artifact
from intaglio.estimate.accelerator import rows_of
from intaglio.estimate.ops import Op, ops_of
from intaglio.estimate.resources import DeviceUse, device_use
from intaglio.hw import energy
from intaglio.hw.cycles.program import macs
from intaglio.hw.cycles.routing import Assumption, Routings
from intaglio.hw.energy import Actions, Device
from intaglio.hw.iss.routing import RoutedLayer
from intaglio.report.memory_map import MemoryMap, memory_maps
from intaglio.report.simulated import Explored, Simulation, read_explored, read_simulation
from intaglio.report.timing import Span, Timing
from intaglio.routing import routed, routed_layers
from intaglio.simulation.frame import MemoryModel
from intaglio.target import Board

if TYPE_CHECKING:
    from intaglio.artifact import Artifact
    from intaglio.program import Array

Progress = Callable[[str], None]

DYNAMIC = ("arithmetic", "on-chip memory", "external memory")
"""Components of energy that an op's actions take; the others go by time."""


@dataclass(frozen=True)
class OpFacts:
    """One op beside what the models say of it; None where they say nothing.

    `macs`: products of the program, as `simulate` counts them; `energy`: mJ by component, of DYNAMIC.
    """

    op: Op
    macs: int
    actions: Actions
    cycles: int | None
    bound: str
    simulated: int | None
    energy: tuple[float, ...] | None

    def share(self, frame: int) -> float:
        """Of the frame's cycles."""
        return (self.cycles or self.simulated or 0) / frame

    @property
    def energy_mj(self) -> float | None:
        return None if self.energy is None else sum(self.energy)


@dataclass(frozen=True)
class Facts:
    """`modelled`: by the cycle model; `missing`: sentences on what is not shown and why."""

    artifact: Artifact
    compiled: fpga.Compiled
    memory: MemoryModel
    ops: Sequence[OpFacts]
    actions: Sequence[Actions]
    folded: Sequence[str]
    modelled: Timing | None
    estimate: Estimate | None
    energy: energy.Energy | None
    use: DeviceUse | None
    simulation: Simulation | None
    explored: Explored | None
    routing: Sequence[RoutedLayer]
    routing_source: str
    memories: Sequence[MemoryMap]
    missing: Sequence[str] = field(default_factory=list)

    @property
    def timing(self) -> Timing | None:
        """What charts along time are drawn from."""
        return self.modelled or (self.simulation.timing if self.simulation else None)

    @property
    def program(self) -> Sequence[Descriptor]:
        return self.compiled.program.descriptors

    @property
    def traffic(self) -> int:
        """Bytes read from and written to external memory in a frame."""
        return sum(op.actions.memory for op in self.ops)

    @property
    def macs(self) -> int:
        """Products of a frame."""
        return sum(op.macs for op in self.ops)

    @property
    def feed(self) -> tuple[float, str]:
        """Bytes per cycle that can come from external memory, and what limits them: the memory, or the ports."""
        config = self.compiled.config
        ports = float((config.weight_ports + 1) * config.depth)
        return min((self.memory.bytes_per_cycle, "memory"), (ports, "weight and I/O ports"))

    def latency_ms(self, timing: Timing) -> float:
        return timing.cycles / (self.compiled.config.clock_mhz * 1e3)


@dataclass(frozen=True)
class Question:
    """What a report is asked for. `inputs` [1, ...]: the image whose routing counts; `what`: which image that is."""

    simulation: Path | None = None
    explore: Path | None = None
    inputs: Array | None = None
    what: str = "a random image"
    task: int = 0
    latency: int | None = None
    bandwidth: float | None = None


def collect(artifact: Artifact, question: Question, progress: Progress = lambda _: None) -> Facts:
    """Run the models. Raises ArtifactError if `artifact` is no accelerator, InputError for a file that does not fit."""
    compiled = fpga.load(artifact)
    config, program = compiled.config, compiled.program.descriptors
    simulation = (
        read_simulation(question.simulation, config, program) if question.simulation is not None else None
    )
    if simulation is not None and not 0 <= simulation.task < artifact.program.tasks:
        raise InputError(
            f"{question.simulation}: is of task {simulation.task}, which this program does not have; simulate this "
            "folder again."
        )
    question = _like(question, simulation)
    memory = memory_of(compiled.board, config.clock_mhz, question.latency, question.bandwidth)
    explored = _explored(artifact, compiled, question.explore)
    progress("routing")
    routing, source = _routing(compiled, question, simulation)
    progress("cycles, energy, resources")
    missing: list[str] = []
    model = of_artifact(artifact)
    found = _estimate(
        model, artifact.manifest.target, compiled.board, memory, routing, question.task, missing
    )
    modelled = _timing(found) if found else None
    timing = modelled or (simulation.timing if simulation else None)
    used = found.use if found else _use(compiled, missing)
    work = _rows(program, found.prediction.routing if found else [layer.tokens for layer in routing])
    actions = energy.count(program, config, lambda i, _: work[i])
    products = [macs(d, count, config) for d, count in zip(program, work, strict=True)]
    joules = found.energy if found else _energy(compiled, actions, timing, used, missing)
    groups = ops_of(model.ops, model.steps, program)
    device = device_of(compiled.board) if joules else None
    ops = [
        _op(op, sum(products[i] for i in op.descriptors), actions, modelled, simulation, device)
        for op in groups
    ]
    progress("memory map")
    times = timing.spans if timing else [Span(i, i + 1) for i in range(len(program))]
    maps = memory_maps(program, config, [(float(span.start), float(span.end)) for span in times])
    own = {op.name for op in groups}
    return Facts(
        artifact,
        compiled,
        memory,
        ops,
        actions,
        [f"{op.name} ({op.op})" for op in model.ops if op.name not in own],
        modelled,
        found,
        joules,
        used,
        simulation,
        explored,
        routing,
        source,
        maps,
        missing,
    )


def _explored(artifact: Artifact, compiled: fpga.Compiled, path: Path | None) -> Explored | None:
    """The designs of a search for this model and board, if there is a file."""
    return None if path is None else read_explored(path, artifact.manifest.source.name, compiled.board)


def _like(question: Question, simulation: Simulation | None) -> Question:
    """The question with what it leaves open as the simulation had it, so that the two compare."""
    if simulation is None:
        return question
    if question.task not in (0, simulation.task):
        raise InputError(f"--task: the simulation is of task {simulation.task}, not {question.task}.")
    latency, bandwidth = (simulation.memory.get(key) for key in ("latency", "bytes_per_cycle"))
    for option, given, had in (
        ("--latency", question.latency, latency),
        ("--bandwidth", question.bandwidth, bandwidth),
    ):
        if given is not None and had is not None and given != had:
            raise InputError(f"{option}: the simulation had {had:g}, not {given:g}; leave it out.")
    return replace(
        question,
        task=simulation.task,
        latency=round(latency) if question.latency is None and latency is not None else question.latency,
        bandwidth=bandwidth if question.bandwidth is None else question.bandwidth,
    )


def _estimate(
    model: Compiled,
    target: str,
    board: Board,
    memory: MemoryModel,
    routing: Sequence[RoutedLayer],
    task: int,
    missing: list[str],
) -> Estimate | None:
    """What the models say, of the image whose routing is known; `missing` says why, if they do not."""
    tokens: Routings | Assumption = [layer.tokens for layer in routing] if routing else "uniform"
    try:
        return estimate(model, target, board, memory, tokens, task)
    except InputError as error:
        missing.append(f"Modelled cycles, and what follows from them, are not shown: {error}")
        return None


def _timing(found: Estimate) -> Timing:
    spans = [Span(span.start, span.end, span.bound) for span in found.prediction.spans]
    return Timing("modelled", found.prediction.cycles, spans)


def _use(compiled: fpga.Compiled, missing: list[str]) -> DeviceUse | None:
    try:
        return device_use(compiled.config, compiled.board)
    except IntaglioError as error:
        missing.append(f"Resources are not shown: {error}")
        return None


def _energy(
    compiled: fpga.Compiled,
    actions: Sequence[Actions],
    timing: Timing | None,
    used: DeviceUse | None,
    missing: list[str],
) -> energy.Energy | None:
    """Of a program that the cycle model does not know, in the time that a simulation took."""
    if timing is None or used is None:
        missing.append("Energy is not shown: it needs the time of a frame and the accelerator's resources.")
        return None
    clock = compiled.config.clock_mhz
    seconds = timing.cycles / (clock * 1e6)
    return energy.estimate(actions, seconds, clock, used.used["lut"], device_of(compiled.board))


def _op(
    op: Op,
    products: int,
    actions: Sequence[Actions],
    modelled: Timing | None,
    simulation: Simulation | None,
    device: Device | None,
) -> OpFacts:
    total = op.total(actions)
    return OpFacts(
        op,
        products,
        total,
        op.cycles(modelled.spans) if modelled else None,
        op.bound(modelled.spans) if modelled else "",
        op.cycles(simulation.timing.spans) if simulation else None,
        _spent(total, device) if device else None,
    )


def _spent(actions: Actions, device: Device) -> tuple[float, ...]:
    """Millijoules by component, of DYNAMIC, that these actions take."""
    found = energy.of_actions(actions, device)
    return tuple(found[name] for name in DYNAMIC)


def _rows(program: Sequence[Descriptor], tokens: Routings) -> list[int]:
    """Rows that every descriptor works on; without a routing as if every token had chosen every expert."""
    return rows_of(program, tokens) if tokens else [d["rows"] for d in program]


def _routing(
    compiled: fpga.Compiled, question: Question, simulation: Simulation | None
) -> tuple[list[RoutedLayer], str]:
    """By mixture of experts, of which image."""
    if simulation is not None and simulation.routing:
        return list(simulation.routing), "the simulated image"
    if question.inputs is None:
        return [], ""
    (found,) = routed(compiled, [question.inputs[0].tobytes()], question.task)
    return routed_layers(compiled, found), question.what


def as_json(facts: Facts) -> dict[str, Any]:
    """The figures that a report begins with; None for those that it does not show."""
    timing = facts.timing
    return {
        "cycles": timing and timing.cycles,
        "latency_ms": timing and facts.latency_ms(timing),
        "source": timing and timing.source,
        "simulated_cycles": facts.simulation and facts.simulation.timing.cycles,
        "energy_mj": facts.energy and facts.energy.total,
        "ops": len(facts.ops),
        "missing": list(facts.missing),
    }
