"""Checks of what is given: the model's input, and images that fit it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from intaglio.errors import InputError, UnsupportedError
from intaglio.frontend.tasks import selector

Images = NDArray[np.float32]


def model_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The image input. Raises UnsupportedError if there is not exactly one input beside the number of a task."""
    constants = {tensor.name for tensor in model.graph.initializer}
    chosen = selector(model)
    inputs = [
        value
        for value in model.graph.input
        if value.name not in constants and (chosen is None or value.name != chosen.name)
    ]
    if len(inputs) != 1:
        raise UnsupportedError(
            f"the model has {len(inputs)} inputs; intaglio quantizes models with one image input: cut the graph to it"
        )
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type)
        raise UnsupportedError(
            f"input {inputs[0].name!r} is {name}; intaglio quantizes models with a float32 input"
        )
    return inputs[0]


def task_feeds(model: onnx.ModelProto) -> list[dict[str, NDArray[Any]]]:
    """What to feed for each task, beside the image; one empty feed for a model without tasks."""
    chosen = selector(model)
    if chosen is None:
        return [{}]
    kind = next(value for value in model.graph.input if value.name == chosen.name).type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return [{chosen.name: np.full([1] * len(kind.shape.dim), task, dtype)} for task in range(chosen.count)]


def batch_of(value: onnx.ValueInfoProto) -> int:
    """The batch an input is bound to, 1 where it is symbolic."""
    dims = value.type.tensor_type.shape.dim
    return int(dims[0].dim_value) if dims and dims[0].HasField("dim_value") else 1


def checked(images: NDArray[Any], value: onnx.ValueInfoProto) -> Images:
    """`images` if they fit the input `value`.

    Raises InputError if there are none, or they have another type or shape, are not finite, or are all one value.
    """
    wanted = [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
    if images.ndim == 0 or images.shape[0] == 0:
        raise InputError("there are no calibration images: give at least one, better 100 or more")
    if images.dtype != np.float32:
        raise InputError(
            f"calibration images must be float32, normalized as the model's input wants them, not {images.dtype}"
        )
    fits = images.ndim == len(wanted) and all(
        want in (None, got) for want, got in zip(wanted[1:], images.shape[1:], strict=True)
    )
    if not fits:
        shape = ["n", *("?" if size is None else size for size in wanted[1:])]
        raise InputError(
            f"calibration images of shape {list(images.shape)} do not fit the model's input {value.name!r}: "
            f"[{', '.join(map(str, shape))}]"
        )
    if not np.isfinite(images).all():
        raise InputError("calibration images hold NaN or infinity: every value must be a number")
    if images.min() == images.max():
        raise InputError(f"all calibration images hold one value only ({images.flat[0]}): give real images")
    return images
