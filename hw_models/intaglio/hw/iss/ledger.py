"""Who last read and wrote every cell, counted in progress: what a step must wait for, and what races."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intaglio.accelerator.descriptors import UNITS
from intaglio.hw.iss.memory import Cells, Memories, Memory, locate

Counts = NDArray[np.int64]
"""One progress count per unit, in the order of UNITS."""
Access = tuple[Memory, Cells]


@dataclass(frozen=True)
class Conflict:
    """A cell that a step touches while unit `unit` may not yet have completed what its progress count `count` means."""

    unit: str
    count: int
    place: str
    read: bool
    """Whether the step reads it (`unit` writes it)."""


class Ledger:
    """Last reads and writes of every cell by every unit, as the count that `unit` has when the step is complete.

    A read must follow every write of its cell, also one of the same unit: units look ahead. A write must follow
    the reads and writes of other units; within a unit, steps read and write in order.
    """

    def __init__(self, memories: Memories) -> None:
        self.reads: dict[int, NDArray[np.int32]] = {}
        self.writes: dict[int, NDArray[np.int32]] = {}
        for _, memory in memories:
            self.reads[id(memory)] = np.zeros((*memory.valid.shape, len(UNITS)), np.int32)
            self.writes[id(memory)] = np.zeros((*memory.valid.shape, len(UNITS)), np.int32)

    def needed(self, unit: str, reads: Iterable[Access], writes: Iterable[Access]) -> Counts:
        """The progress that every unit must have made before a step of `unit` may start."""
        needed = np.zeros(len(UNITS), np.int64)
        for memory, cells in reads:
            needed = np.maximum(needed, _latest(self.writes, memory, cells))
        for memory, cells in writes:
            last = np.maximum(_latest(self.writes, memory, cells), _latest(self.reads, memory, cells))
            last[UNITS.index(unit)] = 0
            needed = np.maximum(needed, last)
        return needed

    def record(self, unit: str, count: int, reads: Iterable[Access], writes: Iterable[Access]) -> None:
        """Note a step of `unit`, whose completion makes its progress `count`."""
        number = UNITS.index(unit)
        for table, accesses in ((self.reads, reads), (self.writes, writes)):
            for memory, cells in accesses:
                if id(memory) in table:
                    table[id(memory)][..., number][cells] = count

    def conflict(
        self, unit: str, known: Counts, reads: Iterable[Access], writes: Iterable[Access]
    ) -> Conflict | None:
        """The first access that is not ordered by the progress `known` to the step, if any."""
        for memory, cells in reads:
            if found := self._unordered(self.writes, memory, cells, known, read=True):
                return found
        own = known.copy()
        own[UNITS.index(unit)] = np.iinfo(np.int64).max
        for memory, cells in writes:
            for table in (self.writes, self.reads):
                if found := self._unordered(table, memory, cells, own, read=False):
                    return found
        return None

    def _unordered(
        self, table: dict[int, NDArray[np.int32]], memory: Memory, cells: Cells, known: Counts, read: bool
    ) -> Conflict | None:
        if id(memory) not in table:
            return None
        late = table[id(memory)][cells] > known
        if not late.any():
            return None
        unit = int(np.argmax(late.reshape(-1, len(UNITS)).any(axis=0)))
        cell = locate(cells, late[..., unit])
        count = int(table[id(memory)][(*cell, unit)])
        return Conflict(UNITS[unit], count, memory.place.format(*cell), read)


def _latest(table: dict[int, NDArray[np.int32]], memory: Memory, cells: Cells) -> Counts:
    if id(memory) not in table:
        return np.zeros(len(UNITS), np.int64)
    return table[id(memory)][cells].reshape(-1, len(UNITS)).max(axis=0).astype(np.int64)
