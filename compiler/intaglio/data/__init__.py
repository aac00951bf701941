"""Reading what a user has: images, arrays, data sets; and bringing pixels onto a model's scale."""

from __future__ import annotations

from intaglio.data.datasets import Dataset, fashion_mnist
from intaglio.data.inputs import Samples, load_samples
from intaglio.data.labels import load_labels
from intaglio.data.preprocess import Normalization, parse_channels

__all__ = [
    "Dataset",
    "Normalization",
    "Samples",
    "fashion_mnist",
    "load_labels",
    "load_samples",
    "parse_channels",
]
