"""`intaglio compile`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intaglio.cli.command import Result, command
from intaglio.cli.options import Config, Debug, InputKind, Json, Mean, Nonlinear, Std, at_least_one
from intaglio.cli.progress import steps
from intaglio.cli.tables import facts, total

if TYPE_CHECKING:
    from intaglio.artifact import Artifact
    from intaglio.target import Target


@command
def compile_(
    model: Annotated[Path, typer.Argument(help="Quantized model (.onnx).", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Output folder.", show_default=False)
    ],
    target: Annotated[
        str, typer.Option("--target", "-t", help="A name of `intaglio targets`, or a .toml file.")
    ] = "cpu",
    config: Config = None,
    batch: Annotated[int, typer.Option(help="Images per call; binds a symbolic batch dimension.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads that the library starts with.")] = 1,
    input_kind: Annotated[
        InputKind, typer.Option("--input", help="What the compiled model takes: real values, or raw pixels.")
    ] = InputKind.float,
    mean: Mean = None,
    std: Std = None,
    nonlinear: Annotated[Nonlinear, typer.Option(help="Set of non-linear integer ops.")] = Nonlinear.exact,
    dump_ir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the module after each pass.", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Compile MODEL to integer-only code."""
    from intaglio import feed
    from intaglio import target as targets
    from intaglio.data import parse_channels

    chosen = targets.configured(targets.find(target), config)
    at_least_one("--batch", batch)
    at_least_one("--threads", threads)
    means, stds = parse_channels("--mean", mean), parse_channels("--std", std)
    feed.given_normalization(means, stds)
    with steps("compile") as progress:
        from intaglio.compiler import compile_model

        artifact = compile_model(
            model,
            target=chosen,
            out=output,
            batch=batch,
            threads=threads,
            input_kind=input_kind.value,
            mean=means,
            std=stds,
            nonlinear=nonlinear.value,
            dump_ir=dump_ir,
            progress=progress,
        )
    return _result(artifact, chosen, output)


def _result(artifact: Artifact, target: Target, output: Path) -> Result:
    from intaglio.inspection import summarize

    summary = summarize(artifact.program)
    program = artifact.program
    values: dict[str, Any] = {
        "output": str(output),
        "target": target.name,
        "input": {
            "dtype": program.tensors[program.input].dtype,
            "shape": list(program.tensors[program.input].shape),
        },
        "result": {
            "dtype": program.tensors[program.output].dtype,
            "shape": list(program.tensors[program.output].shape),
        },
        "ops": len(summary.ops),
        "macs": summary.macs,
        "float_ops": summary.float_ops,
    }
    shown: dict[str, Any] = {"compiled": output, "target": target.name, "work": total(summary)}
    if target.kind == "fpga":
        shown |= _spilling(artifact, values)
    return Result(values, [facts(shown)])


def _spilling(artifact: Artifact, values: dict[str, Any]) -> dict[str, str]:
    """Add to `values` what an accelerator's program spills; a line if there is anything."""
    from intaglio.backends import fpga
    from intaglio.backends.fpga.listing import Spilling

    compiled = fpga.load(artifact)
    spilling = Spilling.of(compiled.program, compiled.config)
    values["spilling"] = spilling.as_json()
    return {"spilled": str(spilling)} if spilling.area else {}
