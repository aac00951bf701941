"""The ONNX model in ONNX Runtime: what compiled models are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ArtifactError, InputError, ModelError

if TYPE_CHECKING:
    from onnx import ModelProto

    from intaglio.artifact import Artifact

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}

_OFFSETS = {"tensor(int8)": 0, "tensor(uint8)": 128, "tensor(int16)": 0, "tensor(uint16)": 32768}
"""Types of integers on a grid, and what brings each to the signed type that a compiled model returns."""

_CHUNK = 50
"""Samples per call where the model leaves its batch open."""


def source_model(artifact: Artifact, path: Path | None = None) -> Path:
    """The ONNX model that `artifact` was compiled from: at `path`, or where it was then.

    Raises ArtifactError if it is not there or is not the same file.
    """
    from intaglio.artifact import file_sha256

    source = artifact.manifest.source
    place = path if path is not None else Path(source.file)
    if not place.is_file():
        raise ArtifactError(
            f"{place}: the source model of {artifact.path} is not there; name it with --model."
        )
    if file_sha256(place) != source.sha256:
        raise ArtifactError(
            f"{place}: is not the model that {artifact.path} was compiled from (another SHA-256); "
            "compile it again, or name the right one with --model."
        )
    return place


def float_sibling(source: Path) -> Path | None:
    """The float model beside a quantized one: for `vit_qdq.onnx`, `vit_qdq_float.onnx` or `vit_float.onnx`."""
    parts = source.stem.split("_")
    names = ["_".join([*parts[:length], "float"]) + ".onnx" for length in range(len(parts), 0, -1)]
    return next((source.with_name(name) for name in names if source.with_name(name).is_file()), None)


def input_shape(path: Path) -> list[int]:
    """The shape of one sample (without batch) that the model at `path` takes. Raises ModelError."""
    from intaglio.frontend.load import load

    graph = load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    value = next((value for value in graph.input if value.name not in constants), None)
    dimensions = [] if value is None else list(value.type.tensor_type.shape.dim)[1:]
    if not dimensions or not all(dimension.HasField("dim_value") for dimension in dimensions):
        raise ModelError(f"{path}: expected an input whose dimensions but the first are fixed.")
    return [dimension.dim_value for dimension in dimensions]


class Oracle:
    """One ONNX model with one input, perhaps a task beside it, and one output."""

    def __init__(
        self,
        path: Path,
        *,
        as_written: bool,
        threads: int = 1,
        task: int = 0,
        model: ModelProto | None = None,
    ) -> None:
        """`task`: what a second input, of integers, gets. `as_written`: compute every node as the graph says, instead
        of fusing Q/DQ pairs into int8 kernels. `model`: what to run instead of the file (a part of it, say).

        ONNX Runtime's fused u8 x s8 kernels saturate their 16-bit sums on processors without VNNI. Raises ModelError
        if it cannot load the model.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if as_written:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        given = str(path) if model is None else model.SerializeToString()
        try:
            self._session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base but Exception
            raise ModelError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}.") from error
        self._path = path
        inputs = self._session.get_inputs()
        self._input = next((value for value in inputs if value.type in _TYPES), inputs[0])
        others = [value for value in inputs if value.name != self._input.name]
        self._others = {value.name: _task(path, value, task) for value in others}

    @property
    def batch(self) -> int | None:
        """The batch that the model is bound to, `None` if it is open."""
        size = self._input.shape[0] if self._input.shape else None
        return size if isinstance(size, int) else None

    @property
    def offset(self) -> int | None:
        """What its results are above a compiled model's, where it ends in QuantizeLinear; `None` for real values."""
        return _OFFSETS.get(self._session.get_outputs()[0].type)

    def run(
        self, x: NDArray[np.float32], done: Callable[[int], None] = lambda _: None
    ) -> NDArray[np.float64]:
        """Results float64 [N, ...] of real-valued samples [N, ...]. `done` is told how many were added.

        Raises InputError if they do not fit the model.
        """
        results = []
        size = self.batch or _CHUNK
        for start in range(0, len(x), size):
            part = x[start : start + size]
            results.append(self._call(_fill(part, self.batch))[: len(part)])
            done(len(part))
        return np.concatenate(results)

    def _call(self, x: NDArray[Any]) -> NDArray[np.float64]:
        dtype = _TYPES.get(self._input.type)
        if dtype is None:
            raise InputError(f"{self._path}: expected an input of real values, not {self._input.type}.")
        try:
            result = self._session.run(None, {self._input.name: x.astype(dtype)} | self._others)[0]
        except Exception as error:
            raise InputError(f"{self._path}: ONNX Runtime cannot run it: {_first_line(error)}.") from error
        return np.asarray(result, np.float64)


def _task(path: Path, value: Any, task: int) -> NDArray[Any]:
    """The task as the model's second input takes it."""
    dtype = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}.get(value.type)
    if dtype is None or math.prod(size if isinstance(size, int) else 0 for size in value.shape) != 1:
        raise InputError(
            f"{path}: expected a task (one int32 or int64) beside the image, "
            f"not {value.name!r}, {value.type} {value.shape}."
        )
    return np.full(value.shape, task, dtype)


def _fill(part: NDArray[Any], batch: int | None) -> NDArray[Any]:
    missing = (batch or len(part)) - len(part)
    return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
