"""`intaglio run`: classify with a compiled model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from intaglio.cli.command import Result, command
from intaglio.cli.options import Artifact, Debug, Device, Json, Mean, Std, Task, Threads, at_least_one
from intaglio.cli.progress import steps
from intaglio.cli.tables import table
from intaglio.errors import InputError


@command
def run(
    folder: Artifact,
    samples: Annotated[
        Path,
        typer.Option("--input", "-i", help="Array (.npy), image, or folder of images.", show_default=False),
    ],
    device: Annotated[
        Device | None, typer.Option(help="Execution (default: the fastest there is).", show_default=False)
    ] = None,
    threads: Threads = None,
    task: Task = 0,
    labels: Annotated[
        Path | None, typer.Option(help="Names of the classes, one per line.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(help="Classes to show per sample.")] = 3,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the results (.npy).", show_default=False)
    ] = None,
    mean: Mean = None,
    std: Std = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Run a compiled model on images or arrays."""
    at_least_one("--threads", threads)
    at_least_one("--top", top)
    if output is not None and output.suffix != ".npy":
        raise InputError(f"--output: expected the name of a .npy file, not {str(output)!r}.")
    import numpy as np

    from intaglio import artifact, feed
    from intaglio.classes import top_classes
    from intaglio.data import load_labels, load_samples, parse_channels
    from intaglio.execute import Executor

    compiled = artifact.load(folder)
    compiled.program.check_task(task)
    spec = compiled.manifest.output
    names = None if labels is None else load_labels(labels, spec.shape[-1])
    given = load_samples(samples, compiled.manifest.input.shape[1:])
    how = feed.normalization(compiled, parse_channels("--mean", mean), parse_channels("--std", std))
    with steps("run") as progress, Executor(compiled, device, threads) as executor:
        progress(f"{len(given)} samples on {executor.device}")
        integers = executor.run(feed.integers(compiled.program, given, how), task)
    results = feed.dequantize(compiled.program, integers)
    if output is not None:
        np.save(output, results)
    ranked = top_classes(results, top, names, indices=spec.scale is None)
    found = [{"input": name, "top": classes} for name, classes in zip(given.names, ranked, strict=True)]
    return _result(executor.device, found, list(results.shape), output)


def _result(device: str, found: list[dict[str, Any]], shape: list[int], output: Path | None) -> Result:
    values = {"device": device, "count": len(found), "shape": shape, "results": found}
    rows = [(entry["input"], "   ".join(map(_class, entry["top"]))) for entry in found]
    note = "" if output is None else f"\nresults {shape} are in {output}"
    caption = f"{len(found)} samples on {device}{note}"
    return Result(values, [table("", {"input": "left", "top classes": "left"}, rows), caption])


def _class(entry: dict[str, Any]) -> str:
    score = "" if entry["logit"] is None else f" ({entry['logit']:.2f})"
    return f"{entry['label'] or entry['class']}{score}"
