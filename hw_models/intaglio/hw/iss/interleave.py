"""Random execution: five units at once, steps that write late, and the race detector watching."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from intaglio.accelerator.descriptors import UNITS
from intaglio.hw.iss.errors import FaultError, blame
from intaglio.hw.iss.kernels import KERNELS
from intaglio.hw.iss.ledger import Access
from intaglio.hw.iss.machine import Machine, wait_index
from intaglio.hw.iss.memory import Cells, Memory, Write
from intaglio.hw.iss.race import RaceDetector
from intaglio.hw.iss.schedule import Schedule

IN_FLIGHT = {"dm": 2, "io": 2, "cp": 2, "mm": 3, "vu": 2}
"""Steps that a unit may have issued and not yet written."""


class Interleaving:
    """One random legal run. A step reads when it is issued and writes, in order, at a random later point."""

    def __init__(
        self, machine: Machine, schedule: Schedule, seed: int, finished: Callable[[int], None]
    ) -> None:
        self.machine, self.schedule, self.finished = machine, schedule, finished
        self.rng = np.random.default_rng(seed)
        self.detector = RaceDetector(machine.memories)
        self.late: dict[str, deque[tuple[int, bool, list[Write]]]] = {unit: deque() for unit in UNITS}
        self._reads: list[Access] = []
        # Runs differ most where some units are much slower than others.
        self._speed = {
            (unit, what): 4.0 ** self.rng.integers(-3, 1) for unit in UNITS for what in ("issue", "write")
        }
        for _, memory in machine.memories:
            memory.observer = self._observe
        machine.memories.poison(self.rng)

    def _observe(self, memory: Memory, cells: Cells) -> None:
        self._reads.append((memory, cells))

    def run(self) -> None:
        """Run to the end. Raises IssError."""
        while choices := self._choices():
            weights = np.array([self._speed[choice] for choice in choices])
            unit, what = choices[self.rng.choice(len(choices), p=weights / weights.sum())]
            if what == "issue":
                self._issue(unit)
            else:
                self._write(unit)
        if not self.schedule.empty():
            raise self.schedule.deadlock()

    def _choices(self) -> list[tuple[str, str]]:
        can_issue = [
            (u, "issue") for u in UNITS if len(self.late[u]) < IN_FLIGHT[u] and self.schedule.ready(u)
        ]
        return can_issue + [(u, "write") for u in UNITS if self.late[u]]

    def _issue(self, unit: str) -> None:
        head = self.schedule.head(unit)
        assert head is not None
        index, d = head
        step = self.schedule.step[unit]
        self.detector.start(unit, d, wait_index(self.machine.config, d, step))
        self._reads = []
        try:
            writes = self._compute(unit, index, step)
        except FaultError as fault:
            raise blame(index, d.kind, fault) from None
        self.late[unit].append((index, self.schedule.issue(unit, 1), writes))

    def _compute(self, unit: str, index: int, step: int) -> list[Write]:
        """The step's writes. A race is reported before what it may have caused."""
        d = self.schedule.descriptors[index]
        try:
            writes = KERNELS[d.kind](self.machine, index, d, step, step + 1)
        except FaultError:
            self.detector.record(unit, self._reads, [])
            raise
        self.detector.record(unit, self._reads, [(write.memory, write.cells) for write in writes])
        return writes

    def _write(self, unit: str) -> None:
        index, last, writes = self.late[unit].popleft()
        self.machine.memories.apply(writes)
        self.schedule.complete(unit, 1)
        if last:
            self.finished(index)
