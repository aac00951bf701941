"""One run of a model in ONNX Runtime, every node as it is written."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from intaglio.errors import ModelError
from intaglio.quantize.images import model_input, task_feeds


def open_session(model: str | bytes, *, optimized: bool = False) -> onnxruntime.InferenceSession:
    """A session for the model of that path or content, every node computed as it is written unless `optimized`."""
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def opens_optimized(model: onnx.ModelProto) -> bool:
    """Whether a default session takes `model`: at opset 21 its rewriting of s8 activations makes invalid nodes."""
    try:
        open_session(model.SerializeToString(), optimized=True)
    except Exception:  # ONNX Runtime's exceptions have no common base but Exception
        return False
    return True


def run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """First output for one batch of images; of several tasks, all of them, joined along the last axis.

    Raises ModelError if ONNX Runtime cannot run `model`.
    """
    try:
        session = open_session(model.SerializeToString())
        name = model_input(model).name
        results = [session.run(None, {name: images, **task})[0] for task in task_feeds(model)]
        result = np.concatenate(results, axis=-1)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"ONNX Runtime cannot run the model: {first}") from error
    return np.asarray(result, np.float64)
