"""Options and arguments that several commands take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from intaglio.errors import InputError

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Artifact = Annotated[
    Path, typer.Argument(metavar="DIR", help="Output folder of `intaglio compile`.", show_default=False)
]
Input = Annotated[
    Path | None,
    typer.Option("--input", "-i", help="Array (.npy), image, or folder of images.", show_default=False),
]
Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL|DIR", help="An ONNX model, or what was compiled of it.", show_default=False
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Accelerator of an FPGA target: tiny, ecp5, medium, large, that of a target, or a .toml file.",
        show_default=False,
    ),
]
Latency = Annotated[
    int | None, typer.Option(help="External memory: cycles to the first beat.", show_default=False)
]
Bandwidth = Annotated[
    float | None, typer.Option(help="External memory: bytes per cycle, all ports.", show_default=False)
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads of the compiled library (default: as compiled).", show_default=False),
]
Task = Annotated[int, typer.Option("--task", help="Number of the task, for a model with several.")]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Mean of the pixels (0..1), one number or one per channel: 0.485,0.456,0.406.",
        show_default=False,
    ),
]
Std = Annotated[
    str | None, typer.Option(help="Standard deviation of the pixels, likewise.", show_default=False)
]
Onnx = Annotated[
    Path | None,
    typer.Option(
        "--model", help="The source model, if it was moved since it was compiled.", show_default=False
    ),
]


class Device(StrEnum):
    """Executions of a compiled model."""

    reference = "reference"
    cpu = "cpu"
    c = "c"
    csim = "csim"
    iss = "iss"


class Nonlinear(StrEnum):
    """Sets of non-linear integer ops."""

    exact = "exact"
    ivit = "ivit"


class InputKind(StrEnum):
    """What a compiled model takes."""

    float = "float"
    uint8 = "uint8"


def at_least_one(option: str, value: int | None) -> int | None:
    """Check a count. Raises InputError."""
    if value is not None and value < 1:
        raise InputError(f"{option}: expected a number of at least 1, not {value}.")
    return value
