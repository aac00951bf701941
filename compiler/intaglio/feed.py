"""A caller's samples as a compiled model takes them, and its results as real values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intaglio.data.inputs import Samples
from intaglio.data.preprocess import Normalization
from intaglio.errors import InputError
from intaglio.program import Array, Program, Tensor

if TYPE_CHECKING:
    from intaglio.artifact import Artifact


def normalization(
    artifact: Artifact, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Normalization | None:
    """How pixels come onto the model's scale: as given, else as compiled; `None` where neither says so.

    Raises InputError if it is given to a model that normalizes pixels itself, or only half of it is.
    """
    given = given_normalization(mean, std)
    spec = artifact.manifest.input
    if given is not None and spec.kind == "uint8":
        raise InputError(
            f"--mean and --std: {artifact.path} normalizes raw pixels itself; leave them out, or compile it again."
        )
    if given is not None:
        return given
    if spec.mean is None and spec.std is None:
        return None
    return Normalization(tuple(spec.mean or (0.0,)), tuple(spec.std or (1.0,)))


def given_normalization(mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalization | None:
    """The normalization of a user's `--mean` and `--std`. Raises InputError if only one is given."""
    if (mean is None) != (std is None):
        raise InputError("--mean and --std: expected both or neither.")
    return None if mean is None or std is None else Normalization(tuple(mean), tuple(std))


def real_values(samples: Samples, how: Normalization | None) -> NDArray[np.float32]:
    """The samples on the scale that the model was trained on. Raises InputError for pixels without `how`."""
    if not samples.are_pixels:
        return samples.values
    if how is None:
        raise InputError(
            "raw pixels need a normalization: give --mean and --std (0 and 1 for pixel / 255), "
            "or compile the model with --input uint8."
        )
    return how.apply(samples.values)


def integers(program: Program, samples: Samples, how: Normalization | None) -> Array:
    """The samples as `program` takes them: raw pixels, or integers on its input's grid. Raises InputError."""
    if program.tensors[program.input].dtype == "uint8":
        return quantize(program, samples.values)
    return quantize(program, real_values(samples, how))


def quantize(program: Program, images: Array) -> Array:
    """Bring a caller's samples to the program's input type: real values onto its grid, uint8 pixels as they are.

    Raises InputError where pixels meet a model of real values, or real values a model of pixels.
    """
    tensor = program.tensors[program.input]
    if tensor.dtype == "uint8":
        if images.dtype != np.uint8:
            raise InputError(
                f"this model takes raw pixels (uint8), not {images.dtype}; it normalizes them itself."
            )
        return images
    if images.dtype.kind != "f":
        raise InputError(f"this model takes real values (normalized pixels), not {images.dtype}.")
    assert tensor.scale is not None, "an input of real values has a grid"
    # ONNX Runtime quantizes in float32: dividing in another precision moves values that lie on a boundary.
    scaled = np.rint(images.astype(np.float32) / np.float32(tensor.scale)) + tensor.zero_point
    limits = np.iinfo(tensor.dtype)
    return np.clip(scaled, limits.min, limits.max).astype(tensor.dtype)


def dequantize(program: Program, y: Array) -> NDArray[np.float64]:
    """Real values of a program's result; indices (of arg-max or top-k) as they are."""
    return dequantize_tensor(program.tensors[program.output], y)


def dequantize_tensor(tensor: Tensor, y: Array) -> NDArray[np.float64]:
    """Real values of a tensor of a program."""
    values: NDArray[np.float64] = y.astype(np.float64)
    return values if tensor.scale is None else (values - tensor.zero_point) * tensor.scale
