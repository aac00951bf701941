"""Which progress each descriptor must wait for, from what it reads and writes and what came before it."""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS
from intaglio.backends.fpga.graph import Ints
from intaglio.backends.fpga.nodes import Access, Node, spaces

TILED = ("GEMM", "COMBINE", "LAYERNORM")
"""Kinds that wait row tile by row tile."""


class Tracker:
    """Per memory, unit and cell: that unit's progress at which its last write, and its last read, is over.

    `known[u][n]`: progress of all units that is certain when unit u's is n; `started[u]`: when its last substep starts.
    """

    def __init__(self, config: AcceleratorConfig, output: int = 0) -> None:
        shapes = spaces(config, output)
        self.written = {name: np.zeros((len(UNITS), size), np.int64) for name, size in shapes.items()}
        self.read = {name: np.zeros((len(UNITS), size), np.int64) for name, size in shapes.items()}
        self.progress = np.zeros(len(UNITS), np.int64)
        self.known = [np.zeros((1, len(UNITS)), np.int64) for _ in UNITS]
        self.started = np.zeros((len(UNITS), len(UNITS)), np.int64)

    def issue(self, node: Node) -> None:
        """Set the waits of the next descriptor in program order, and count it."""
        own = UNITS.index(node.unit)
        needed = self.needed(node)
        self._drop_implied(needed, own)
        for unit, name in enumerate(UNITS):
            wait = fit(needed[unit], int(self.progress[unit]))
            if wait != (0, 0) and name not in node.waits:
                node.waits[name] = wait
        self._learn(node, own, needed.shape[1])
        self.record(node)

    def _drop_implied(self, needed: Ints, own: int) -> None:
        """Clear what the unit's earlier waits, or waits for other units, make certain anyway."""
        for unit in np.flatnonzero(needed.any(axis=1)):
            others = needed.copy()
            others[unit] = 0
            implied = np.maximum(self._certain(others), self.started[own])
            needed[unit][needed[unit] <= implied[:, unit]] = 0

    def _certain(self, waited: Ints) -> Ints:
        """What is certain [points, units] after waiting for progress `waited` [units, points]."""
        certain = np.zeros(waited.shape[::-1], np.int64)
        for unit in np.flatnonzero(waited.any(axis=1)):
            np.maximum(certain, self.known[unit][waited[unit]], out=certain)
        return np.asarray(np.maximum.accumulate(certain, axis=0))

    def _learn(self, node: Node, own: int, points: int) -> None:
        """What the waits of a descriptor make certain when it is done; waits for later ones add nothing."""
        waited = np.zeros((len(UNITS), points), np.int64)
        for name, (base, step) in node.waits.items():
            unit = UNITS.index(name)
            waited[unit] = np.minimum(base + step * np.arange(points), self.progress[unit])
        certain = np.maximum(self._certain(waited), self.started[own])
        self.started[own] = certain[-1]
        ends = np.maximum(np.repeat(certain, node.substeps // points, axis=0), self.known[own][-1])
        ends[:, own] = self.progress[own] + 1 + np.arange(node.substeps)
        self.known[own] = np.concatenate([self.known[own], ends])

    def needed(self, node: Node) -> Ints:
        """Progress [units, substeps that may wait] that must be reached first."""
        tiles = node.substeps // node.heads
        points = node.heads if node.kind == "ATTENTION" else tiles if node.kind in TILED else 1
        needed = np.zeros((len(UNITS), points), np.int64)
        own = UNITS.index(node.unit)
        for access in node.accesses:
            found = self._hazards(access, own)
            if len(access.cells) == 1:
                needed[:, 0] = np.maximum(needed[:, 0], found[:, 0])
            else:
                needed = np.maximum(needed, found.reshape(len(UNITS), points, -1).max(axis=2))
        return needed

    def _hazards(self, access: Access, own: int) -> Ints:
        """Progress [units, substeps] for one access.

        A unit's own writes follow its earlier reads and writes; its reads may be issued before earlier writes are done.
        """
        result = self.written[access.space][:, access.cells].max(axis=2)
        if access.write:
            result = np.maximum(result, self.read[access.space][:, access.cells].max(axis=2))
        if access.write:
            result[own] = 0
        return result

    def record(self, node: Node) -> None:
        """Count a descriptor, and note when its accesses are over."""
        own = UNITS.index(node.unit)
        start = self.progress[own]
        for access in node.accesses:
            memory = (self.written if access.write else self.read)[access.space]
            done = (
                start + node.substeps if len(access.cells) == 1 else start + 1 + np.arange(len(access.cells))
            )
            memory[own, access.cells] = np.reshape(done, (-1, 1))
        self.progress[own] += node.substeps


def fit(needed: Ints, available: int) -> tuple[int, int]:
    """(base, step) with base + step * i >= needed[i], the least that earlier descriptors will reach."""
    most = int(needed.max())
    if most == 0:
        return 0, 0
    step = max(1, int(needed[-1] - needed[0]) // max(len(needed) - 1, 1)) if len(needed) > 1 else 0
    for candidate in sorted({step, 1}, reverse=True):
        base = max(int((needed - candidate * np.arange(len(needed))).max()), 0)
        last = base + candidate * (len(needed) - 1)
        if len(needed) > 1 and candidate < 256 and last <= available and base < most:
            return base, candidate
    return most, 0
