"""`intaglio estimate`: what a model costs on a target, before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from intaglio.cli.command import Result, command
from intaglio.cli.options import Debug, Json
from intaglio.cli.progress import steps
from intaglio.cli.tables import count, facts, percent, table
from intaglio.errors import InputError

if TYPE_CHECKING:
    from intaglio.estimate import Compiled, Estimate
    from intaglio.target import FpgaTarget, Target

NAMES = {"dsp": "DSP", "bram36": "BRAM36", "uram": "URAM", "lut": "LUT", "ff": "FF"}


@command
def estimate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL|DIR", help="An ONNX model, or what was compiled of it.", show_default=False
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="A name of `intaglio targets`, or a .toml file (default: what DIR was compiled for).",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Accelerator of an FPGA target: tiny, ecp5, medium, large, that of a target, or a .toml file.",
            show_default=False,
        ),
    ] = None,
    latency: Annotated[
        int | None, typer.Option(help="External memory: cycles to the first beat.", show_default=False)
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(help="External memory: bytes per cycle, all ports.", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Estimate cycles, energy and resources of MODEL on a target, with measured bounds of the error."""
    return _accelerator(model, target, config, latency, bandwidth)


def _accelerator(
    model: Path, target: str | None, config: str | None, latency: int | None, bandwidth: float | None
) -> Result:
    from intaglio import estimate as models

    chosen = _target(model, target, config)
    compiled = _compiled(model, chosen, target is None and config is None)
    memory = models.memory_of(chosen.board, chosen.accelerator.clock_mhz, latency, bandwidth)
    found = models.estimate(compiled, chosen.name, chosen.board, memory)
    return Result(found.as_json(), _view(found))


def _target(model: Path, target: str | None, config: str | None) -> FpgaTarget:
    """The target asked for, or that of a compiled model."""
    from intaglio import target as targets

    if target is not None:
        chosen = targets.find(target)
    elif model.is_dir():
        from intaglio import artifact
        from intaglio.backends import fpga

        chosen = targets.load(artifact.load(model, verify=False).file(fpga.CONFIG))
    else:
        raise InputError("--target is missing: give a name of `intaglio targets`, or a .toml file.")
    return _fpga(targets.configured(chosen, config))


def _fpga(target: Target) -> FpgaTarget:
    from intaglio.target import FpgaTarget

    if not isinstance(target, FpgaTarget):
        raise InputError(f"--target: {target.name!r} is of kind {target.kind!r}; there is no model of it.")
    return target


def _compiled(model: Path, target: FpgaTarget, as_it_is: bool) -> Compiled:
    from intaglio import estimate as models

    if model.is_dir():
        from intaglio import artifact

        loaded = artifact.load(model, verify=False)
        return models.of_artifact(loaded, None if as_it_is else target.accelerator)
    with steps("estimate") as progress:
        return models.compiled_model(model, target, progress)


def _view(found: Estimate) -> list[RenderableType]:
    prediction, energy, config = found.prediction, found.energy, found.config
    values = found.as_json()
    cycles, memory = values["bounds"]["cycles"], found.memory
    shape = f"{config.rows} x {config.cols} x {config.depth} int8 MACs at {config.clock_mhz} MHz"
    error = f"at most {cycles['max_percent']:.1f} % off the RTL in {cycles['models']} runs of models"
    bound = ", ".join(f"{name} {percent(n / prediction.cycles)}" for name, n in found.bound_by.items())
    summary = {
        "model": found.name,
        "target": f"{found.target}: {shape}",
        "memory": f"{memory.latency} cycles latency, {memory.bytes_per_cycle:g} bytes per cycle",
        "cycles": f"{prediction.cycles:,} ({error})",
        "latency": f"{prediction.latency_ms:.3f} ms, the first frame too; frames do not overlap",
        "rate": f"{prediction.frames_per_second:.1f} frames/s",
        "array": f"{percent(prediction.utilization)} used, {percent(prediction.occupancy)} of cycles issue a step",
        "bound by": bound,
        "energy": f"{energy.total:.2f} mJ a frame, 90 % band {energy.low:.2f} to {energy.high:.2f}",
        "power": f"{energy.watts:.2f} W",
        "fits": "yes" if found.use.fits else f"NO: too little {', '.join(found.use.exceeded)}",
        "models took": f"{found.seconds:.2f} s{' (compiled before)' if found.cached else ''}",
    }
    return [facts(summary), _resources(found), _ops(found), *found.notes]


def _resources(found: Estimate) -> RenderableType:
    rows = []
    for name, heading in NAMES.items():
        used, there = found.use.used[name], found.use.available[name]
        share = "-" if not there else f"{100 * used / there:.1f} %"
        rows.append((heading, f"{used:,g}", "-" if there is None else f"{there:,}", share))
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
