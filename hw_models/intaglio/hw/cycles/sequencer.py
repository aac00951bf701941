"""The sequencer: fetches, checks and hands out descriptors (sequencer.sv, descriptor_check.sv)."""

from __future__ import annotations

from collections.abc import Sequence

from intaglio.accelerator.descriptors import BY_NAME, BYTES, UNITS, Descriptor
from intaglio.hw.cycles.clock import Series, Steps
from intaglio.hw.cycles.machine import QUEUE, THROUGH_QUEUE, Machine
from intaglio.hw.cycles.memory import TO_UNIT, Burst, ReadEngine, split
from intaglio.hw.cycles.program import check_steps

START = 1
"""From the start of the run to the fetch, and to the command for the program."""

CHECK = 2
"""From the last beat to the first cycle of the check."""

CHECK_STEP = 4
"""descriptor_check.sv: cycles of a step."""


class Sequencer:
    """Its process, and `idle`, the cycle in which all descriptors are dispatched."""

    def __init__(self, machine: Machine, descriptors: Sequence[Descriptor]) -> None:
        self.machine, self.descriptors = machine, descriptors
        self.idle = START
        self._beats = BYTES // machine.config.depth
        self._arrived = Series()
        """Per descriptor: the cycle in which its last beat is at the output of the engine's queue."""
        self._partial = 0
        self._engine = ReadEngine(machine.clock, machine.server, machine.config, machine.latency, self._burst)

    def _burst(self, burst: Burst) -> None:
        """Descriptors that a burst completes; its beats come evenly."""
        pace = (burst.last - burst.first) / max(burst.beats - 1, 1)
        beat = self._beats - self._partial - 1
        while beat < burst.beats:
            self._arrived.append(round(burst.first + beat * pace) + TO_UNIT)
            beat += self._beats
        self._partial = (self._partial + burst.beats) % self._beats

    def run(self) -> Steps:
        """The process."""
        machine = self.machine
        bursts = split(0, self._beats * len(self.descriptors), machine.config)
        self._engine.command(START, bursts)
        fetch, places = START, [0] * len(UNITS)
        for index, d in enumerate(self.descriptors):
            if index >= len(self._arrived.times):
                yield self._arrived, index
            last = max(fetch + self._beats - 1, self._arrived.times[index])
            self._engine.free(self._beats, last)
            give = last + CHECK + CHECK_STEP * check_steps(d)
            unit = UNITS.index(BY_NAME[d.kind].unit)
            place = places[unit]
            places[unit] += 1
            if place >= QUEUE:
                # The one `QUEUE` before has left the memory for the output.
                pushed, popped = machine.pushed[unit], machine.popped[unit]
                there = pushed.times[place - QUEUE] + THROUGH_QUEUE
                if place > QUEUE:
                    before = place - QUEUE - 1
                    if before >= len(popped.times):
                        yield popped, before
                    there = max(there, popped.times[before] + 1)
                give = max(give, there)
            machine.pushed[unit].append(give)
            fetch = give + 1
        self.idle = fetch
