"""`intaglio synthesize`: what an accelerator needs of its device, and how fast an ECP5 runs it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from intaglio.cli.command import Result, command
from intaglio.cli.options import Debug, Json, at_least_one
from intaglio.cli.progress import steps
from intaglio.cli.tables import facts, table

if TYPE_CHECKING:
    from intaglio.synthesis.report import Report, RouteReport, SynthesisReport


class Flow(StrEnum):
    """Tool chains; each is free and comes with `pip install 'intaglio[synth]'`."""

    yosys = "yosys"
    nextpnr_ecp5 = "nextpnr-ecp5"


@command
def synthesize(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Output folder of `intaglio compile`, or any folder with rtl/*.sv; reports go to DIR/synthesis.",
            show_default=False,
        ),
    ],
    flow: Annotated[
        Flow, typer.Option(help="yosys: resources; nextpnr-ecp5: place and route, clock frequency.")
    ] = Flow.yosys,
    top: Annotated[str, typer.Option(help="Module at the top of the design.")] = "accelerator",
    unit: Annotated[
        str | None,
        typer.Option(help="Only this module of the design, with what it holds.", show_default=False),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The RTL of this configuration (tiny, ecp5, medium, large), target or .toml file, not DIR's.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="Board to compare with (default: what DIR was compiled for).",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="nextpnr-ecp5: places and routes to try; the best counts.")] = 1,
    jobs: Annotated[
        int | None, typer.Option(help="yosys: modules at a time (default: processors).", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Synthesize an accelerator with open tools: its resources, and on an ECP5 its clock frequency."""
    at_least_one("--seeds", seeds)
    at_least_one("--jobs", jobs)
    from intaglio import synthesis

    design = synthesis.gather(folder, top, unit, config, target)
    out = folder / "synthesis"
    report: Report
    with steps("synthesize") as progress:
        if flow is Flow.yosys:
            report = counted = synthesis.synthesize(design, out, progress, jobs)
            view = _resources(counted)
        else:
            report = routed = synthesis.place_and_route(design, out, range(1, seeds + 1), progress)
            view = _routed(routed)
    paths = synthesis.save(report, out)
    return Result(report.as_json(), [*view, facts({"written": ", ".join(map(str, paths))})])


def _resources(report: SynthesisReport) -> list[RenderableType]:
    from intaglio.use import NAMES, cells, number, verdict

    found = report.uses
    board = report.design.target.name
    columns = dict.fromkeys(["instances", *NAMES.values(), "s"], "right")
    rows = [
        (
            module.name,
            module.instances,
            *(number(getattr(module.total, name)) for name in NAMES),
            f"{module.seconds:.0f}",
        )
        for module in report.modules
    ]
    others = ", ".join(f"{n} {name}" for name, n in report.resources.other.items())
    return [
        table(
            report.design.name,
            {"": "left", "used": "right", board: "right", "share": "right"},
            [(NAMES[name], *cells(use)) for name, use in found.items()],
        ),
        verdict(found, board),
        table("one instance of each module", {"module": "left", **columns}, rows),
        *([f"not counted: {others}"] if others else []),
    ]


def _routed(report: RouteReport) -> list[RenderableType]:
    from intaglio.synthesis.report import mhz

    best = report.best
    summary = {
        "device": report.part,
        "Fmax": f"{mhz(best.fmax)} MHz (asked: {report.target_mhz:g}), seed {best.seed} of {len(report.runs)}",
        "longest path": best.path or "-",
        "ports": f"{report.hidden_bits} bits behind shift registers" if report.hidden_bits else "pins",
    }
    used = [(name, u, of, f"{100 * u / of:.1f} %") for name, (u, of) in best.utilization.items() if u and of]
    columns = {"": "left", "used": "right", "available": "right", "share": "right"}
    return [facts(summary), table("", columns, used)]
