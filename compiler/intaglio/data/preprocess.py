"""Raw pixels to the real values that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import InputError


@dataclass(frozen=True)
class Normalization:
    """``(pixel / 255 - mean) / std``, per channel or the same for all."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels uint8 [N, C, ...] to float32, rounded once from float64.

        Raises InputError if neither one value nor one per channel was given.
        """
        mean, std = self._per_channel("mean", self.mean, pixels), self._per_channel("std", self.std, pixels)
        return ((pixels / 255.0 - mean) / std).astype(np.float32)

    def _per_channel(self, name: str, values: Sequence[float], pixels: NDArray[Any]) -> NDArray[np.float64]:
        channels = pixels.shape[1]
        if len(values) not in (1, channels):
            raise InputError(
                f"--{name}: expected 1 or {channels} values (one per channel), not {len(values)}."
            )
        return np.asarray(values, np.float64).reshape(1, -1, *[1] * (pixels.ndim - 2))


def parse_channels(option: str, text: str | None) -> list[float] | None:
    """Numbers separated by commas, as `--mean` and `--std` take them.

    Raises InputError if one is not a finite number, or a standard deviation is not positive.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option}: expected numbers separated by commas, not {text!r}.") from None
    if not all(map(math.isfinite, values)):
        raise InputError(f"{option}: expected finite numbers, not {text!r}.")
    if option == "--std" and min(values) <= 0:
        raise InputError(f"{option}: expected positive numbers, not {text!r}.")
    return values
