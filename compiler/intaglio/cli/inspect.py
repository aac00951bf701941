"""`intaglio inspect`: a model op by op."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from intaglio.cli.command import Result, command
from intaglio.cli.options import Debug, Input, Json, Mean, Model, Std, Task, at_least_one
from intaglio.cli.progress import steps
from intaglio.cli.routing import routing
from intaglio.cli.tables import count, table, total
from intaglio.errors import ArtifactError, InputError

if TYPE_CHECKING:
    from intaglio.inspection import OpSummary, Summary
    from intaglio.program import Program


@command
def inspect(
    path: Model,
    batch: Annotated[int, typer.Option(help="Images per call, for a model with a symbolic batch.")] = 1,
    program: Annotated[
        bool, typer.Option("--program", help="The accelerator's program instead, descriptor by descriptor.")
    ] = False,
    routed: Annotated[
        bool,
        typer.Option(
            "--routing", help="Tokens per expert of an image: the first of --input, or a random one."
        ),
    ] = False,
    samples: Input = None,
    task: Task = 0,
    mean: Mean = None,
    std: Std = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Show op by op: shapes, scales, work, and which ONNX nodes became which integer op."""
    at_least_one("--batch", batch)
    if program and routed:
        raise InputError("--program and --routing: expected one of them.")
    if batch != 1 and path.is_dir():
        raise InputError(f"--batch: {path} is compiled already; give its ONNX model, or leave it out.")
    if routed:
        return routing(path, samples, task, mean, std)
    for name, value in (("--input", samples), ("--task", task), ("--mean", mean), ("--std", std)):
        if value:
            raise InputError(f"{name}: only --routing looks at an image; give both, or leave it out.")
    if program:
        return _listing(path)
    from intaglio.inspection import summarize

    summary = summarize(_program(path, batch))
    return Result(summary.as_json(), [_table(summary), total(summary)])


def _listing(path: Path) -> Result:
    from intaglio import artifact
    from intaglio.backends import fpga
    from intaglio.backends.fpga import MAP, PROGRAM
    from intaglio.backends.fpga.listing import Spilling, listing

    if not path.is_dir():
        raise InputError(f"--program: {path} is no output folder of intaglio compile for an FPGA target.")
    compiled = artifact.load(path)
    try:
        lines = listing(compiled.file(PROGRAM).read_bytes(), compiled.file(MAP).read_text())
    except ValueError as error:
        raise ArtifactError(f"{path / PROGRAM}: {error}") from error
    columns = {"": "right", "descriptor": "left", "waits for": "left", "fields": "left", "for": "left"}
    rows = [(line.index, line.descriptor.kind, line.waits, line.fields, line.comment) for line in lines]
    loaded = fpga.load(compiled)
    spilling = Spilling.of(loaded.program, loaded.config)
    notes = [f"spilled: {spilling}"] if spilling.area else []
    values = {"program": [line.as_json() for line in lines], "spilling": spilling.as_json()}
    return Result(values, [table("", columns, rows), *notes])


def _program(path: Path, batch: int) -> Program:
    if path.is_dir():
        from intaglio import artifact

        return artifact.load(path).program
    with steps("inspect") as progress:
        from intaglio.compiler import Options, to_program

        return to_program(path, Options(batch=batch), progress=progress)


def _table(summary: Summary) -> Table:
    columns = {"op": "left", "result": "left", "scale": "right", "MAC": "right", "constants": "right"}
    return table("", columns | {"ONNX nodes": "left"}, [_row(entry) for entry in summary.ops])


def _row(entry: OpSummary) -> tuple[object, ...]:
    return (
        entry.op,
        entry.output,
        "" if entry.scale is None else f"{entry.scale:.4g}",
        count(entry.macs) if entry.macs else "",
        f"{count(entry.weight_bytes)}B" if entry.weight_bytes else "",
        ", ".join(_computing(entry.onnx_nodes)),
    )


def _computing(nodes: list[str]) -> list[str]:
    """The nodes without the quantizers around them, unless there is nothing else (`--json` lists them all)."""
    return [
        node for node in nodes if "QuantizeLinear" not in node and "DequantizeLinear" not in node
    ] or nodes[:1]
