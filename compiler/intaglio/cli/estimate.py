"""`intaglio estimate`: what a model costs on a target, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from intaglio.cli.command import Result, command
from intaglio.cli.model import program_of
from intaglio.cli.options import (
    Bandwidth,
    Config,
    Debug,
    Input,
    Json,
    Latency,
    Mean,
    Model,
    Std,
    Task,
    at_least_one,
)
from intaglio.cli.progress import steps
from intaglio.cli.routing import one_image
from intaglio.cli.tables import count, facts, percent, table
from intaglio.errors import InputError

if TYPE_CHECKING:
    from intaglio.estimate import Compiled, Estimate
    from intaglio.estimate.design import DesignEstimate
    from intaglio.estimate.processor import ProcessorEstimate
    from intaglio.hw.cycles.routing import Assumption, Routings
    from intaglio.program import Program
    from intaglio.target import CpuTarget, FpgaTarget, Target


@dataclass(frozen=True)
class Question:
    """Which routing, of which image and task, as the options say."""

    routing: str = "uniform"
    samples: Path | None = None
    task: int = 0
    mean: str | None = None
    std: str | None = None


@command
def estimate(
    model: Model,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="A name of `intaglio targets`, or a .toml file (default: what DIR was compiled for).",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    latency: Latency = None,
    bandwidth: Bandwidth = None,
    design: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Another accelerator instead, by the description of its loops: edge-moe, or a .toml file.",
            show_default=False,
        ),
    ] = None,
    roofline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A processor or GPU instead, by its roofline: h200, or a .toml file.",
            show_default=False,
        ),
    ] = None,
    routing: Annotated[
        str,
        typer.Option(
            metavar="HOW|FILE",
            help="Tokens per expert: uniform, worst, recorded (FPGA targets: of the first of --input, or of a random "
            "image), or what `inspect --routing --json` printed.",
        ),
    ] = "uniform",
    samples: Input = None,
    task: Task = 0,
    mean: Mean = None,
    std: Std = None,
    threads: Annotated[int, typer.Option(help="Threads of a CPU target.")] = 1,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Estimate time, energy and resources of MODEL on a target, with bounds of the error where they were measured."""
    at_least_one("--threads", threads)
    instead = [n for n, v in (("--target", target), ("--design", design), ("--roofline", roofline)) if v]
    if len(instead) > 1:
        raise InputError(f"{' and '.join(instead)} exclude each other: give one of them.")
    if design or roofline:
        _only(instead[0], "--config, --latency and --bandwidth", "FPGA", config, latency, bandwidth)
        _only(instead[0], "--task", "FPGA", task or None)
        _only(instead[0], "--threads", "CPU", threads if threads != 1 else None)
    if routing != "recorded":
        for name, value in (("--input", samples), ("--mean", mean), ("--std", std)):
            if value:
                raise InputError(
                    f"{name}: only --routing recorded looks at an image; give both, or leave it out."
                )
    if routing == "recorded" and design:
        raise InputError(
            "--routing recorded: only an FPGA target records one; give what `inspect --routing --json` printed."
        )
    if routing != "uniform" and roofline:
        raise InputError("--routing: a roofline does not depend on it; leave it out.")
    if design:
        return _design(model, design, routing)
    if roofline:
        return _roofline(model, roofline)
    question = Question(routing, samples, task, mean, std)
    return _target(model, target, config, latency, bandwidth, threads, question)


def _only(instead: str, names: str, kind: str, *values: object) -> None:
    """Refuse options that `instead` does not look at."""
    if any(value is not None for value in values):
        raise InputError(
            f"{instead}: {names} {'is' if names == '--task' else 'are'} for {kind} targets only."
        )


def _target(
    model: Path,
    name: str | None,
    config: str | None,
    latency: int | None,
    bandwidth: float | None,
    threads: int,
    question: Question,
) -> Result:
    from intaglio.target import CpuTarget, FpgaTarget, configured

    chosen = configured(_find(model, name), config)
    if isinstance(chosen, FpgaTarget):
        if threads != 1:
            raise InputError("--threads: only CPU targets have them.")
        compiled = _compiled(model, chosen, name is None and config is None)
        return _accelerator(model, compiled, chosen, latency, bandwidth, question)
    if question != Question():
        raise InputError("--routing is for FPGA targets and --design only, --task for FPGA targets only.")
    if latency is not None or bandwidth is not None:
        raise InputError("--latency and --bandwidth are for FPGA targets only.")
    if not isinstance(chosen, CpuTarget):
        raise InputError(
            f"--target: {chosen.name!r} is of kind {chosen.kind!r}, of which there is no model; choose one of kind "
            "fpga or cpu."
        )
    return _cpu(model, chosen, threads)


def _find(model: Path, name: str | None) -> Target:
    """The target called `name`, or that of a compiled model."""
    from intaglio import target as targets

    if name is not None:
        return targets.find(name)
    if not model.is_dir():
        raise InputError(
            "--target is missing: give a name of `intaglio targets`, or a .toml file; or --design or --roofline."
        )
    from intaglio import artifact
    from intaglio.backends import fpga

    loaded = artifact.load(model, verify=False)
    held = {record.path for record in loaded.manifest.files}
    return (
        targets.load(loaded.file(fpga.CONFIG))
        if fpga.CONFIG in held
        else targets.find(loaded.manifest.target)
    )


def _compiled(model: Path, target: FpgaTarget, as_it_is: bool) -> Compiled:
    """A model for the accelerator of a target; `as_it_is`: as its folder has it."""
    from intaglio import estimate as models

    if model.is_dir():
        from intaglio import artifact

        loaded = artifact.load(model, verify=False)
        return models.of_artifact(loaded, None if as_it_is else target.accelerator)
    with steps("estimate") as progress:
        return models.compiled_model(model, target, progress)


def _program(model: Path) -> Program:
    with steps("estimate") as progress:
        return program_of(model, progress)


def _accelerator(
    model: Path,
    compiled: Compiled,
    target: FpgaTarget,
    latency: int | None,
    bandwidth: float | None,
    question: Question,
) -> Result:
    from intaglio import estimate as models

    memory = models.memory_of(target.board, target.accelerator.clock_mhz, latency, bandwidth)
    tokens = _tokens(model, target, question)
    found = models.estimate(compiled, target.name, target.board, memory, tokens, question.task)
    return Result(found.as_json(), _view(found))


def _tokens(model: Path, target: FpgaTarget, question: Question) -> Routings | Assumption:
    """Tokens per expert, or what is assumed of them."""
    if question.routing == "uniform" or question.routing == "worst":
        return "uniform" if question.routing == "uniform" else "worst"
    if question.routing != "recorded":
        from intaglio.estimate.design import read_routing

        return read_routing(Path(question.routing))
    from intaglio.estimate.recorded import recorded

    if model.is_dir():
        from intaglio import artifact

        loaded = artifact.load(model, verify=False)
        image = one_image(loaded, question.samples, question.mean, question.std)
        return recorded(loaded.program, target.accelerator, image, question.task)
    if question.samples is not None:
        raise InputError(
            f"--input: {model} is no output folder of intaglio compile; compile it, to give it images."
        )
    from intaglio.samples import random_inputs

    program = _program(model)
    image = random_inputs(program.tensors[program.input], 1)
    return recorded(program, target.accelerator, image, question.task)


def _design(model: Path, name: str, routing: str) -> Result:
    from intaglio.estimate.design import estimate_design
    from intaglio.hw import dataflow

    design = dataflow.find(name)
    found = estimate_design(_program(model), design, routing)
    return Result(found.as_json(), _view_design(found))


def _roofline(model: Path, name: str) -> Result:
    from intaglio.estimate.processor import estimate_processor
    from intaglio.hw import roofline

    machine = roofline.find(name)
    found = estimate_processor(_program(model), machine.name, machine)
    return Result(found.as_json(), _view_processor(found))


def _cpu(model: Path, target: CpuTarget, threads: int) -> Result:
    from intaglio.estimate.processor import estimate_processor

    program = _program(model)
    with steps("estimate") as progress:
        from intaglio.estimate import measure

        machine = measure.host(target.mcpu, threads, progress)
    found = estimate_processor(program, target.name, machine)
    return Result(found.as_json(), _view_processor(found))


def _view(found: Estimate) -> list[RenderableType]:
    prediction, energy, config = found.prediction, found.energy, found.config
    values = found.as_json()
    cycles, memory = values["bounds"]["cycles"], found.memory
    shape = f"{config.rows} x {config.cols} x {config.depth} int8 MACs at {config.clock_mhz} MHz"
    error = f"at most {cycles['max_percent']:.1f} % off the RTL in {cycles['models']} runs of models"
    summary = {
        "model": found.name,
        "target": f"{found.target}: {shape}",
        "memory": f"{memory.latency} cycles latency, {memory.bytes_per_cycle:g} bytes per cycle",
        "cycles": f"{prediction.cycles:,} ({error})",
        "latency": f"{prediction.latency_ms:.3f} ms, the first frame too; frames do not overlap",
        "rate": f"{prediction.frames_per_second:.1f} frames/s",
        "array": f"{percent(prediction.utilization)} used, {percent(prediction.occupancy)} of cycles issue a step",
        "bound by": _shares(found.bound_by),
        "energy": f"{energy.total:.2f} mJ a frame, 90 % band {energy.low:.2f} to {energy.high:.2f}",
        "power": f"{energy.watts:.2f} W",
        "fits": _fits(found),
        "models took": f"{found.seconds:.2f} s{' (compiled before)' if found.cached else ''}",
    }
    if prediction.routed_by:
        summary["routing"] = (
            f"{prediction.routed_by}: first mixture {' '.join(map(str, prediction.routing[0]))}"
        )
    return [facts(summary), _resources(found), _ops(found), *found.notes]


def _fits(found: Estimate) -> str:
    if found.use.fits is None:
        return "not known: the target has no board"
    from intaglio.use import verdict

    return "yes" if found.use.fits else f"NO. {verdict(found.use.uses, found.target)}"


def _resources(found: Estimate) -> RenderableType:
    from intaglio.use import NAMES, cells

    rows = [(NAMES[name], *cells(use)) for name, use in found.use.uses.items()]
    return table("", {"": "left", "used": "right", "available": "right", "share": "right"}, rows)


def _ops(found: Estimate) -> RenderableType:
    columns = {
        "op": "left", "unit": "left", "cycles": "right", "MAC": "right", "array": "right", "bound": "left",
        "cause": "left", "mJ": "right", "step": "left",
    }  # fmt: skip
    rows = [
        (
            op.op, op.unit, f"{op.cycles:,}", count(op.macs) if op.macs else "",
            percent(op.utilization) if op.macs else "", op.bound, op.cause, f"{op.energy_mj:.3f}", op.name,
        )
        for op in found.ops
    ]  # fmt: skip
    return table("", columns, rows)


def _view_design(found: DesignEstimate) -> list[RenderableType]:
    evaluation, energy, design = found.evaluation, found.energy, found.evaluation.design
    summary = {
        "model": found.name,
        "design": f"{design.name}: {design.description}, {design.clock_mhz:g} MHz",
        "cycles": f"{evaluation.cycles:,} (error not measured: by the loops of the design's file)",
        "latency": f"{evaluation.latency_ms:.3f} ms, the first frame too; frames do not overlap",
        "rate": f"{1e3 / evaluation.latency_ms:.1f} frames/s",
        "bound by": _shares(evaluation.by_bound()),
        "external memory": f"{count(evaluation.bytes)}B a frame",
        "energy": f"{energy.total:.2f} mJ a frame, 90 % band {energy.low:.2f} to {energy.high:.2f}",
        "power": f"{energy.watts:.2f} W",
    }
    if found.how:
        summary["routing"] = f"{found.how}: first mixture {' '.join(map(str, found.routing[0]))}"
    quoted = [
        f"Published, not used here: {one['what']}, {one['ms']:g} ms ({one['difference_percent']:+.1f} % here). "
        f"{one['source']}."
        for one in found.published
    ]
    columns = {"kind": "left", "cycles": "right", "share": "right"}
    rows = [(kind, f"{n:,}", percent(n / evaluation.cycles)) for kind, n in evaluation.by_kind().items()]
    return [facts(summary), table("", columns, rows), *quoted, *found.energy.notes]


def _view_processor(found: ProcessorEstimate) -> list[RenderableType]:
    evaluation, machine = found.evaluation, found.machine
    low, high = found.band_mj
    error = machine.check_percent
    checked = "not measured" if error is None else f"{error:+.0f} % off a transformer block measured here"
    roofs = f"{count(machine.macs_per_s)}MAC/s, attention {count(machine.attention_macs_per_s)}MAC/s, "
    summary = {
        "model": found.name,
        "machine": f"{machine.name}, {machine.threads} thread(s)" if machine.kind == "cpu" else machine.name,
        "roofs": f"{roofs}{count(machine.bytes_per_s)}B/s ({machine.source})",
        "latency": f"{1e3 * evaluation.seconds:.3f} ms ({checked})",
        "rate": f"{1 / evaluation.seconds:.1f} frames/s",
        "bound by": _shares(evaluation.by_bound()),
        "energy": f"{found.energy_mj:.2f} mJ a frame, band {low:.2f} to {high:.2f}",
    }
    kinds: dict[str, float] = {}
    for op in evaluation.ops:
        kinds[op.op] = kinds.get(op.op, 0.0) + op.us
    total = 1e6 * evaluation.seconds
    rows = [(kind, f"{us:,.0f}", percent(us / total)) for kind, us in kinds.items() if us]
    return [
        facts(summary),
        table("", {"op": "left", "us": "right", "share": "right"}, rows),
        *found.notes,
    ]


def _shares(parts: Mapping[str, float]) -> str:
    total = sum(parts.values())
    return ", ".join(f"{name} {percent(part / total)}" for name, part in parts.items())
