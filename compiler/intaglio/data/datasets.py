"""Labelled data sets for `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intaglio.data.idx import read_idx
from intaglio.data.preprocess import Normalization
from intaglio.errors import InputError
from intaglio.resources import example_folder

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` installs its files."""

FASHION_MNIST_NORMALIZATION = Normalization((0.2860,), (0.3530,))
"""Mean and standard deviation of the training set's pixels."""

FASHION_MNIST_GROUPS = (0, 1, 0, 2, 0, 3, 0, 3, 4, 3)
"""The garment group of every class: tops, trousers, dress, footwear, bag."""

_SPLITS = ("t10k", "t1k")


@dataclass(frozen=True)
class Dataset:
    """Test images uint8 [N, 1, 28, 28] with their classes uint8 [N], and where they came from."""

    name: str
    source: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def first(self, count: int | None) -> Dataset:
        """The first `count` images. Raises InputError if there are fewer."""
        if count is not None and not 1 <= count <= len(self.images):
            raise InputError(
                f"--count: expected 1 to {len(self.images)} images of {self.source}, not {count}."
            )
        return Dataset(self.name, self.source, self.images[:count], self.labels[:count])

    def grouped(self, groups: tuple[int, ...]) -> Dataset:
        """The same images with the group of their class as label; `groups`: the group of every class."""
        labels = np.array(groups, np.uint8)[self.labels]
        return Dataset(f"{self.name}-groups", self.source, self.images, labels)


def fashion_mnist(folder: Path | None = None) -> Dataset:
    """Fashion-MNIST's test set (Xiao, Rasul and Vollgraf, 2017).

    From `folder` if given; else all 10,000 images of Debian's package if it is installed; else the 1,000 images that
    ship in `examples/fashion_mnist`. Raises InputError if there is none.
    """
    folders = [folder] if folder is not None else _default_folders()
    for place in folders:
        for split in _SPLITS:
            if (place / f"{split}-images-idx3-ubyte.gz").exists():
                return _read_split(place, split)
    looked = " or ".join(str(place) for place in folders)
    raise InputError(
        f"fashion-mnist: expected t10k-images-idx3-ubyte.gz in {looked}; install the Debian package "
        "dataset-fashion-mnist or name the folder with --data."
    )


def _default_folders() -> list[Path]:
    shipped = example_folder("fashion_mnist")
    return [FASHION_MNIST_FOLDER] + ([shipped] if shipped is not None else [])


def _read_split(folder: Path, split: str) -> Dataset:
    image_path = folder / f"{split}-images-idx3-ubyte.gz"
    images, labels = read_idx(image_path), read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise InputError(
            f"{image_path}: expected images [N, H, W] with one label each, "
            f"not {list(images.shape)} with labels {list(labels.shape)}."
        )
    return Dataset("fashion-mnist", f"{image_path.name} in {folder}", images[:, np.newaxis], labels)
