"""A user's `--input`: an array, an image or a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.data.images import image_files, load_images
from intaglio.data.npy import load_npy


@dataclass(frozen=True)
class Samples:
    """What was given, one row per sample: raw pixels (uint8) or real values (float), and a name for each row."""

    values: NDArray[Any]
    names: list[str] = field(default_factory=list)

    @property
    def are_pixels(self) -> bool:
        return self.values.dtype == np.uint8

    def __len__(self) -> int:
        return len(self.values)


def load_samples(path: Path, shape: Sequence[int], limit: int | None = None) -> Samples:
    """Read at most `limit` samples of `shape` (without the batch dimension) from `path`.

    uint8 arrays and images are raw pixels; any other array holds real values. Raises InputError.
    """
    if path.suffix.lower() in (".npy", ".npz"):
        array = load_npy(path, shape)[:limit]
        values = array if array.dtype == np.uint8 else array.astype(np.float32)
        return Samples(values, [f"{path.name}[{index}]" for index in range(len(values))])
    files = image_files(path)[:limit]
    return Samples(load_images(files, shape), [file.name for file in files])
