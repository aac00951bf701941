"""`intaglio report`: a page about a compiled accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intaglio.cli.command import Result, command
from intaglio.cli.files import writable, write_all
from intaglio.cli.options import Artifact, Bandwidth, Debug, Input, Json, Latency, Mean, Std, Task
from intaglio.cli.progress import steps
from intaglio.cli.routing import one_image
from intaglio.cli.tables import facts
from intaglio.errors import InputError

if TYPE_CHECKING:
    from intaglio.report import Facts


@command
def report(
    folder: Artifact,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The page (.html) to write.", show_default=False)
    ],
    simulation: Annotated[
        Path | None,
        typer.Option(help="What `intaglio simulate DIR --json` printed, to show beside.", show_default=False),
    ] = None,
    explore: Annotated[
        Path | None,
        typer.Option(help="What `intaglio explore --results` wrote, to draw.", show_default=False),
    ] = None,
    latency: Latency = None,
    bandwidth: Bandwidth = None,
    samples: Input = None,
    task: Task = 0,
    mean: Mean = None,
    std: Std = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Write a page about a compiled accelerator: op by op, roofline, timeline, memory, energy, resources.

    Beside it comes a trace of the timeline for Perfetto. `--input` and `--task` choose the image whose routing counts,
    for a model with mixtures of experts.
    """
    if output.suffix != ".html":
        raise InputError(f"--output: expected the name of a .html file, not {str(output)!r}.")
    trace = output.with_suffix(".trace.json")
    for path in (output, trace):
        writable("--output", path)
    from intaglio import artifact
    from intaglio.report import Question, collect, render, trace_text
    from intaglio.report import as_json as figures

    compiled = artifact.load(folder)
    compiled.program.check_task(task)
    inputs = one_image(compiled, samples, mean, std)
    what = "a random image" if samples is None else f"the first image of {samples.name}"
    question = Question(simulation, explore, inputs, what, task, latency, bandwidth)
    with steps("report") as progress:
        found = collect(compiled, question, progress)
        events = trace_text(found)
        page = render(found, None if events is None else trace.name)
    write_all({output: page} if events is None else {output: page, trace: events})
    paths = {"output": str(output), "trace": None if events is None else str(trace)}
    return Result({**paths, **figures(found)}, [facts(_summary(found, paths)), *found.missing])


def _summary(found: Facts, paths: dict[str, str | None]) -> dict[str, str]:
    from intaglio.report.sentences import digits

    rows = {"page": paths["output"], "trace": paths["trace"], "ops": f"{len(found.ops)}"}
    if found.timing:
        ms = found.latency_ms(found.timing)
        rows["cycles"] = f"{found.timing.cycles:,} ({found.timing.source}), {ms:.3f} ms"
    if energy := found.energy:
        rows["energy"] = (
            f"{digits(energy.total)} mJ ({digits(energy.low)} to {digits(energy.high)}), modelled"
        )
    return {name: value for name, value in rows.items() if value is not None}
