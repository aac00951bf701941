"""Unit VU: LayerNorm, three stages on different row tiles (layernorm_unit.sv, layernorm_fetch.sv)."""

from __future__ import annotations

from collections.abc import Sequence

from intaglio.accelerator.descriptors import UNITS
from intaglio.hw.cycles import clock
from intaglio.hw.cycles.bank import Usage
from intaglio.hw.cycles.machine import Machine, Steps
from intaglio.hw.cycles.program import Job

VU = UNITS.index("vu")

ACTIVE = 1
"""From a descriptor taken to the test of its waits."""

MET = 1
"""f_met_q."""

READ = 1
"""layernorm_fetch: from the command to the read of its first word: left_q."""

ARRIVE = 2
"""layernorm_fetch: from a read granted to the word's first channel: arriving_q, valid_q."""

ASKED = 2
"""From the last channel of a to c's read of its first word: b_unread_q, left_q."""

SERIAL = 94
"""From the last channel of a to the result of b: 3 stages, 28 + 1 + 5 + 31 + 25 steps, and the state Hold."""

TAKE = 1
"""From b's result taken over to the first channel of c."""

RELEASE = 7
"""From the first channel of c to b's next row tile: its results are read in stages 1 .. 6."""

WRITE = 17
"""From the last channel of a word to its write: 15 stages, full_q, word_valid_q."""

COUNTED = WRITE + 1
"""From the last channel of c to progress."""


class Vector:
    """Its process."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._free = 0  # cycle from which b is idle
        self._a = self._c = -1  # cycle of the last channel of a, of c
        self._empty = 0  # cycle from which c's pipeline is empty
        self._used = -1  # cycle of the last channel of c's last word but one
        self._taken = [-1, -1]  # cycles of the last channels of a's last two words

    def run(self) -> clock.Steps:
        """The process."""
        machine = self.machine
        for job in machine.jobs[VU]:
            start = ACTIVE + (yield from machine.offered(VU, job))
            yield from self._normalize(job, start)

    def _normalize(self, job: Job, start: int) -> clock.Steps:
        machine, d = self.machine, job.d
        tiles, channels = job.tiles(machine.config), d["channels"]
        per_word = machine.config.group if d["x_wide"] else machine.config.depth
        # The fetch of a row tile begins when all words of the one before are asked for.
        fetch = start
        for i in range(tiles):
            command = max(MET + (yield from machine.met(job, i, start)), fetch)
            if command > machine.clock.now:
                yield float(command)
            if machine.residual_reads.end > command:
                fetch = yield from self._words_in_turn(command, channels, per_word)
            else:
                fetch = self._words(command, channels, per_word)
            done = self._taken[-1]
            self._a = done
            if i == tiles - 1:
                machine.popped[VU].append(done)
            ready = done + SERIAL
            take = max(ready, self._c if i else self._empty)
            begin = take + TAKE
            words = -(-channels // per_word)
            asked = max(done + ASKED, self._used + 1)
            self._read(machine.norm_reads, [asked, max(asked, self._c) + 1], begin, words, per_word)
            self._used = begin + (words - 1) * per_word - 1
            self._free = begin + RELEASE
            self._c = begin + channels - 1
            self._written(begin, channels)
            machine.done(VU, job, self._c + COUNTED)
            start = command + 1
        self._empty = self._c + COUNTED
        causes = machine.records[job.index].causes
        causes["compute"] += tiles * max(channels, SERIAL + TAKE + RELEASE)
        causes["pipeline"] += channels + SERIAL + TAKE + COUNTED

    def _words(self, command: int, channels: int, per_word: int) -> int:
        """Stage a of a row tile whose words are read when they are asked for; when all are asked for."""
        words = -(-channels // per_word)
        asked = max(command + READ, self._taken[0] + 1)
        first = max(asked + ARRIVE, self._a + 1)
        last = self._read(self.machine.sum_reads, [asked, max(asked, self._a) + 1], first, words, per_word)
        self._taken = [first + (words - 1) * per_word - 1, max(first + channels - 1, self._free)]
        return last + 1

    def _words_in_turn(self, command: int, channels: int, per_word: int) -> Steps:
        """As `_words`, while post_process reads residuals, which goes first."""
        machine, words = self.machine, -(-channels // per_word)
        read = command + READ - 1
        for word in range(words):
            read = max(read, self._taken[0]) + 1
            if read > machine.clock.now:
                yield float(read)
            read = yield from machine.granted([machine.residual_reads], read, read, 1)
            machine.sum_reads.add(read, 1)
            first = max(read + ARRIVE, self._taken[1] + 1)
            last = first + min(per_word, channels - word * per_word) - 1
            self._taken = [self._taken[1], last]
        self._taken[1] = max(self._taken[1], self._free)
        return read + 1

    @staticmethod
    def _read(usage: Usage, asked: Sequence[int], first: int, words: int, per_word: int) -> int:
        """Reads of bank X for a row tile: two words when `asked`, each other when the one before the last is used up.

        `first`: cycle of the first channel. Returns the cycle of the last read.
        """
        for time in asked[:words]:
            usage.add(time, 1)
        if words <= 2:
            return asked[words - 1]
        usage.add(first + per_word, 1, per_word, words - 2)
        return first + (words - 2) * per_word

    def _written(self, begin: int, channels: int) -> None:
        """Writes to bank A of a row tile whose first channel passes in cycle `begin`: a word when it is full."""
        depth = self.machine.config.depth
        full = (channels - 1) // depth
        if full:
            self.machine.normalized.add(begin + depth - 1 + WRITE, 1, depth, full)
        self.machine.normalized.add(self._c + WRITE, 1)
