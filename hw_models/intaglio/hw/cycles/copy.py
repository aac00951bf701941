"""Unit CP: keys and values, bank A to weight buffer (kv_copy.sv)."""

from __future__ import annotations

from intaglio.accelerator.descriptors import UNITS
from intaglio.hw.cycles import clock
from intaglio.hw.cycles.machine import Machine

CP = UNITS.index("cp")

FIRST = 2
"""From waits met to the first read: met_q, active_q."""

WRITE = 2
"""From a read granted to the write into the weight buffer."""

COUNTED = 3
"""From the last read granted to progress."""


class Copy:
    """Its process: a word per cycle in which the MAC unit does not read bank A."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self) -> clock.Steps:
        """The process."""
        machine = self.machine
        for job in machine.jobs[CP]:
            start = yield from machine.offered(CP, job)
            first = FIRST + (yield from machine.met(job, 0, start))
            words = job.tiles(machine.config) * job.d["chunks"]
            last = yield from machine.copied(first, words)
            machine.popped[CP].append(last)
            machine.done(CP, job, last + COUNTED)
            causes = machine.records[job.index].causes
            causes["port"] += words
            causes["bank A"] += last - first + 1 - words
