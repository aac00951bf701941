"""Unit MM, from plan to progress (mac_unit.sv, mac_array.sv, post_process.sv, softmax_unit.sv).

Nothing holds up what the planner has let through, so all its times are known at once: steps, drain, softmax.
"""

from __future__ import annotations

from collections import deque

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS
from intaglio.hw.cycles import clock
from intaglio.hw.cycles.bank import Usage
from intaglio.hw.cycles.machine import Machine
from intaglio.hw.cycles.program import Job

MM = UNITS.index("mm")

TILES = 16
"""core_pkg.sv: tiles of accumulators that their FIFO holds."""

ARRAY_LATENCY = {"generic": 4, "dsp48e2": 14}
"""core_pkg.sv: from the operands of a tile's last step to the announcement of the tile."""

PLAN = 2
"""From a descriptor taken to its first waits tested: states Setup, Gemm or Attention."""

MET = 1
"""met_q."""

STEP = 1
"""From a job taken over by the stepper to its first step."""

ANNOUNCE = 3
"""Beside the array's latency, from a tile's last step to its first group: operands, ready_q."""

WRITE = 25
"""post_process.sv: from a group to its write: 24 stages."""

COUNTED = WRITE + 1
"""From a row tile's last group to progress."""

SCORES = 13 + 3
"""From the last group of scores to the maximum: stage 13, and 3 in the softmax unit."""

EXPONENTIALS = 1 + 5
"""softmax_unit.sv: exp_q, then from the last group of exponentials to their sum."""

DIVISION = 26
"""softmax_unit.sv: MUL_BITS steps."""

PENDING = 4
"""Slots of scores: Q.K is at most so many row tiles ahead of A.V."""

AHEAD = 3
"""With so many, A.V goes first."""


class Drain:
    """Array, accumulator FIFO and post_process: when steps are issued, tiles drained, and what follows."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.latency = ARRAY_LATENCY[config.multiplier]
        self.step_end = -1  # cycle of the last step
        self.popped = -1  # cycle of the last group drained
        self._pops: deque[int] = deque(maxlen=TILES)
        self._smooth = True  # no tile so far waited, for the FIFO or for post_process

    def run(self, first: int, steps: int, groups: int, bank: Usage | None) -> tuple[int, int]:
        """A job of tiles of `steps` cycles whose first may be issued in cycle `first`; the first and last step.

        `bank`: where its results go, if any.
        """
        full = self.config.tile_groups
        tiles = -(-groups // full)
        last = groups - (tiles - 1) * full
        hidden = self.latency + ANNOUNCE
        easy = steps >= full and steps * TILES > hidden + full
        if easy and (self._smooth or self.popped < first):
            self._smooth = True
            self.step_end = first + tiles * steps - 1
            self.popped = self.step_end + hidden - 1 + last
            self._remember(tiles, steps, full, last)
            if bank:
                if tiles > 1:
                    bank.add(first + steps + hidden - 1 + WRITE, full, steps, tiles - 1)
                bank.add(self.popped + 1 - last + WRITE, last)
            return first, self.step_end
        return self._tile_by_tile(first, steps, tiles, last, bank)

    def _remember(self, tiles: int, steps: int, full: int, last: int) -> None:
        """When the last tiles of a job without waiting were drained."""
        end = self.popped - last
        for behind in range(min(tiles, TILES) - 1, 0, -1):
            self._pops.append(end - behind * steps + full)
        self._pops.append(self.popped)

    def _tile_by_tile(
        self, first: int, steps: int, tiles: int, last: int, bank: Usage | None
    ) -> tuple[int, int]:
        full, hidden = self.config.tile_groups, self.latency + ANNOUNCE
        begin, time, waited = 0, first, 0
        for tile in range(tiles):
            if len(self._pops) == TILES:
                time = max(time, self._pops[0] + 1)
            begin = begin if tile else time
            self.step_end = time + steps - 1
            time += steps
            ready = self.step_end + hidden - 1
            if self.popped > ready:
                waited = tile + 1
            groups = last if tile == tiles - 1 else full
            self.popped = max(ready, self.popped) + groups
            if bank:
                bank.add(self.popped + 1 - groups + WRITE, groups)
            self._pops.append(self.popped)
        self._smooth = not waited and steps >= full and steps * TILES > hidden + full
        return begin, self.step_end


class Softmax:
    """Exponentials, their sum and the division, a row tile after the other."""

    def __init__(self, config: AcceleratorConfig, latency: int) -> None:
        self.config = config
        self._ahead = latency + 2
        self._reading = 0  # cycle from which exponentials of another row tile may be read
        self._dividing = 0

    def ready(self, last_group: int, keys: int) -> int:
        """The cycle from which A.V may be planned, for scores whose last group was drained in a cycle."""
        groups = 2 * -(-keys // self.config.depth)
        start = max(last_group + SCORES, self._reading)
        self._reading = start + groups + 1
        summed = start + groups + EXPONENTIALS
        divide = max(summed, self._dividing)
        self._dividing = divide + 1 + DIVISION
        return divide + 1 + (DIVISION - self._ahead) + 1


class Array:
    """Its process: the planner, which hands row tiles to the stepper one ahead."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.drain = Drain(machine.config)
        self._softmax = Softmax(machine.config, self.drain.latency)
        self._empty = 0  # cycle from which the planner has no descriptor
        self.steps = 0  # issued
        self._next = 0  # cycle from which the place between planner and stepper is free

    def run(self) -> clock.Steps:
        """The process."""
        machine = self.machine
        for job in machine.jobs[MM]:
            taken = max((yield from machine.offered(MM, job)), self._empty)
            machine.popped[MM].append(taken)
            if job.d.kind == "GEMM":
                yield from self._gemm(job, taken + PLAN)
            else:
                yield from self._attention(job, taken + PLAN)
            causes = machine.records[job.index].causes
            causes["pipeline"] += self.drain.popped + COUNTED - self.drain.step_end

    def _emit(self, job: Job, cycle: int, steps: int, groups: int, reads: bool, bank: Usage | None) -> None:
        """Plan a row tile in a cycle; `reads`: its steps read bank A; `bank`: where results go."""
        machine, drain = self.machine, self.drain
        take = max(cycle + 1, drain.step_end)
        first, last = drain.run(take + STEP, steps, groups, bank)
        if reads:
            machine.array_reads.add(first, last + 1 - first)
        self._next = take + 1
        tiles = -(-groups // machine.config.tile_groups)
        self.steps += tiles * steps
        causes = machine.records[job.index].causes
        causes["compute"] += tiles * steps
        causes["drain"] += last - take - tiles * steps

    def _gemm(self, job: Job, start: int) -> clock.Steps:
        machine, d = self.machine, job.d
        bank = machine.results[d["o_bank"]]
        for i in range(job.tiles(machine.config)):
            met = MET + (yield from machine.met(job, i, start))
            cycle = max(met, self._next)
            self._emit(job, cycle, d["k_steps"], d["groups"], True, bank)
            start = cycle + 1
            machine.done(MM, job, self.drain.popped + COUNTED)
        self._empty = start

    def _known(self, job: Job, head: int) -> bool:
        """Whether it is known when a head's waits are met."""
        progress = self.machine.progress
        return all(base + step * head <= len(progress[unit].times) for unit, base, step in job.waits)

    def _attention(self, job: Job, start: int) -> clock.Steps:
        """Q.K and A.V of all heads' row tiles: each when it can, Q.K first unless it is far ahead."""
        machine, d, config = self.machine, job.d, self.machine.config
        tiles = job.tiles(config)
        total = tiles * d["heads"]
        planned = done = 0
        ready: deque[int] = deque()
        scores = -(-d["keys"] // config.group)
        av_steps = 2 * -(-d["keys"] // config.depth)
        cycle, test = start, start
        while done < total:
            cycle = max(cycle, self._next)
            av = ready[0] if ready else None
            qk = None
            if planned < total and planned - done < PENDING:
                qk = cycle
                if planned % tiles == 0:
                    if av is not None and not self._known(job, planned // tiles):
                        # What comes first is not known before the exponentials are ready.
                        yield float(max(av, cycle))
                    if self._known(job, planned // tiles) or av is None:
                        met = yield from machine.met(job, planned // tiles, test)
                        qk = met + MET
                    else:
                        qk = None
            first_av = av is not None and av <= cycle and planned - done >= AHEAD
            if qk is not None and not first_av and (av is None or max(qk, cycle) <= max(av, cycle)):
                cycle = max(cycle, qk)
                if planned % tiles == 0:
                    test = cycle + 1
                self._emit(job, cycle, d["qk_steps"], scores, True, None)
                ready.append(self._softmax.ready(self.drain.popped, d["keys"]))
                planned += 1
            else:
                assert av is not None
                if av > cycle:
                    machine.records[job.index].causes["softmax"] += max(
                        av - max(cycle, self.drain.step_end), 0
                    )
                cycle = max(cycle, av)
                self._emit(job, cycle, av_steps, 2 * d["v_words"], False, machine.results[0])
                ready.popleft()
                done += 1
                machine.done(MM, job, self.drain.popped + COUNTED)
            cycle += 1
        self._empty = cycle
