"""`intaglio explore`: the accelerator that suits a model and a board."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from intaglio.cli import files
from intaglio.cli.command import Result, command
from intaglio.cli.model import program_of
from intaglio.cli.options import Bandwidth, Debug, Json, Latency, Model, at_least_one
from intaglio.cli.progress import steps
from intaglio.cli.tables import facts, table
from intaglio.errors import InputError

if TYPE_CHECKING:
    from intaglio.explore import Exploration
    from intaglio.explore.problem import Point
    from intaglio.target import FpgaTarget


class Objective(StrEnum):
    """What is made small."""

    latency = "latency"
    energy = "energy"
    edp = "edp"


@command
def explore(
    model: Model,
    target: Annotated[
        str,
        typer.Option("--target", "-t", help="An FPGA target: a name of `intaglio targets`, or a .toml file."),
    ],
    objective: Annotated[
        Objective, typer.Option(help="What is made small: time, energy, or their product.")
    ] = Objective.latency,
    budget: Annotated[
        str,
        typer.Option(
            metavar="LIMITS",
            help="Less than the board has: dsp=2000,lut=70%; of dsp, bram36, uram, lut, ff.",
            show_default=False,
        ),
    ] = "",
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="X.toml", help="Write the choice, as `compile --config` takes it.", show_default=False
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="X.jsonl",
            help="Append every result, and take up the search that is there.",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Worker processes (default: processors).", show_default=False)
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="dask:ADDRESS", help="Workers of a Dask cluster instead of processes.", show_default=False
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(help="The best of the grid that the cycle model looks at.")] = 24,
    latency: Latency = None,
    bandwidth: Bandwidth = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Search the accelerator configuration that suits MODEL and a board.

    All of a grid is ranked by a fast model; the best, and what lies beside them, by the cycle model.
    """
    at_least_one("--processes", processes)
    at_least_one("--candidates", candidates)
    for option, path, suffix in (("--write", write, ".toml"), ("--results", results, ".jsonl")):
        if path is not None and (path.suffix != suffix or not path.parent.is_dir()):
            raise InputError(
                f"{option}: expected a {suffix} file in a folder that is there, not {str(path)!r}."
            )
        files.writable(option, path)
    import os

    from intaglio import explore as search
    from intaglio import target as targets
    from intaglio.estimate import memory_of
    from intaglio.explore.problem import Problem
    from intaglio.explore.problem import budget as limits
    from intaglio.explore.store import Store

    chosen = targets.find(target)
    if not isinstance(chosen, targets.FpgaTarget):
        raise InputError(
            f"--target: {chosen.name!r} is of kind {chosen.kind!r}; explore searches for FPGA targets."
        )
    allowed = limits(chosen.board, budget)
    memory = memory_of(chosen.board, chosen.accelerator.clock_mhz, latency, bandwidth)
    with steps("explore") as progress:
        problem = Problem(program_of(model, progress, chosen), chosen, memory, allowed)
        with Store(problem, results) as store:
            found = search.explore(
                problem,
                objective.value,
                store,
                processes=processes or os.cpu_count() or 1,
                address=engine,
                candidates=candidates,
                progress=progress,
            )
    if write is not None:
        files.write(write, _toml(found, chosen, problem.program.name))
    written = {"written": None if write is None else str(write)}
    return Result(found.as_json() | written, [*_view(found), *([f"written: {write}"] if write else [])])


def _toml(found: Exploration, target: FpgaTarget, model: str) -> str:
    """The choice as a target file: that of the board, with another accelerator."""
    from intaglio.backends.fpga import target_file

    config = found.chosen.config
    text = (
        f"{target.board.part or 'no board'}: {config.rows} x {config.cols} x {config.depth} MACs for {model}"
    )
    named = target.model_copy(update={"name": f"{target.name}-{found.objective}", "description": text})
    return target_file(config, named)


def _view(found: Exploration) -> list[RenderableType]:
    chosen, own, config = found.chosen, found.own, found.chosen.config
    low, high = chosen.energy_band_mj
    summary = {
        "chosen": f"{config.rows} x {config.cols} x {config.depth} MACs at {config.clock_mhz} MHz, "
        f"{config.weight_entries} weight entries, {config.weight_ports} weight ports",
        "cycles": f"{chosen.cycles:,} by the cycle model, {chosen.latency_ms:.3f} ms",
        "energy": f"{chosen.energy_mj:.2f} mJ, 90 % band {low:.2f} to {high:.2f}",
        "target's own": "does not run the model within the budget",
        "looked at": f"{found.fast:,} by the fast model, {found.exact} by the cycle model, in {found.seconds:.0f} s "
        f"({found.per_minute:,.0f} a minute; {found.resumed} known before)",
    }
    if own is not None:
        more = 100 * (own.value(found.objective) / chosen.value(found.objective) - 1)
        figures = f"{own.cycles:,} cycles, {own.energy_mj:.2f} mJ"
        summary["target's own"] = f"{figures}: {more:.1f} % more {found.objective} than the choice"
    columns = {
        "rows x cols x depth": "left", "entries": "right", "ports": "right", "cycles": "right", "ms": "right",
        "mJ": "right", "band": "left", "DSP": "right", "BRAM36": "right", "URAM": "right", "LUT": "right",
    }  # fmt: skip
    return [facts(summary), table("Pareto front, by the cycle model", columns, map(_row, found.front))]


def _row(point: Point) -> tuple[str, ...]:
    config, used = point.config, point.resources
    return (
        f"{config.rows} x {config.cols} x {config.depth}", str(config.weight_entries), str(config.weight_ports),
        f"{point.cycles:,}", f"{point.latency_ms:.3f}", f"{point.energy_mj:.2f}",
        f"{point.energy_band_mj[0]:.2f} .. {point.energy_band_mj[1]:.2f}",
        *(f"{used[name]:,g}" for name in ("dsp", "bram36", "uram", "lut")),
    )  # fmt: skip
