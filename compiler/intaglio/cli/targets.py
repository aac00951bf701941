"""`intaglio targets`: what a model can be compiled for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intaglio.cli.command import Result, command
from intaglio.cli.options import Debug, Json
from intaglio.cli.tables import table
from intaglio.errors import InputError


@command
def targets(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of your own target files.", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """List the targets."""
    from intaglio import target

    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder.")
    found = target.available(folder)
    rows = [(entry.name, entry.kind, entry.description) for entry in found]
    view = table("", {"target": "left", "kind": "left", "what it makes": "left"}, rows)
    return Result({"targets": [entry.model_dump() for entry in found]}, [view])
