"""Unit DM: blocks of weights, on all weight ports at once (weight_loader.sv)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from intaglio.accelerator.descriptors import UNITS
from intaglio.hw.cycles import clock
from intaglio.hw.cycles.clock import Series
from intaglio.hw.cycles.cp import WRITE
from intaglio.hw.cycles.machine import Machine
from intaglio.hw.cycles.memory import COMMANDS, TO_UNIT, Burst, ReadEngine, explain, split
from intaglio.hw.cycles.program import Job

DM = UNITS.index("dm")

GIVE = 3
"""From waits met to the first command: met_q, Prepare, Issue."""

WRITTEN = TO_UNIT + 1
"""From a beat served to its write, at the earliest: we_q."""

COUNTED = 1
"""From a block's last write to progress."""

JOBS = 8
"""Blocks that wait for a port's writer."""

TAKEN = 1
"""From a block given to its writer's work: fifo_lut."""

EMPTY = TAKEN + 2
"""From a block that nobody reads, given, to what would be its write: active_q, we_q."""


class WeightLoader:
    """Its processes. All ports get commands of the same number of beats, a cycle apart: they are modelled as one."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        config = machine.config
        self._engine = ReadEngine(
            machine.clock, machine.server, config, machine.latency, self._burst, config.weight_ports
        )
        self._behind = config.weight_ports - 1
        self._bursts: deque[Burst] = deque()  # not written yet
        self._arrived = Series()  # of bursts
        self._taken = Series()
        """Per block: the cycle in which it leaves the queue of the last port's writer."""

    def run(self) -> clock.Steps:
        """The process that gives commands."""
        machine, ports = self.machine, self.machine.config.weight_ports
        commands = 0
        for job in machine.jobs[DM]:
            start = yield from machine.offered(DM, job)
            give = GIVE + (yield from machine.met(job, 0, start))
            if job.place >= JOBS:
                yield self._taken, job.place - JOBS
                give = max(give, self._taken.times[job.place - JOBS] + 1)
            if not job.skipped:
                before = commands - COMMANDS - 1
                if before >= 0:
                    yield self._engine.requested, before
                    give = max(give, self._engine.requested.times[before] + 1)
                commands += 1
                self._engine.command(give, self._split(job))
            machine.popped[DM].append(give + ports - 1)

    def _beats(self, job: Job) -> int:
        """Of every port."""
        config = self.machine.config
        return job.d["entries"] * config.cols // config.weight_ports

    def _split(self, job: Job) -> Sequence[int]:
        """Bursts of the port that has most of them, as its part crosses a page: the last of such ports."""
        config, beats = self.machine.config, self._beats(job)
        parts = (
            split(job.d["offset"] + beats * config.depth * port, beats, config)
            for port in reversed(range(config.weight_ports))
        )
        return max(parts, key=len)

    def _burst(self, burst: Burst) -> None:
        """The last port is as many cycles behind as there are ports before it, unless all wait for bandwidth."""
        if not burst.shared:
            burst.first += self._behind
            burst.last += self._behind
        self._bursts.append(burst)
        self._arrived.append(burst.last)

    def write(self) -> clock.Steps:
        """The process that takes beats as they come, and waits while the K/V copy writes."""
        machine = self.machine
        number, written = 0, -1
        for job in machine.jobs[DM]:
            yield machine.popped[DM], job.place
            given = machine.popped[DM].times[job.place]
            self._taken.append(max(given + TAKEN, written - 1))
            if job.skipped:
                start = max(written + 1, given + EMPTY) - WRITE
                written = WRITE + (yield from machine.granted([machine.copy_reads], start, start, 1))
                machine.done(DM, job, written + COUNTED)
                continue
            bursts, since, left = [], written, self._beats(job)
            while left:
                yield self._arrived, number
                burst = self._bursts.popleft()
                bursts.append(burst)
                start = max(written + 1, burst.first + WRITTEN) - WRITE
                end = burst.last + WRITTEN - WRITE
                reads = yield from machine.granted([machine.copy_reads], start, end, burst.beats)
                written = reads + WRITE
                self._engine.free(burst.beats, written - 1)
                left -= burst.beats
                number += 1
            machine.done(DM, job, written + COUNTED)
            since = max(since, given)
            causes = machine.records[job.index].causes
            explain(bursts, since, causes)
            causes["weight buffer"] += written - burst.last - WRITTEN
