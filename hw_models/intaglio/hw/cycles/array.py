"""Unit MM, from plan to progress (mac_unit.sv, mac_array.sv, post_process.sv, softmax_unit.sv).

Nothing holds up what the planner has let through, so all its times are known at once: steps, drain, softmax.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS
from intaglio.hw.cycles import clock
from intaglio.hw.cycles.machine import SOON, Machine
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

RESIDUAL = 14
"""post_process.sv: from a group to its read of bank X."""

QUEUED = 1
"""A GEMM with a queue: the state in which it takes the number of its rows."""

SUMS = 2
"""COMBINE: from a row tile's totals asked for to the same in the softmax unit: total_valid_o, summed_q."""

FACTORS = 4 + 1
"""COMBINE: from a row tile's last group to totals in its slot: stage 4 of post_process, slots_q."""

FETCHED = 2
"""COMBINE: steps of a slot, whose words are fetched before."""

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


@dataclass(frozen=True)
class Target:
    """Where results go, if anywhere, and whether each is added to a residual."""

    bank: int | None = None
    residual: bool = False


class Drain:
    """Array, accumulator FIFO and post_process: when steps are issued, tiles drained, and what follows."""

    def __init__(self, machine: Machine) -> None:
        config = machine.config
        self.full = config.tile_groups
        """Groups of a tile, but for the last."""
        self._results, self._residuals = machine.results, machine.residual_reads
        self.latency = ARRAY_LATENCY[config.multiplier]
        self.step_end = -1  # cycle of the last step
        self.popped = -1  # cycle of the last group drained
        self._pops: deque[int] = deque(maxlen=TILES)
        self._smooth = True  # no tile so far waited, for the FIFO or for post_process

    def run(self, first: int, steps: int, groups: int, to: Target, gap: int = 0) -> tuple[int, int]:
        """A job of tiles of `steps` cycles whose first may be issued in cycle `first`; the first and last step.

        `to`: where its results go. `gap`: cycles between two tiles in which nothing is issued.
        """
        full, period = self.full, steps + gap
        tiles = -(-groups // full)
        last = groups - (tiles - 1) * full
        hidden = self.latency + ANNOUNCE
        easy = period >= full and period * TILES > hidden + full
        if easy and (self._smooth or self.popped < first):
            self._smooth = True
            self.step_end = first + tiles * period - gap - 1
            self.popped = self.step_end + hidden - 1 + last
            self._remember(tiles, period, full, last)
            if tiles > 1:
                self._drained(to, first + steps + hidden - 1, full, period, tiles - 1)
            self._drained(to, self.popped + 1 - last, last)
            return first, self.step_end
        return self._tile_by_tile(first, steps, tiles, last, to, gap)

    def _drained(self, to: Target, start: int, groups: int, period: int = 0, count: int = 1) -> None:
        """Note the accesses of tiles whose groups are drained from cycle `start` on."""
        if to.bank is not None:
            self._results[to.bank].add(start + WRITE, groups, period, count)
        if to.residual:
            self._residuals.add(start + RESIDUAL, groups, period, count)

    def _remember(self, tiles: int, period: int, full: int, last: int) -> None:
        """When the last tiles of a job without waiting were drained."""
        end = self.popped - last
        for behind in range(min(tiles, TILES) - 1, 0, -1):
            self._pops.append(end - behind * period + full)
        self._pops.append(self.popped)

    def _tile_by_tile(
        self, first: int, steps: int, tiles: int, last: int, to: Target, gap: int
    ) -> tuple[int, int]:
        full, hidden = self.full, self.latency + ANNOUNCE
        begin, time, waited = 0, first, 0
        for tile in range(tiles):
            if len(self._pops) == TILES:
                time = max(time, self._pops[0] + 1)
            begin = begin if tile else time
            self.step_end = time + steps - 1
            time += steps + gap
            ready = self.step_end + hidden - 1
            if self.popped > ready:
                waited = tile + 1
            groups = last if tile == tiles - 1 else full
            self.popped = max(ready, self.popped) + groups
            self._drained(to, self.popped + 1 - groups, groups)
            self._pops.append(self.popped)
        self._smooth = not waited and steps + gap >= full and (steps + gap) * TILES > hidden + full
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
        return self.divided(start + groups + EXPONENTIALS)

    def divided(self, summed: int) -> int:
        """As `ready`, for sums that are there in a cycle."""
        divide = max(summed, self._dividing)
        self._dividing = divide + 1 + DIVISION
        return divide + 1 + (DIVISION - self._ahead) + 1


class Array:
    """Its process: the planner, which hands row tiles to the stepper one ahead."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.drain = Drain(machine)
        self._softmax = Softmax(machine.config, self.drain.latency)
        self._empty = 0  # cycle from which the planner has no descriptor
        self.steps = 0  # issued
        self._next = 0  # cycle from which the place between planner and stepper is free
        self._factors: deque[int] = deque(maxlen=PENDING)  # last groups of row tiles of A.V and COMBINE
        self._gates: deque[tuple[int, int, int]] = deque(maxlen=PENDING)
        """Cycles in which jobs of COMBINE read gate weights: the first, their distance, how many."""

    def run(self) -> clock.Steps:
        """The process."""
        machine = self.machine
        plan = {"GEMM": self._gemm, "ATTENTION": self._attention, "COMBINE": self._combine}
        for job in machine.jobs[MM]:
            taken = max((yield from machine.offered(MM, job)), self._empty)
            machine.popped[MM].append(taken)
            yield from plan[job.d.kind](job, taken + PLAN)
            causes = machine.records[job.index].causes
            causes["pipeline"] += self.drain.popped + COUNTED - self.drain.step_end

    def _emit(
        self, job: Job, cycle: int, steps: int, groups: int, to: Target, gap: int = 0
    ) -> tuple[int, int]:
        """Plan a row tile in a cycle; its first and last step. `gap`: cycles before every tile's first step."""
        machine, drain = self.machine, self.drain
        take = max(cycle + 1, drain.step_end)
        first, last = drain.run(take + STEP + gap, steps, groups, to, gap)
        self._next = take + 1
        tiles = -(-groups // drain.full)
        self.steps += tiles * steps
        causes = machine.records[job.index].causes
        causes["compute"] += tiles * (steps + gap)
        causes["drain"] += last - take - tiles * (steps + gap)
        return first, last

    def _gemm(self, job: Job, start: int) -> clock.Steps:
        """Row tiles; those of a queue wait once, and an empty one is a step of which nothing is written."""
        machine, d = self.machine, job.d
        to, queued = Target(d["o_bank"], d["residual"] > 0), d["queue"] > 0
        steps, groups = (1, 1) if job.skipped else (d["k_steps"], d["groups"])
        tiles = max(job.tiles(machine.config), 1)
        for i in range(tiles):
            if queued:
                met = start if i else MET + QUEUED + (yield from machine.met(job, 0, start))
            else:
                met = MET + (yield from machine.met(job, i, start))
            cycle = max(met, self._next)
            first, last = self._emit(job, cycle, steps, groups, to)
            machine.array_reads.add(first, last + 1 - first)
            start = cycle + 1
            if not queued or i == tiles - 1:
                machine.done(MM, job, self.drain.popped + COUNTED)
        self._empty = start

    def _combine(self, job: Job, start: int) -> clock.Steps:
        """Row tiles: totals are divided, up to 4 ahead, then the slots' results are fetched and taken by the array."""
        machine, d, config = self.machine, job.d, self.machine.config
        words = config.cols // config.depth  # of a tile and slot
        period = words + FETCHED
        to = Target(d["o_bank"], d["residual"] > 0)
        tiles = -(-d["groups"] // config.tile_groups)
        rest = -(-(d["groups"] - (tiles - 1) * config.tile_groups) // 2)  # words of the last tile
        for i in range(job.tiles(config)):
            asked = MET + (yield from machine.met(job, i, start))
            if len(self._factors) == PENDING:
                asked = max(asked, self._factors[0] + FACTORS)
            while any((asked - at) % step == 0 and 0 <= asked - at < n * step for at, step, n in self._gates):
                asked += 1
            start = asked + 1
            ready = self._softmax.divided(asked + SUMS)
            cycle = max(ready, self._next)
            machine.records[job.index].causes["softmax"] += max(
                ready - max(self._next, self.drain.step_end), 0
            )
            first, last = self._emit(job, cycle, d["k"] * period - words, d["groups"], to, words)
            self.steps -= tiles * (d["k"] - 1) * words  # in which words are fetched
            self._gates.append((first - words, period, tiles * d["k"]))
            if tiles > 1:
                machine.array_reads.add(first - words, words, period, (tiles - 1) * d["k"])
            machine.array_reads.add(last + 1 - d["k"] * period, rest, period, d["k"])
            self._factors.append(self.drain.popped)
            machine.done(MM, job, self.drain.popped + COUNTED)
            self._empty = cycle + 1

    def _known(self, job: Job, head: int) -> bool:
        """Whether it is known when a head's waits are met."""
        progress = self.machine.progress
        return all(base + step * head <= len(progress[unit].times) for unit, base, step in job.waits)

    def _wait(self, job: Job, head: int, until: int) -> clock.Steps:
        """Look every `SOON` cycles whether it is known when a head's waits are met, at most until a cycle.

        Looks before the next event would find what this one does.
        """
        time = self.machine.clock
        for unit, base, step in job.waits:
            times, need = self.machine.progress[unit].times, base + step * head
            while len(times) < need and time.now < until:
                looks = max(ceil((time.next() - time.now) / SOON), 1)
                yield min(float(until), time.now + looks * SOON)

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
                    if av is not None:
                        yield from self._wait(job, planned // tiles, max(av, cycle))
                    if av is None or self._known(job, planned // tiles):
                        met = yield from machine.met(job, planned // tiles, test)
                        qk = met + MET
                    else:
                        qk = None
            first_av = av is not None and av <= cycle and planned - done >= AHEAD
            if qk is not None and not first_av and (av is None or max(qk, cycle) <= max(av, cycle)):
                cycle = max(cycle, qk)
                if planned % tiles == 0:
                    test = cycle + 1
                first, last = self._emit(job, cycle, d["qk_steps"], scores, Target())
                machine.array_reads.add(first, last + 1 - first)
                ready.append(self._softmax.ready(self.drain.popped, d["keys"]))
                planned += 1
            else:
                assert av is not None
                if av > cycle:
                    machine.records[job.index].causes["softmax"] += max(
                        av - max(cycle, self.drain.step_end), 0
                    )
                cycle = max(cycle, av)
                self._emit(job, cycle, av_steps, 2 * d["v_words"], Target(0))
                self._factors.append(self.drain.popped)
                ready.popleft()
                done += 1
                machine.done(MM, job, self.drain.popped + COUNTED)
            cycle += 1
        self._empty = cycle
