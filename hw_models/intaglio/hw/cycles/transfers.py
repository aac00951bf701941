"""Unit IO: parameters, constants, tables, words and the image in; results out (io_unit.sv)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from math import ceil

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS, Descriptor
from intaglio.hw.cycles import clock
from intaglio.hw.cycles.clock import Series
from intaglio.hw.cycles.machine import Machine
from intaglio.hw.cycles.memory import TO_UNIT, Burst, ReadEngine, explain, split
from intaglio.hw.cycles.program import Job

IO = UNITS.index("io")

SETUP = 2
"""From waits met to the state Setup: met_q."""

MULTIPLY = 3 * 17
"""LOAD_IMAGE: three products, 16 steps each and one to take the result."""

COMMAND = 1
"""From Setup to the command, and to the first read of STORE."""

WRITTEN = TO_UNIT + 2
"""From a beat served to the write of its first piece, at the earliest: beat_valid_q, s1_valid_q."""

TAKEN = 1
"""From the last piece of a beat taken to its write."""

TILE = 1
"""LOAD_IMAGE: from the write of a row tile's last piece to progress."""

READ = 2
"""STORE: from a word granted to its row in the queue."""

WAITING = 4
"""STORE: rows that wait for room in the engine's queue."""

ROOM = 2
"""STORE: from a beat that leaves the engine's queue to the read of one in its place: count_q of the queue, room_q."""


class Transfers:
    """Its process. One descriptor at a time."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._engine = ReadEngine(
            machine.clock, machine.server, machine.config, machine.latency, self._burst, begun=self._begun
        )
        self._bursts: deque[Burst] = deque()  # not written yet
        self._arrived = Series()  # of bursts
        self._writes = Writes(machine)

    def run(self) -> clock.Steps:
        """The process."""
        machine = self.machine
        for job in machine.jobs[IO]:
            start = yield from machine.offered(IO, job)
            setup = SETUP + (yield from machine.met(job, 0, start))
            if job.skipped:
                machine.popped[IO].append(setup)
                machine.done(IO, job, setup + 1)
            elif job.d.kind == "STORE":
                yield from self._store(job, setup)
            else:
                yield from self._load(job, setup)

    def _begun(self, burst: Burst) -> None:
        self._writes.begun(burst)

    def _burst(self, burst: Burst) -> None:
        self._bursts.append(burst)
        self._arrived.append(burst.last)

    # ---------------------------------------------------------------------------------------------------- loads

    def _load(self, job: Job, setup: int) -> clock.Steps:
        """Beats are cut into pieces, one of which is written per cycle if post_process does not write."""
        machine, d, depth = self.machine, job.d, self.machine.config.depth
        if d.kind == "LOAD_IMAGE":
            setup += MULTIPLY
        pieces = depth // {"LOAD_TABLE": 2, "LOAD_IMAGE": d["piece"]}.get(d.kind, depth)
        banked = d.kind in ("LOAD_ROWS", "LOAD_IMAGE")
        others = [machine.results[d["bank"]]] if banked else []
        if banked and not d["bank"]:
            others.append(machine.normalized)
        self._writes.pieces = pieces if banked and not d["bank"] else 0
        tiles = Tiles(d, machine.config)
        first, count = len(self._arrived.times), 0
        for command in self._commands(job):
            self._engine.command(setup + COMMAND, command)
            count += len(command)
        bursts, written = [], setup
        for number in range(first, first + count):
            yield self._arrived, number
            burst = self._bursts.popleft()
            bursts.append(burst)
            start = max(written + 1, burst.first + WRITTEN)
            end = burst.last + WRITTEN - 1 + pieces
            written = yield from machine.granted(others, start, end, burst.beats * pieces)
            if pieces > 1:
                rest = (time + left * pieces for time, left in burst.kinks)
                written = max(written, round(max(rest, default=0)) + WRITTEN)
            self._writes.made(burst, start, written)
            self._engine.free(burst.beats, written - TAKEN - pieces)
            if d.kind == "LOAD_IMAGE":
                for time in tiles.complete(burst, written):
                    machine.done(IO, job, time)
        finish = written + (1 if banked else 0)
        machine.popped[IO].append(finish)
        if d.kind != "LOAD_IMAGE":
            machine.done(IO, job, finish + 1)
        self._explain(job, setup, pieces, bursts)

    def _explain(self, job: Job, setup: int, pieces: int, bursts: list[Burst]) -> None:
        causes = self.machine.records[job.index].causes
        explain(bursts, setup, causes)
        if pieces > 1:
            needed = sum(burst.beats for burst in bursts) * pieces
            causes["unit"] = max(needed, job.d["words"])
            causes["latency"] = bursts[0].first - setup

    def _commands(self, job: Job) -> list[Sequence[int]]:
        """Bursts of every command."""
        d, config = job.d, self.machine.config
        beats = {
            "LOAD_PARAMS": 4 * d["groups"],
            "LOAD_NORM": d["channels"] * (16 // config.depth),
            "LOAD_TABLE": 512 // config.depth,
            "LOAD_ROWS": d["words"] * config.rows,
        }
        if d.kind != "LOAD_IMAGE":
            return [split(d["offset"], beats[d.kind], config)]
        band = d["patch_h"] * d["grid_w"] * d["patch_w"]
        plane = band * d["grid_h"]
        return [
            split(c * plane + py * band, band // config.depth, config)
            for py in range(d["grid_h"])
            for c in range(d["channels"])
        ]

    # --------------------------------------------------------------------------------------------------- results

    def _store(self, job: Job, setup: int) -> clock.Steps:
        machine, d, writes = self.machine, job.d, self.machine.writes
        bank_a = [machine.array_reads, machine.copy_reads, machine.router_reads]
        bank_x = [machine.residual_reads, machine.sum_reads, machine.norm_reads]
        others = bank_x if d["bank"] else bank_a
        begin = read = setup + COMMAND
        writes.command(begin)
        number, total = len(writes.answered.times) - 1, 0
        words = d["words"] * (machine.config.rows if d["all_rows"] else 1)
        for beats in split(d["offset"], words, machine.config):
            total += beats
            end = read + beats - 1
            before = total - writes.places - WAITING
            if before > 0:
                end = max(end, ROOM + (yield from writes.room(before)))
            last = yield from machine.granted(others, read, end, beats)
            yield from writes.burst(beats, last + READ)
            read = last + 1
            number += 1
        yield writes.answered, number
        finish = writes.answered.times[number]
        machine.popped[IO].append(finish)
        machine.done(IO, job, finish + 1)
        causes = machine.records[job.index].causes
        causes["port"] += words
        causes["latency"] += finish - begin - words


class Writes:
    """Writes to bank A, as what has a lower priority must know them: of a burst that comes, a guess."""

    def __init__(self, machine: Machine) -> None:
        self._usage, self._server = machine.transferred, machine.server
        self._coming: deque[Burst] = deque()
        self._mark = self._usage.mark()
        self.pieces = 0
        """Writes of a beat; 0: none to bank A."""

    def begun(self, burst: Burst) -> None:
        """A burst begins to arrive."""
        if self.pieces:
            self._coming.append(burst)
            self._guess(burst)

    def _guess(self, burst: Burst) -> None:
        """As if what the ports share did not change."""
        start = ceil(burst.start) + WRITTEN
        end = start + round((burst.beats - 1) * self._server.spacing) + self.pieces - 1
        self._add(burst, start, max(end, start + burst.beats * self.pieces - 1))

    def made(self, burst: Burst, start: int, last: int) -> None:
        """The writes of the burst that began first, from cycle `start` to `last`."""
        if not self.pieces:
            return
        self._coming.popleft()
        self._usage.rewind(self._mark)
        self._add(burst, start, last)
        self._mark = self._usage.mark()
        for other in self._coming:
            self._guess(other)

    def _add(self, burst: Burst, start: int, last: int) -> None:
        pieces, beats = self.pieces, burst.beats
        if last - start < beats * pieces:
            self._usage.add(start, last + 1 - start)
            return
        spacing = (last + 1 - pieces - start) / max(beats - 1, 1)
        for beat in range(beats):
            self._usage.add(start + round(beat * spacing), pieces)


class Tiles:
    """LOAD_IMAGE: when row tiles are complete, each with the last line of its last token."""

    def __init__(self, d: Descriptor, config: AcceleratorConfig) -> None:
        self._depth, self._piece = config.depth, d["piece"]
        self._ends: deque[int] = deque()  # in bytes
        self._before = 0  # beats
        if d.kind != "LOAD_IMAGE":
            return
        width, tokens = d["grid_w"], d["grid_h"] * d["grid_w"]
        line = width * d["patch_w"]
        row = d["channels"] * d["patch_h"] * line  # of patches
        for tile in range(-(-tokens // config.rows)):
            py, px = divmod(min((tile + 1) * config.rows, tokens) - 1, width)
            self._ends.append((py + 1) * row - line + (px + 1) * d["patch_w"])

    def complete(self, burst: Burst, written: int) -> Iterator[int]:
        """Progress for what a burst completes, whose last piece is written in cycle `written`."""
        pieces = self._depth // self._piece
        spacing = max(pieces, (burst.last - burst.first) / max(burst.beats - 1, 1))
        after = self._before + burst.beats
        while self._ends and self._ends[0] <= after * self._depth:
            beat, byte = divmod(self._ends.popleft() - 1, self._depth)
            last = written - round((after - 1 - beat) * spacing)
            yield last - (pieces - 1 - byte // self._piece) + TILE
        self._before = after
