"""What the units share while a program runs, and a program's steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.hw.iss.layout import ceil_div
from intaglio.hw.iss.memory import Memories

TILED = ("GEMM", "COMBINE", "LAYERNORM")
"""Kinds that work row tile by row tile (a GEMM with `queue`: in one step)."""


@dataclass
class Machine:
    """One run: memories inside, external memory outside.

    `cache`: what a descriptor unpacks from weights.bin, by descriptor; it outlives the run. `task`: the register TASK.
    """

    config: AcceleratorConfig
    memories: Memories
    weights: bytes | bytearray
    image: bytes
    cache: dict[tuple[int, str], Any] = field(default_factory=dict)
    task: int = 0

    def cached(self, index: int, what: str, make: Callable[[], Any]) -> Any:
        """`make()`, once per descriptor and `what`; sound for what depends on descriptor and weights.bin only."""
        key = (index, what)
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def rows(self, d: Descriptor) -> int:
        """Rows of a descriptor: of one with `queue`, how many tokens chose the expert."""
        if not d["queue"]:
            return d["rows"]
        return int(self.memories.lengths.read((np.array([d["queue"] - 1]),))[0])

    def skips(self, d: Descriptor) -> bool:
        """Whether the descriptor has nothing to do: no token chose its expert."""
        return bool(d["queue"]) and self.rows(d) == 0


def row_tiles(config: AcceleratorConfig, d: Descriptor) -> int:
    """Row tiles of a descriptor that works by row tiles, else 1."""
    if d.kind == "LOAD_IMAGE":
        return ceil_div(d["grid_h"] * d["grid_w"], config.rows)
    return ceil_div(d["rows"], config.rows) if d.kind in (*TILED, "ATTENTION") else 1


def step_count(config: AcceleratorConfig, d: Descriptor) -> int:
    """By how much the descriptor advances its unit's progress counter."""
    if d["queue"]:
        return 1
    return row_tiles(config, d) * (d["heads"] if d.kind == "ATTENTION" else 1)


def wait_index(config: AcceleratorConfig, d: Descriptor, step: int) -> int:
    """The i of ``base + step * i`` for a step: row tile (GEMM, COMBINE, LAYERNORM), head (ATTENTION), else 0."""
    if d.kind == "ATTENTION":
        return step // row_tiles(config, d)
    return step if d.kind in TILED else 0
