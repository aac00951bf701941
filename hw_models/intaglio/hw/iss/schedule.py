"""Unit queues, progress counters and waits: what may happen next."""

from __future__ import annotations

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor, ProgramFile
from intaglio.hw.iss.errors import IssError, blame
from intaglio.hw.iss.machine import step_count, wait_index


class Schedule:
    """Queues of unlimited depth, one per unit; `progress` counts what is complete, by unit.

    A unit's next step may be issued before earlier ones are complete; `progress` grows with `complete` only.
    """

    def __init__(self, config: AcceleratorConfig, program: ProgramFile) -> None:
        self.config = config
        self.descriptors = program.descriptors
        self.queues: dict[str, list[int]] = {unit: [] for unit in UNITS}
        for index, d in enumerate(program.descriptors):
            self.queues[BY_NAME[d.kind].unit].append(index)
        for queue in self.queues.values():
            queue.reverse()
        self.progress = dict.fromkeys(UNITS, 0)
        self.issued = dict.fromkeys(UNITS, 0)
        self.step = dict.fromkeys(UNITS, 0)

    def head(self, unit: str) -> tuple[int, Descriptor] | None:
        """The descriptor whose step comes next in `unit`, and its index."""
        queue = self.queues[unit]
        return (queue[-1], self.descriptors[queue[-1]]) if queue else None

    def ready(self, unit: str) -> int:
        """How many steps of the head of `unit` have their waits met now, from the next one on."""
        head = self.head(unit)
        if head is None:
            return 0
        first, last = self.step[unit], step_count(self.config, head[1])
        reach = last
        for other, (base, step) in head[1].waits.items():
            if not self._met(head[1], other, first):
                return 0
            if step and not self._met(head[1], other, last - 1):
                reach = min(reach, self._reach(head[1], other, base, step))
        return reach - first

    def _met(self, d: Descriptor, other: str, at: int) -> bool:
        base, step = d.waits[other]
        return self.progress[other] >= base + step * wait_index(self.config, d, at)

    def _reach(self, d: Descriptor, other: str, base: int, step: int) -> int:
        """The first step whose wait for `other` is not met."""
        highest = (self.progress[other] - base) // step
        per_index = 1 if d.kind != "ATTENTION" else step_count(self.config, d) // d["heads"]
        return (highest + 1) * per_index

    def issue(self, unit: str, steps: int) -> bool:
        """Advance the head of `unit`; True if it has no steps left (it leaves the queue)."""
        head = self.head(unit)
        assert head is not None
        self.step[unit] += steps
        self.issued[unit] += steps
        if self.step[unit] < step_count(self.config, head[1]):
            return False
        self.queues[unit].pop()
        self.step[unit] = 0
        return True

    def complete(self, unit: str, steps: int) -> None:
        """Let the counter of `unit` grow."""
        self.progress[unit] += steps

    def empty(self) -> bool:
        """Whether every step has been issued."""
        return not any(self.queues.values())

    def deadlock(self) -> IssError:
        """What to say when no unit can go on: the first descriptor that waits, and for what."""
        index, unit = min((queue[-1], unit) for unit, queue in self.queues.items() if queue)
        d = self.descriptors[index]
        at = wait_index(self.config, d, self.step[unit])
        other = next(other for other in d.waits if not self._met(d, other, self.step[unit]))
        base, step = d.waits[other]
        what = f"it waits for {other} to reach {base + step * at}, which stays at {self.progress[other]}: deadlock."
        return blame(index, d.kind, what)
