"""What a quantization run added, for people and for `--json`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Added:
    """One tensor that was given a grid. A weight has one scale per channel: `scale` is then the largest of them."""

    tensor: str
    role: str
    dtype: str
    scale: float
    zero_point: int


@dataclass(frozen=True)
class QuantizeReport:
    """Result of one run.

    `added` in the order of the graph; `kept`: scales that the model had; `images`: calibration images that were read;
    `cosine`: similarity of the outputs of the written model and the given one, on calibration images, in ONNX Runtime
    (the least of them); `notes`: sentences about what deserves a look.
    """

    path: Path
    added: tuple[Added, ...]
    kept: int
    images: int
    cosine: float
    notes: tuple[str, ...] = ()

    @property
    def complete_before(self) -> bool:
        """Whether nothing was missing."""
        return not self.added

    @property
    def roles(self) -> dict[str, dict[str, int]]:
        """How many tensors of each role got which type."""
        table: dict[str, Counter[str]] = {}
        for entry in self.added:
            table.setdefault(entry.role, Counter())[entry.dtype] += 1
        return {role: dict(counter) for role, counter in table.items()}

    @property
    def summary(self) -> str:
        """One sentence."""
        if self.complete_before:
            return "nothing was missing: the model already has a scale for every tensor, and was copied"
        weights = sum(entry.role == "weight" for entry in self.added)
        activations = len(self.added) - weights
        return (
            f"scales added for {weights} weights and {activations} activations, {self.kept} kept; "
            f"{self.images} calibration images; least cosine to the given model {self.cosine:.4f}"
        )
