"""`intaglio simulate`: a compiled accelerator on its real RTL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from intaglio.cli.command import CRASHED, Result, command
from intaglio.cli.files import writable, write
from intaglio.cli.options import (
    Artifact,
    Bandwidth,
    Debug,
    Input,
    Json,
    Latency,
    Mean,
    Std,
    Task,
    at_least_one,
)
from intaglio.cli.progress import steps
from intaglio.cli.routing import routing_tables
from intaglio.cli.tables import count, facts, percent, table

if TYPE_CHECKING:
    from intaglio.simulate import SimulationReport

SLOWEST = 12
"""Descriptors that the table for people shows."""


@command
def simulate(
    folder: Artifact,
    images: Annotated[int, typer.Option(help="Images to run: the first of --input, or random ones.")] = 1,
    samples: Input = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="Another configuration: a name (tiny, ecp5, medium, large), a target, or a .toml file.",
            show_default=False,
        ),
    ] = None,
    latency: Latency = None,
    bandwidth: Bandwidth = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write a Chrome/Perfetto trace (.json).", show_default=False)
    ] = None,
    waves: Annotated[
        Path | None, typer.Option(help="Write waveforms (.vcd): slow.", show_default=False)
    ] = None,
    task: Task = 0,
    mean: Mean = None,
    std: Std = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Run images on the accelerator's RTL, in Verilator, and compare every bit with the reference.

    Exits with 1 if a bit differs or the accelerator stops with an error.
    """
    at_least_one("--images", images)
    for name, path in (("--trace", trace), ("--waves", waves)):
        writable(name, path)
    from intaglio import artifact, feed
    from intaglio.data import load_samples, parse_channels
    from intaglio.samples import random_inputs
    from intaglio.simulate import memory_model, simulate_artifact
    from intaglio.target import configuration

    compiled = artifact.load(folder)
    program = compiled.program
    program.check_task(task)
    how = feed.normalization(compiled, parse_channels("--mean", mean), parse_channels("--std", std))
    if samples is None:
        inputs = random_inputs(program.tensors[program.input], images)
    else:
        inputs = feed.integers(program, load_samples(samples, compiled.manifest.input.shape[1:], images), how)
    chosen = None if config is None else configuration(config)
    with steps("simulate") as progress:
        memory = memory_model(compiled, chosen, latency, bandwidth)
        report = simulate_artifact(
            compiled, inputs, config=chosen, memory=memory, waves=waves, progress=progress, task=task
        )
    if trace is not None:
        write(trace, json.dumps(report.frames.trace(report.config.clock_mhz)))
    return Result(report.as_json(), _view(report), 0 if report.bit_exact else CRASHED)


def _view(report: SimulationReport) -> list[RenderableType]:
    frames = report.frames
    verdict = "bit-exact" if report.bit_exact else f"DIFFERS on images {report.mismatches}"
    seconds = f"{frames.run_seconds:.1f} s, after {frames.build_seconds:.1f} s for the simulator"
    summary = {
        "images": f"{len(frames.runs)}: {verdict}",
        "cycles": f"{frames.cycles:,} (simulated), {report.latency_ms:.3f} ms at {report.config.clock_mhz} MHz",
        "array": f"{report.config.macs:,} MAC/cycle, {percent(report.utilization)} used, "
        f"{percent(report.occupancy)} of cycles issue a step",
        "simulated in": seconds,
    }
    stalls = [(cause, f"{cycles:,}") for cause, cycles in frames.stalls().items() if cycles]
    slowest = sorted((s for s in frames.spans if s.image == 0), key=lambda s: -s.cycles)[:SLOWEST]
    rows = [(s.index, s.kind, f"{s.cycles:,}", s.comment) for s in slowest]
    columns = {"descriptor": "right", "kind": "left", "cycles": "right", "step": "left"}
    return [
        facts(summary),
        *report.errors,
        *routing_tables(report.routing[0], "experts, image 0" if len(frames.runs) > 1 else ""),
        table("", {"array waits for": "left", "cycles": "right"}, stalls),
        table(f"the {count(len(rows))} longest descriptors", columns, rows),
    ]
