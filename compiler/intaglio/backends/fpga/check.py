"""Proof that a program has no race and no deadlock, by vector clocks over row tiles; independent of the scheduler.

One execution is simulated. Every substep has a clock: the progress of each unit that its waits, and those of what it
waited for, guarantee. If all conflicting accesses of this execution are ordered by clocks, they are in every execution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor
from intaglio.accelerator.progress import growth
from intaglio.backends.fpga.graph import Ints
from intaglio.backends.fpga.nodes import spaces
from intaglio.backends.fpga.touches import Touch, touches

QUEUE = 2
"""Descriptors that a unit holds, the running one included: fewer than any rendering does."""


class ScheduleError(Exception):
    """A race, a deadlock or an address out of range: a defect of the compiler."""


def check(descriptors: Sequence[Descriptor], config: AcceleratorConfig) -> None:
    """Raises ScheduleError naming the descriptor, the memory and the missing order."""
    _Checker(descriptors, config).run()


def _output_blocks(descriptors: Sequence[Descriptor], config: AcceleratorConfig) -> int:
    """Blocks of external memory up to the last that is spilled to."""
    spills = [touches(d, config) for d in descriptors if d["all_rows"]]
    return max((int(t.cells.max()) + 1 for found in spills for t in found if t.space == "output"), default=0)


class _Checker:
    """`ends[u][n - 1]`: the clock [units] when unit u's progress reaches n. `written`, `read`: [units, cells]."""

    def __init__(self, descriptors: Sequence[Descriptor], config: AcceleratorConfig) -> None:
        self.descriptors = descriptors
        self.config = config
        self.steps = [growth(d, config) for d in descriptors]
        total = dict.fromkeys(UNITS, 0)
        for d, count in zip(descriptors, self.steps, strict=True):
            total[BY_NAME[d.kind].unit] += count
        self.ends = [np.zeros((total[u], len(UNITS)), np.int64) for u in UNITS]
        self.progress = [0] * len(UNITS)
        self.started = np.zeros((len(UNITS), len(UNITS)), np.int64)
        sizes = spaces(config, _output_blocks(descriptors, config))
        self.written = {name: np.zeros((len(UNITS), size), np.int64) for name, size in sizes.items()}
        self.read = {name: np.zeros((len(UNITS), size), np.int64) for name, size in sizes.items()}

    def run(self) -> None:
        queues: list[list[int]] = [[] for _ in UNITS]
        done = [0] * len(self.descriptors)
        dispatched = 0
        while dispatched < len(self.descriptors) or any(queues):
            moved = False
            while dispatched < len(self.descriptors):
                queue = queues[UNITS.index(BY_NAME[self.descriptors[dispatched].kind].unit)]
                if len(queue) >= QUEUE:
                    break
                queue.append(dispatched)
                dispatched, moved = dispatched + 1, True
            for unit, queue in enumerate(queues):
                moved |= bool(queue) and self._advance(unit, queue, done)
            if not moved:
                index = min(queue[0] for queue in queues if queue)
                raise ScheduleError(f"descriptor {index} ({self.descriptors[index].kind}) waits for ever.")

    def _advance(self, unit: int, queue: list[int], done: list[int]) -> bool:
        """Run the substeps of a unit's first descriptor that can start; whether any could."""
        index = queue[0]
        first, last = done[index], self._ready(index, done[index])
        if last > first:
            self._execute(unit, index, first, last)
            done[index] = last
            if last == self.steps[index]:
                queue.pop(0)
        return last > first

    def _points(self, index: int) -> Ints:
        """The `i` of every substep's waits."""
        d, count = self.descriptors[index], self.steps[index]
        if d.kind == "ATTENTION":
            return np.arange(count) // (count // d["heads"])
        tiled = d.kind in ("GEMM", "COMBINE", "LAYERNORM")
        return np.arange(count) if tiled else np.zeros(count, np.int64)

    def _ready(self, index: int, first: int) -> int:
        """How many substeps may have started when no more progress is made; one at a time on a unit's own progress."""
        d, last = self.descriptors[index], self.steps[index]
        for name, (base, step) in d.waits.items():
            progress = self.progress[UNITS.index(name)]
            late = np.flatnonzero(base + step * self._points(index)[first:] > progress)
            last = min(last, first + int(late[0])) if len(late) else last
        return last

    def _clocks(self, unit: int, index: int, first: int, last: int) -> Ints:
        """Start clocks [substeps, units]."""
        clocks = np.zeros((last - first, len(UNITS)), np.int64)
        points = self._points(index)[first:last]
        for name, (base, step) in self.descriptors[index].waits.items():
            needed = base + step * points
            known = self.ends[UNITS.index(name)][np.maximum(needed - 1, 0)]
            clocks = np.maximum(clocks, np.where(needed[:, None] > 0, known, 0))
        clocks[0] = np.maximum(clocks[0], self.started[unit])
        return np.maximum.accumulate(clocks, axis=0)

    def _execute(self, unit: int, index: int, first: int, last: int) -> None:
        clocks = self._clocks(unit, index, first, last)
        d = self.descriptors[index]
        found = touches(d, self.config)
        for touch in found:
            self._check(unit, index, touch, clocks, first, last)
        if d.kind in ("GEMM", "MOVE_ROWS"):
            self._check_in_place(index, found)
        start = self.progress[unit] - first
        for touch in found:
            self._record(unit, touch, start, first, last, self.steps[index])
        self.started[unit] = clocks[-1]
        self._finish(unit, clocks)

    def _finish(self, unit: int, clocks: Ints) -> None:
        low = self.progress[unit]
        ends = clocks.copy()
        if low:
            ends[0] = np.maximum(ends[0], self.ends[unit][low - 1])
        ends = np.maximum.accumulate(ends, axis=0)
        ends[:, unit] = low + 1 + np.arange(len(clocks))
        self.ends[unit][low : low + len(clocks)] = ends
        self.progress[unit] += len(clocks)

    def _check(self, unit: int, index: int, touch: Touch, clocks: Ints, first: int, last: int) -> None:
        """Earlier conflicting accesses are over when the substep starts; a unit's own writes come in order."""
        written, read = self.written[touch.space], self.read[touch.space]
        if touch.cells.min() < 0 or touch.cells.max() >= written.shape[1]:
            raise self._error(index, touch, f"leaves the memory of {written.shape[1]}")
        whole = len(touch.cells) == 1 and self.steps[index] > 1
        if whole and first:
            return
        cells = touch.cells if whole else touch.cells[first:last]
        needed = written[:, cells].max(axis=2)
        if touch.write:
            needed = np.maximum(needed, read[:, cells].max(axis=2))
            needed[unit] = 0
        late = np.argwhere((clocks[:1] if whole else clocks) < needed.T)
        if len(late):
            step, other = (int(n) for n in late[0])
            reached = int(needed[other, step])
            raise self._error(index, touch, f"needs {UNITS[other]} at {reached}, which no wait guarantees")

    def _record(self, unit: int, touch: Touch, start: int, first: int, last: int, steps: int) -> None:
        memory = (self.written if touch.write else self.read)[touch.space]
        if len(touch.cells) == 1 and steps > 1:
            memory[unit, touch.cells] = start + steps
            return
        done = np.repeat(start + 1 + np.arange(first, last), touch.cells.shape[1])
        np.maximum.at(memory[unit], touch.cells[first:last].reshape(-1), done)

    def _check_in_place(self, index: int, found: Sequence[Touch]) -> None:
        """What is read of bank A is not the result's place."""
        operand = next(touch for touch in found if touch.space == "A" and not touch.write)
        for result in (touch for touch in found if touch.space == "A" and touch.write):
            if np.intersect1d(operand.cells, result.cells).size:
                raise self._error(index, result, "overwrites its own operand")

    def _error(self, index: int, touch: Touch, what: str) -> ScheduleError:
        d = self.descriptors[index]
        verb = "writes" if touch.write else "reads"
        return ScheduleError(
            f"descriptor {index} ({d.kind} {d.comment!r}) {verb} {touch.space} "
            f"{int(touch.cells.min())}..{int(touch.cells.max())}: it {what}."
        )
