"""`intaglio validate-model`: the cycle model against the RTL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from intaglio.cli.command import CRASHED, Result, command
from intaglio.cli.files import writable, write
from intaglio.cli.options import Bandwidth, Debug, Json, Latency
from intaglio.cli.progress import steps
from intaglio.cli.tables import table
from intaglio.errors import InputError

if TYPE_CHECKING:
    from intaglio.validate_model import Validation


@command
def validate_model(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            metavar="DIR[@NAMES]",
            help="Output folder of `intaglio compile` (any target), and the configurations that run it (default: all), "
            "separated by commas; may be repeated.",
            show_default=False,
        ),
    ] = None,
    configs: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Configurations, targets or .toml files, separated by commas."),
    ] = "tiny",
    cases: Annotated[int, typer.Option(help="Random programs, over all configurations and memories.")] = 200,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", help="Write the tables (.md) or all figures (.json); may be repeated."
        ),
    ] = None,
    latency: Latency = None,
    bandwidth: Bandwidth = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Compare the cycle model with the RTL: random programs, descriptor by descriptor, and whole models.

    Exits with 1 if an error is beyond its bound: 2 % or 20 cycles for a descriptor, 1 % for a model.
    """
    if cases < 0:
        raise InputError(f"--cases must not be negative, not {cases}.")
    outputs = output or []
    for path in outputs:
        if path.suffix not in (".md", ".json") or not path.parent.is_dir():
            raise InputError(
                f"-o: expected a .md or .json file in a folder that is there, not {str(path)!r}."
            )
        writable("-o", path)
    if (latency is None) != (bandwidth is None):
        raise InputError("--latency, --bandwidth: give both, for one memory instead of two, or none.")
    from intaglio import artifact
    from intaglio import validate_model as validation
    from intaglio.simulation.frame import MemoryModel
    from intaglio.target import configuration

    _distinct("--configs", [Path(name).stem for name in configs.split(",")])
    chosen = {Path(name).stem: configuration(name) for name in configs.split(",")}
    loaded, only = {}, {}
    given = [model.partition("@") for model in models or []]
    _distinct("--models", [Path(folder).resolve().name for folder, _, _ in given])
    for folder, _, names in given:
        wanted = names.split(",") if names else list(chosen)
        for unknown in set(wanted) - set(chosen):
            raise InputError(f"--models: {unknown!r} is not one of --configs ({', '.join(chosen)}).")
        name = Path(folder).resolve().name
        loaded[name], only[name] = artifact.load(Path(folder)), wanted
    if not cases and not loaded:
        raise InputError("nothing to compare: --cases is 0 and there are no --models.")
    with steps("validate-model") as progress:
        memories = validation.MEMORIES
        if latency is not None and bandwidth is not None:
            memories = {"given": MemoryModel(latency, bandwidth)}
        found = validation.validate(loaded, chosen, cases, progress, only, memories)
    for path in outputs:
        write(path, validation.text(found, path.suffix))
    return Result(found.as_json(), _view(found), 0 if found.within else CRASHED)


def _distinct(option: str, names: list[str]) -> None:
    """Refuse two that the tables would call the same."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{option}: two are called {name!r}; give each once, or rename one.")


def _view(found: Validation) -> list[RenderableType]:
    kinds = {
        "kind": "left", "programs": "right", "descriptors": "right", "median cycles": "right",
        "max cycles": "right", "median %": "right", "max %": "right", "beyond": "right",
    }  # fmt: skip
    models = {
        "model": "left", "configuration": "left", "latency": "right", "bytes/cycle": "right",
        "RTL cycles": "right", "model cycles": "right", "error %": "right",
    }  # fmt: skip
    return [
        table(
            f"{found.cases} random programs: errors by kind",
            kinds,
            [
                (
                    k.kind, k.cases, k.descriptors, f"{k.median_cycles:g}", k.max_cycles,
                    f"{k.median_percent:.2f}", f"{k.max_percent:.2f}", k.beyond,
                )
                for k in found.kinds
            ],
        ),
        table(
            "whole models",
            models,
            [
                (
                    m.model, m.config, m.latency, f"{m.bytes_per_cycle:g}", f"{m.rtl:,}", f"{m.predicted:,}",
                    f"{100 * m.share:+.3f}",
                )
                for m in found.models
            ],
        ),
        *found.refused,
        *found.outliers,
        "within the bounds" if found.within else "BEYOND THE BOUNDS",
    ]  # fmt: skip
