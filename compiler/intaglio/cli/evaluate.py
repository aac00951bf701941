"""`intaglio evaluate`: accuracy, side by side with ONNX Runtime and the float model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from intaglio.cli.command import Result, command
from intaglio.cli.options import Artifact, Debug, Device, Json, Onnx, Task, Threads, at_least_one
from intaglio.cli.progress import bars
from intaglio.cli.tables import percent, table
from intaglio.errors import InputError

if TYPE_CHECKING:
    from intaglio.evaluate import EvaluateReport

DATASETS = ("fashion-mnist", "fashion-mnist-groups")


@command
def evaluate(
    folder: Artifact,
    dataset: Annotated[
        str, typer.Option(help="Labelled images: fashion-mnist, fashion-mnist-groups.")
    ] = "fashion-mnist",
    count: Annotated[
        int | None, typer.Option(help="The first images only (default: all there are).", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Folder of the data set's files.", show_default=False)
    ] = None,
    device: Annotated[
        Device | None, typer.Option(help="Execution (default: the fastest there is).", show_default=False)
    ] = None,
    threads: Threads = None,
    task: Task = 0,
    model: Onnx = None,
    float_model: Annotated[
        Path | None,
        typer.Option(
            "--float", help="The float model (default: *_float.onnx beside the source).", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> Result:
    """Measure top-1 accuracy of the compiled model, its source and the float model.

    Fashion-MNIST: 10,000 images with the Debian package dataset-fashion-mnist, the 1,000 that ship without it. The
    groups of fashion-mnist-groups: tops, trousers, dress, footwear, bag.
    """
    if dataset not in DATASETS:
        raise InputError(f"--dataset: expected {' or '.join(DATASETS)}, not {dataset!r}.")
    at_least_one("--count", count)
    at_least_one("--threads", threads)
    from intaglio import artifact, feed
    from intaglio import evaluate as library
    from intaglio.data import fashion_mnist
    from intaglio.data.datasets import FASHION_MNIST_GROUPS, FASHION_MNIST_NORMALIZATION

    images = fashion_mnist(data).first(count)
    if dataset == "fashion-mnist-groups":
        images = images.grouped(FASHION_MNIST_GROUPS)
    compiled = artifact.load(folder)
    how = feed.normalization(compiled) or FASHION_MNIST_NORMALIZATION
    with bars(len(images.images)) as progress:
        report = library.evaluate(
            compiled,
            images,
            how=how,
            device=device,
            threads=threads,
            task=task,
            model_path=model,
            float_path=float_model,
            progress=progress,
        )
    return Result(report.as_json(), [_table(report), f"{report.count} images: {report.source}"])


def _table(report: EvaluateReport) -> Table:
    rows = [
        (f"integers only ({report.device})", percent(report.top1), ""),
        (
            "ONNX Runtime, as written" if report.as_written else "ONNX Runtime, int8",
            percent(report.top1_onnxruntime),
            _difference(report.top1, report.top1_onnxruntime),
        ),
        ("float", percent(report.top1_float), _difference(report.top1, report.top1_float)),
    ]
    return table("", {"model": "left", "top-1": "right", "integers only, by comparison": "right"}, rows)


def _difference(ours: float, theirs: float | None) -> str:
    return "" if theirs is None else f"{100 * (ours - theirs):+.2f} points"
