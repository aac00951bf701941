"""`intaglio quantize`: calibrate a float model, or complete a quantized one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intaglio.cli.command import Result, command
from intaglio.cli.options import Debug, Json, Mean, Std
from intaglio.cli.progress import steps
from intaglio.cli.tables import table
from intaglio.errors import InputError

if TYPE_CHECKING:
    from intaglio.quantize import QuantizeReport


@command
def quantize(
    model: Annotated[
        Path, typer.Argument(help="Float or partly quantized model (.onnx).", show_default=False)
    ],
    calibrate: Annotated[
        Path,
        typer.Option(
            "--calibrate", "-c", help="Images or array (.npy) that show typical values.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="ONNX", help="Model to write.", show_default=False)
    ],
    complete: Annotated[
        bool, typer.Option("--complete", help="Keep the model's own scales and add what is missing.")
    ] = False,
    activations: Annotated[
        str, typer.Option(help="Type of the activations: auto decides by what 8 bits would cost.")
    ] = "auto",
    method: Annotated[str, typer.Option(help="How a range is chosen.")] = "mse",
    mean: Mean = None,
    std: Std = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Quantize MODEL so that every activation the integer program needs has a scale."""
    if output.suffix != ".onnx":
        raise InputError(f"--output: expected the name of an .onnx file, not {str(output)!r}.")
    from intaglio.data import load_samples, parse_channels
    from intaglio.feed import given_normalization, real_values
    from intaglio.oracle import input_shape

    how = given_normalization(parse_channels("--mean", mean), parse_channels("--std", std))
    samples = real_values(load_samples(calibrate, input_shape(model)), how)
    with steps("quantize") as progress:
        from intaglio.quantize import quantize as library

        report = library(
            model,
            samples,
            output,
            complete=complete,
            activations=activations,
            method=method,
            progress=progress,
        )
    return _result(report)


def _result(report: QuantizeReport) -> Result:
    values = {
        "output": str(report.path),
        "added": [asdict(entry) for entry in report.added],
        "kept": report.kept,
        "images": report.images,
        "cosine": report.cosine,
        "notes": list(report.notes),
    }
    rows = [(role, dtype, number) for role, types in report.roles.items() for dtype, number in types.items()]
    added = [table("", {"scales added for": "left", "type": "left", "count": "right"}, rows)] if rows else []
    return Result(
        values, [*added, f"{report.path}: {report.summary}", *(f"note: {note}" for note in report.notes)]
    )
