"""The list of commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from intaglio.cli import (
    compile,
    estimate,
    evaluate,
    explore,
    inspect,
    quantize,
    report,
    run,
    simulate,
    synthesize,
    targets,
    validate_model,
    verify,
)
from intaglio.resources import version

COMMANDS: dict[str, Callable[..., None]] = {
    "compile": compile.compile_,
    "run": run.run,
    "verify": verify.verify,
    "evaluate": evaluate.evaluate,
    "simulate": simulate.simulate,
    "report": report.report,
    "estimate": estimate.estimate,
    "explore": explore.explore,
    "quantize": quantize.quantize,
    "inspect": inspect.inspect,
    "synthesize": synthesize.synthesize,
    "targets": targets.targets,
    "validate-model": validate_model.validate_model,
}

app = typer.Typer(
    name="intaglio",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"intaglio {version()}")
        raise typer.Exit


@app.callback()
def intaglio(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Compile quantized Vision Transformers from ONNX to integer-only code, run them and prove them."""


for _name, _function in COMMANDS.items():
    app.command(_name)(_function)


def main() -> None:
    """Entry point of the `intaglio` command."""
    app(prog_name="intaglio")
