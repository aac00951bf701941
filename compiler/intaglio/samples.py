"""Made-up inputs for a model: image-like ones, and ones that reach the ends of its grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intaglio.program import Array, Tensor


def image_like(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pixels [..., H, W] whose spectrum falls with frequency as that of natural images does.

    Amplitude proportional to 1/f (Field, "Relations between the statistics of natural images and the response
    properties of cortical cells", 1987); per plane, mean 128 and standard deviation 64 before clipping.
    """
    height, width = shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) / frequency
    planes = np.fft.irfft2(spectrum, s=(height, width))
    deviation = planes.std(axis=(-2, -1), keepdims=True)
    return np.clip(np.rint(128 + 64 * planes / np.maximum(deviation, 1e-12)), 0, 255).astype(np.uint8)


def random_inputs(tensor: Tensor, count: int, seed: int = 0) -> Array:
    """`count` samples of a program's input `tensor`, of its integer type: image-like where it has rows and columns."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(tensor.dtype)
    shape = (count, *tensor.shape[1:])
    if len(shape) < 4 or min(shape[-2:]) < 2:
        return rng.integers(limits.min, limits.max, shape, tensor.dtype, endpoint=True)
    pixels = image_like(shape, rng).astype(np.int64)
    return (limits.min + pixels * (int(limits.max) - int(limits.min)) // 255).astype(tensor.dtype)


def extreme_inputs(tensor: Tensor, seed: int = 1) -> Array:
    """Four samples: all lowest, all highest, the two at random, and uniform noise."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(tensor.dtype)
    shape = tuple(tensor.shape[1:])
    ends = np.array([limits.min, limits.max], tensor.dtype)
    return np.stack(
        [
            np.full(shape, limits.min, tensor.dtype),
            np.full(shape, limits.max, tensor.dtype),
            ends[rng.integers(0, 2, shape)],
            rng.integers(limits.min, limits.max, shape, tensor.dtype, endpoint=True),
        ]
    )
