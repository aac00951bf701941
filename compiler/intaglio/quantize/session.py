"""One run of a model in ONNX Runtime, every node as it is written."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from intaglio.errors import ModelError


def open_session(model: str | bytes) -> onnxruntime.InferenceSession:
    """A session for the model of that path or content, which computes every node as it is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """First output for one batch of images. Raises ModelError if ONNX Runtime cannot run `model`."""
    try:
        session = open_session(model.SerializeToString())
        result = session.run(None, {session.get_inputs()[0].name: images})[0]
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"ONNX Runtime cannot run the model: {first}") from error
    return np.asarray(result, np.float64)
