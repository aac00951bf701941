"""Buffers that are filled ahead of use: cyclic allocation in order of consumption, and when a place is free again."""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.nodes import spaces
from intaglio.backends.fpga.refusal import refusal
from intaglio.program import Step

KEYS = {
    "weights": "weight_entries",
    "params": "param_groups",
    "norm": "norm_channels",
    "activation": "table_slots",
    "exponential": "table_slots",
}


class Rings:
    """One ring per memory. `user[cell]`: 1 + the index of the node that used a cell last, 0 if none did.

    `held`: by first cell, how many cells hold what is known to come from which offset of weights.bin.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        sizes = spaces(config)
        self.user = {name: np.zeros(sizes[name], np.int64) for name in KEYS}
        self.next = dict.fromkeys(KEYS, 0)
        self.held: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in KEYS}

    def take(self, step: Step, name: str, count: int) -> tuple[int, int]:
        """First cell of `count` consecutive ones, and how many nodes must precede what fills them."""
        user = self.user[name]
        if count > len(user):
            raise refusal(
                step,
                f"it needs {count} of the configuration's {len(user)} {KEYS[name]}",
                f"raise {KEYS[name]} to at least {count}",
            )
        first = self.next[name] if self.next[name] + count <= len(user) else 0
        self.next[name] = first + count
        for other, (size, _) in list(self.held[name].items()):
            if other < first + count and first < other + size:
                del self.held[name][other]
        return first, int(user[first : first + count].max())

    def hold(self, name: str, first: int, count: int, offset: int) -> None:
        """Note what `count` cells hold."""
        self.held[name][first] = count, offset

    def find(self, name: str, count: int, offset: int) -> int | None:
        """Where `count` cells from this offset still are."""
        return next((first for first, found in self.held[name].items() if found == (count, offset)), None)

    def use(self, name: str, first: int, count: int, node: int) -> None:
        """Note that node number `node` uses these cells."""
        self.user[name][first : first + count] = node + 1
