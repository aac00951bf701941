"""`intaglio verify`: prove a compiled model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from intaglio.cli.command import CRASHED, Result, command
from intaglio.cli.options import Artifact, Debug, Input, Json, Mean, Onnx, Std, at_least_one
from intaglio.cli.progress import steps
from intaglio.cli.tables import facts, percent, table

if TYPE_CHECKING:
    from intaglio.verify import VerifyReport

RANDOM_SAMPLES = 8


@command
def verify(
    folder: Artifact,
    samples: Input = None,
    count: Annotated[
        int | None,
        typer.Option(
            help="Samples to check: the first of --input (default: all), or random ones (8).",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        int | None, typer.Option(help="The only task to check (default: all).", show_default=False)
    ] = None,
    model: Onnx = None,
    mean: Mean = None,
    std: Std = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Prove a compiled model: bit-exact everywhere, integer-only, faithful to its source.

    Exits with 1 if an execution differs from the reference or has a floating-point instruction.
    """
    at_least_one("--count", count)
    from intaglio import artifact, feed
    from intaglio import verify as library
    from intaglio.data import load_samples, parse_channels

    compiled = artifact.load(folder)
    how = feed.normalization(compiled, parse_channels("--mean", mean), parse_channels("--std", std))
    given = None if samples is None else load_samples(samples, compiled.manifest.input.shape[1:], count)
    with steps("verify") as progress:
        report = library.verify(compiled, model, given, count or RANDOM_SAMPLES, how, progress, task)
    return Result(report.as_json(), _view(report), 0 if report.passed else CRASHED)


def _view(report: VerifyReport) -> list[RenderableType]:
    rows = [
        (
            execution.name,
            "the meaning"
            if execution.name == "reference"
            else _exactness(execution.mismatches, report.samples),
            "-" if execution.float_instructions is None else len(execution.float_instructions),
        )
        for execution in report.executions
    ]
    rows += [(name, f"left out: {reason}", "-") for name, reason in report.left_out.items()]
    columns = {"execution": "left", f"{report.samples} samples": "left", "float instructions": "right"}
    found = [line for execution in report.executions for line in execution.float_instructions or []]
    listing = (
        [table("", {"floating-point instructions": "left"}, [(line,) for line in found[:20]])]
        if found
        else []
    )
    accuracy = {
        "cosine": f"{report.cosine:.6f}",
        "same top-1": percent(report.top1_agreement),
        "": f"against the source model in ONNX Runtime, {report.compared} samples",
    }
    return [table("", columns, rows), *listing, facts(accuracy | _routers(report))]


def _routers(report: VerifyReport) -> dict[str, str]:
    """What is said of a model with mixtures of experts."""
    if not report.routers:
        return {}
    found = {
        "router agrees with the float gate on": f"{percent(report.router('gate'))} of tokens, on the same input",
        "with the source model's on": f"{percent(report.router('source'))} of tokens, from the image on",
    }
    if report.router("float_model") is not None:
        found["with the float model's on"] = (
            f"{percent(report.router('float_model'))} of tokens, from the image on"
        )
    return found


def _exactness(mismatches: int, samples: int) -> str:
    return "bit-exact" if mismatches == 0 else f"DIFFERS on {mismatches} of {samples}"
