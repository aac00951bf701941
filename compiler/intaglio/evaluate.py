"""Accuracy on a labelled data set: integers only, ONNX Runtime and the float model side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intaglio.data.datasets import Dataset
from intaglio.data.inputs import Samples
from intaglio.data.preprocess import Normalization
from intaglio.errors import InputError, ModelError
from intaglio.execute import Executor
from intaglio.feed import dequantize, integers
from intaglio.oracle import Oracle, float_sibling, source_model
from intaglio.program import Program

if TYPE_CHECKING:
    from intaglio.artifact import Artifact

Progress = Callable[[str, int], None]
Run = Callable[[NDArray[Any]], NDArray[np.float64]]

_CHUNK = 50


@dataclass(frozen=True)
class EvaluateReport:
    """Top-1 accuracies as shares of one; `None` for a model that was not found.

    `as_written`: ONNX Runtime's optimizer refuses the source, so that it computed every node as the graph says.
    """

    count: int
    source: str
    device: str
    top1: float
    top1_float: float | None
    top1_onnxruntime: float | None
    as_written: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "top1": self.top1,
            "top1_float": self.top1_float,
            "top1_onnxruntime": self.top1_onnxruntime,
        }


def evaluate(
    artifact: Artifact,
    dataset: Dataset,
    *,
    how: Normalization,
    device: str | None = None,
    threads: int | None = None,
    task: int = 0,
    model_path: Path | None = None,
    float_path: Path | None = None,
    progress: Progress = lambda _, __: None,
) -> EvaluateReport:
    """Classify `dataset` with the compiled model, its source in ONNX Runtime, and the float model.

    `how`: the normalization of pixels; `model_path`: the source model, if it was moved; `float_path`: the float model
    (default: a sibling of the source whose name ends in `_float.onnx`). `progress(model, images done)` is called as
    work goes on. Raises InputError where the images do not fit.
    """
    program = artifact.program
    program.check_task(task)
    _check_fit(program, dataset)
    source = source_model(artifact, model_path)
    float_model = float_path or float_sibling(source)
    with Executor(artifact, device, threads) as executor:
        top1 = _top1(
            dataset,
            lambda pixels: dequantize(program, executor.run(integers(program, Samples(pixels), how), task)),
            lambda done: progress("integers", done),
        )
        used = executor.device
    oracle, as_written = _source_oracle(source, task)
    return EvaluateReport(
        count=len(dataset.images),
        source=dataset.source,
        device=used,
        top1=top1,
        top1_float=None
        if float_model is None
        else _oracle_top1(Oracle(float_model, as_written=False, task=task), "float", dataset, how, progress),
        top1_onnxruntime=_oracle_top1(oracle, "ONNX Runtime", dataset, how, progress),
        as_written=as_written,
    )


def _check_fit(program: Program, dataset: Dataset) -> None:
    expected, actual = list(program.tensors[program.input].shape[1:]), list(dataset.images.shape[1:])
    if expected != actual:
        raise InputError(f"{dataset.name}: its images are {actual}, this model takes {expected}.")
    if program.tensors[program.output].scale is None:
        raise InputError(f"{dataset.name}: expected a model that ends in logits, not in class indices.")


def _source_oracle(source: Path, task: int) -> tuple[Oracle, bool]:
    """The source with the kernels that ONNX Runtime chooses, or as it is written where its optimizer fails."""
    try:
        return Oracle(source, as_written=False, task=task), False
    except ModelError:
        return Oracle(source, as_written=True, task=task), True


def _oracle_top1(
    oracle: Oracle, title: str, dataset: Dataset, how: Normalization, progress: Progress
) -> float:
    return _top1(dataset, lambda pixels: oracle.run(how.apply(pixels)), lambda done: progress(title, done))


def _top1(dataset: Dataset, run: Run, done: Callable[[int], None]) -> float:
    correct = 0
    total = len(dataset.images)
    for start in range(0, total, _CHUNK):
        part = slice(start, min(start + _CHUNK, total))
        classes = run(dataset.images[part]).argmax(axis=-1)
        correct += int((classes == dataset.labels[part]).sum())
        done(part.stop)
    return correct / total
