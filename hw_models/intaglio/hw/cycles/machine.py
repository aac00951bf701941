"""What the units share: time, progress, queues, ports; and the record of every descriptor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS, Descriptor
from intaglio.hw.cycles.bank import Usage, free, served
from intaglio.hw.cycles.clock import Clock, Series
from intaglio.hw.cycles.memory import MemoryModel, Server, WriteEngine
from intaglio.hw.cycles.program import Job, Tokens, jobs

QUEUE = 8
"""sequencer.sv: places of a unit's queue, beside the one at its output."""

THROUGH_QUEUE = 2
"""fifo_ram: from a descriptor pushed to the same at the output of an empty queue."""

SOON = 3
"""Cycles for which nothing can come in between: about the shortest way from a wait met to an access."""

Steps = Generator[tuple[Series, int] | float, None, int]
"""A part of a process, which returns a cycle."""


@dataclass
class Record:
    """One descriptor: when it was offered and done, and where its time went (cycles by cause)."""

    offered: int = 0
    end: int = 0
    causes: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class Machine:
    """One run. Cycle 0 is the first in which the accelerator runs."""

    def __init__(
        self,
        descriptors: Sequence[Descriptor],
        config: AcceleratorConfig,
        memory: MemoryModel,
        routing: Sequence[Tokens],
        task: int,
    ) -> None:
        self.config = config
        self.clock = Clock()
        self.server = Server(self.clock, round(memory.bytes_per_cycle * 256) / 256 / config.depth)
        self.latency = memory.latency
        self.jobs = jobs(descriptors, routing, task)
        self.progress = [Series() for _ in UNITS]
        self.pushed = [Series() for _ in UNITS]
        self.popped = [Series() for _ in UNITS]
        self.records = [Record() for _ in descriptors]
        self.array_reads, self.copy_reads, self.router_reads = Usage(), Usage(), Usage()
        """Reads of bank A: by the MAC unit, which goes first; by the K/V copy, whose words go to the weight buffer; by
        ROUTE and MOVE_ROWS."""
        self.results = (Usage(), Usage())
        """Writes to bank A and X by post_process, which go first."""
        self.normalized = Usage()
        """Writes to bank A by LayerNorm, which go next."""
        self.transferred = Usage()
        """Writes to bank A by unit IO, which go next; those of MOVE_ROWS go last."""
        self.residual_reads = Usage()
        """Reads of bank X by post_process, which go first."""
        self.sum_reads, self.norm_reads = Usage(), Usage()
        """Reads of bank X by LayerNorm's first and third stage, which go next; those of unit IO go last."""
        self.writes = WriteEngine(self.clock, self.server, config, self.latency)

    def offered(self, unit: int, job: Job) -> Steps:
        """The cycle in which a descriptor is at the output of its unit's queue."""
        place = job.place
        if place >= len(self.pushed[unit].times):
            yield self.pushed[unit], place
        time = self.pushed[unit].times[place] + THROUGH_QUEUE
        if place:
            # The unit has taken the one before: it is the unit that asks.
            time = max(time, self.popped[unit].times[place - 1] + 1)
        self.records[job.index].offered = time
        return time

    def met(self, job: Job, i: int, start: int) -> Steps:
        """The first cycle from `start` on in which progress meets the waits of a descriptor's iteration `i`."""
        time, cause = start, ""
        for unit, base, step in job.waits:
            need = base + step * i
            if not need:
                continue
            times = self.progress[unit].times
            if need > len(times):
                yield self.progress[unit], need - 1
            if times[need - 1] > time:
                time, cause = times[need - 1], UNITS[unit]
        if cause:
            self.records[job.index].causes[f"wait {cause}"] += time - start
        return time

    def granted(self, others: Sequence[Usage], start: int, end: int, count: int) -> Steps:
        """When the last of `count` accesses to a port is made, wanted from `start` to `end`; `others` go first."""
        while (last := served(others, start, end, count)) > self.clock.now + SOON:
            yield last
        return last

    def copied(self, own: Usage, start: int, count: int) -> Steps:
        """As `granted`, for unit CP's reads of bank A, noted in `own`: a guess until the cycle is over."""
        others = [self.array_reads]
        mark = own.mark()
        while True:
            version = others[0].version
            own.rewind(mark)
            intervals = free(others, start, count)
            for begin, end in intervals:
                own.add(begin, end - begin)
            last = intervals[-1][1] - 1
            if last > self.clock.now:
                yield last
            if version == others[0].version:
                return last

    def done(self, unit: int, job: Job, time: int) -> None:
        """The unit's progress grows by one in a cycle; the last one of a descriptor is its end."""
        self.progress[unit].append(time)
        self.records[job.index].end = time
