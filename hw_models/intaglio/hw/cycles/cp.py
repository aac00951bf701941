"""Unit CP: keys and values to the weight buffer, the router, rows of experts' tokens (cp_unit.sv and its modules)."""

from __future__ import annotations

from collections.abc import Generator

from intaglio.accelerator.descriptors import UNITS
from intaglio.hw.cycles import clock
from intaglio.hw.cycles.clock import Wait
from intaglio.hw.cycles.machine import Machine
from intaglio.hw.cycles.moves import moved
from intaglio.hw.cycles.program import Job

CP = UNITS.index("cp")

START = 1
"""cp_unit: from waits met to a module's start: met_q."""

COPY_READ = 1
"""kv_copy: from the start to the first read: active_q."""

WRITE = 2
"""kv_copy: from a read granted to the write into the weight buffer."""

COUNTED = WRITE + 1
"""kv_copy: from the last read granted to progress, and to the start of another module."""

BUFFER = 32
"""route_unit: words of logits."""

ROUTE_READ = 1
"""route_unit: from the start to the first read: fetch_q."""

SCAN = 3
"""route_unit: from the last word of a row tile granted to its first logit: read_q, have_q, tile_q."""

NEXT_TILE = 2
"""route_unit: from the gap that ends a row tile to the first logit of the next: tile_q."""

FREED = 1
"""route_unit: from the gap that ends a row tile to a read into its places: free_q."""

WEIGHED = 7
"""route_unit, route_weights: from the last gap to progress, beside a cycle per expert in emit_q: complete_q, weigh_q,
look, product, round, store_q, progress_q."""

MOVE_READ = 5
"""move_rows: from the start to the first read: open_q, memory_q, entry_q, product_valid_q, row_q."""

MOVED = 1
"""move_rows: from the last write to progress, and to the start of another module."""

NOTHING = 1
"""move_rows: from the start to the end of a descriptor without rows: open_q."""


class CopyUnit:
    """Its process: a word per cycle in which the MAC unit does not read bank A."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._idle = {"COPY_KV": 0, "ROUTE": 0, "MOVE_ROWS": 0}
        """The cycle from which a module is not at work: another one may start."""

    def run(self) -> clock.Steps:
        """The process."""
        machine = self.machine
        run = {"COPY_KV": self._copy, "ROUTE": self._route, "MOVE_ROWS": self._move}
        for job in machine.jobs[CP]:
            offered = yield from machine.offered(CP, job)
            start = START + (yield from machine.met(job, 0, offered))
            others = [cycle for kind, cycle in self._idle.items() if kind != job.d.kind]
            yield from run[job.d.kind](job, max(start, *others))

    def _copy(self, job: Job, start: int) -> clock.Steps:
        machine = self.machine
        words = job.tiles(machine.config) * job.d["chunks"]
        first = start + COPY_READ
        last = yield from machine.copied(machine.copy_reads, first, words)
        machine.popped[CP].append(last)
        machine.done(CP, job, last + COUNTED)
        self._idle[job.d.kind] = last + COUNTED
        self._explain(job, first, last, words)

    def _route(self, job: Job, start: int) -> clock.Steps:
        """Row tiles of logits are read ahead of the scan, as far as the buffer has room."""
        machine, d = self.machine, job.d
        rows, config = d["rows"], machine.config
        per_word = config.group if d["wide"] else config.depth
        words = -(-d["experts"] // per_word)
        gaps: list[int] = []  # the last of each row tile
        begin = read = start + ROUTE_READ
        for tile in range(job.tiles(config)):
            last = read
            for first, count in _parts(tile, words):
                freed = first - BUFFER
                if freed >= 0:
                    read = max(read, gaps[freed // words] + FREED)
                last = yield from machine.copied(machine.router_reads, read, count)
                read = last + 1
            scan = max(last + SCAN, gaps[-1] + NEXT_TILE if gaps else 0)
            tokens = min(rows - tile * config.rows, config.rows)
            gaps.append(scan + tokens * (d["experts"] + 1) - 1)
        end = gaps[-1] + d["experts"] + WEIGHED
        machine.popped[CP].append(end - 1)
        machine.done(CP, job, end)
        self._idle[d.kind] = end
        causes = machine.records[job.index].causes
        causes["compute"] += end - begin - words
        causes["port"] += words

    def _move(self, job: Job, start: int) -> clock.Steps:
        machine = self.machine
        if job.skipped:
            end = max(start + NOTHING, self._idle["MOVE_ROWS"])
            machine.popped[CP].append(end)
            machine.done(CP, job, end + 1)
            self._idle[job.d.kind] = end + 1
            return
        words, first = job.rows * job.d["chunks"], start + MOVE_READ
        last, written = yield from self._moved(first, words)
        machine.popped[CP].append(last)
        machine.done(CP, job, written + MOVED)
        self._idle[job.d.kind] = written + MOVED
        self._explain(job, first, last, words)

    def _moved(self, first: int, words: int) -> Generator[Wait, None, tuple[int, int]]:
        """The last read and write of so many words; the reads are a guess at first, as in `Machine.copied`."""
        machine = self.machine
        own, mark = machine.router_reads, machine.router_reads.mark()
        writers = [machine.results[0], machine.normalized, machine.transferred]
        others = [machine.array_reads, *writers]
        while True:
            versions = [usage.version for usage in others]
            own.rewind(mark)
            reads, written = moved([machine.array_reads], writers, first, words)
            for begin, end in reads:
                own.add(begin, end - begin)
            last = reads[-1][1] - 1
            if written > machine.clock.now:
                yield last if last > machine.clock.now else written
            if versions == [usage.version for usage in others]:
                return last, written

    def _explain(self, job: Job, first: int, last: int, words: int) -> None:
        causes = self.machine.records[job.index].causes
        causes["port"] += words
        causes["bank A"] += last - first + 1 - words


def _parts(tile: int, words: int) -> list[tuple[int, int]]:
    """Words of a row tile, by the row tile whose places in the buffer they take: number of the first, how many."""
    parts = []
    first, end = tile * words, (tile + 1) * words
    while first < end:
        taken = first - BUFFER
        border = min((taken // words + 1) * words + BUFFER, end)
        parts.append((first, border - first))
        first = border
    return parts
