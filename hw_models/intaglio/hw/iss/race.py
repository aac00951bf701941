"""The race detector: vector clocks over progress counters."""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.descriptors import UNITS, Descriptor
from intaglio.hw.iss.errors import FaultError
from intaglio.hw.iss.ledger import Access, Counts, Ledger
from intaglio.hw.iss.memory import Memories


class RaceDetector:
    """Follows what every unit may know of the others' progress; a step must know that what it depends on is done.

    A unit learns by waiting only: that step n of unit v is complete, and with it all that v knew when it issued
    step n. Whether the others happen to be further in this run does not matter, so one run finds the race
    whatever its interleaving (docs/accelerator.md, "Units, order and waiting").
    """

    def __init__(self, memories: Memories) -> None:
        self.ledger = Ledger(memories)
        self.known = {unit: np.zeros(len(UNITS), np.int64) for unit in UNITS}
        self._history: dict[str, list[Counts]] = {unit: [np.zeros(len(UNITS), np.int64)] for unit in UNITS}

    def start(self, unit: str, d: Descriptor, at: int) -> None:
        """A step of `unit` is issued: it has waited for ``base + step * at``."""
        for other, (base, step) in d.waits.items():
            self.learn(unit, other, base + step * at)

    def learn(self, unit: str, other: str, count: int) -> None:
        """`unit` has seen the progress of `other` reach `count`."""
        if not count:
            return
        known = np.maximum(self.known[unit], self._history[other][count])
        known[UNITS.index(other)] = max(known[UNITS.index(other)], count)
        self.known[unit] = known

    def record(self, unit: str, reads: list[Access], writes: list[Access]) -> None:
        """The step's accesses; FaultError if one is not ordered after what it depends on."""
        conflict = self.ledger.conflict(unit, self.known[unit], reads, writes)
        if conflict:
            touches = "reads" if conflict.read else "writes"
            raise FaultError(
                f"it {touches} {conflict.place} in a race with {conflict.unit}: no wait makes sure that "
                f"{conflict.unit} has reached {conflict.count}."
            )
        self.close(unit, reads, writes)

    def close(self, unit: str, reads: list[Access], writes: list[Access]) -> None:
        """Note the step; its completion is the next count of `unit`."""
        self.ledger.record(unit, len(self._history[unit]), reads, writes)
        self._history[unit].append(self.known[unit].copy())
