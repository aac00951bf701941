"""`intaglio quantize`: calibrate a float model, or complete a quantized one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intaglio.cli.command import Result, command
from intaglio.cli.options import Debug, Json, Mean, Std
from intaglio.cli.progress import steps
from intaglio.cli.tables import facts
from intaglio.errors import InputError


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

        progress(f"{model} on {len(samples)} samples")
        library(model, samples, output, complete)
    values = {"output": str(output), "samples": len(samples), "complete": complete}
    return Result(values, [facts({"quantized": output, "calibrated on": f"{len(samples)} samples"})])
