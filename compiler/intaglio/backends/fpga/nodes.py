"""Descriptors on their way: fields, what they read and write, and which loads they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME
from intaglio.backends.fpga.graph import Ints


@dataclass(frozen=True)
class Access:
    """Cells of one memory that a descriptor reads or writes.

    `cells`: [n, m], row i belongs to substep i (row tile; of ATTENTION: head times row tiles plus row tile), or [1, m]
    for the whole descriptor: needed from its first substep to its last.
    """

    space: str
    write: bool
    cells: Ints


@dataclass(eq=False)
class Node:
    """One descriptor to be: `comment` for people, `step`: the program's step.

    `substeps`: what its unit counts for it; `heads`: of an attention, and `copies` that each of them waits for; `head`:
    whose keys or values a copy is of; `earliest`: of a load, how many nodes that are no loads must precede it.
    """

    kind: str
    fields: dict[str, int]
    step: str
    comment: str
    accesses: list[Access]
    substeps: int = 1
    heads: int = 1
    copies: int = 2
    head: int = 0
    waits: dict[str, tuple[int, int]] = field(default_factory=dict)
    loads: list[Node] = field(default_factory=list)
    earliest: int = 0

    @property
    def unit(self) -> str:
        return BY_NAME[self.kind].unit


OUTPUT_BLOCK = 64
"""Bytes of external memory that count as one cell."""


def spaces(config: AcceleratorConfig, output: int = 0) -> Mapping[str, int]:
    """Memories whose cells the program manages, and their sizes; `routing`: all that a ROUTE leaves.

    `output`: how many blocks of external memory it writes and reads again.
    """
    return {
        "A": config.a_words,
        "X": config.x_words,
        "weights": config.weight_entries,
        "params": config.param_groups,
        "norm": config.norm_channels,
        "activation": config.table_slots,
        "exponential": config.table_slots,
        "pixel": 4,
        "router": 2,
        "routing": 1,
        "output": output,
    }


def block(space: str, write: bool, start: int, count: int) -> Access:
    """`count` cells from `start`, for the whole descriptor."""
    return Access(space, write, np.arange(start, start + count)[None])


def tiled(space: str, write: bool, start: int, stride: int, tiles: int, width: int) -> Access:
    """`width` cells per row tile."""
    return Access(space, write, start + np.arange(tiles)[:, None] * stride + np.arange(width))
