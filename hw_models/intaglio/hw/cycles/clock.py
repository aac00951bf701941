"""Time: events in order, and series of instants that processes wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush

Action = Callable[[], None]

Wait = tuple["Series", int] | float
"""What a process yields: an element of a series that it needs, or the cycle at which it goes on."""

Steps = Generator[Wait, None, None]


class Clock:
    """Runs actions in the order of their cycles; those of the same cycle in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._later: list[tuple[float, int, Action]] = []  # a heap
        self._now: deque[Action] = deque()
        """After what the heap has for this cycle, which was asked for before."""
        self._count = 0

    def at(self, time: float, action: Action) -> None:
        """Run `action` at a cycle, or now if that is over."""
        if time > self.now:
            self._count += 1
            heappush(self._later, (time, self._count, action))
        else:
            self._now.append(action)

    def soon(self, action: Action) -> None:
        """Run `action` in this cycle, after all that was asked for before."""
        self._now.append(action)

    def next(self) -> float:
        """The first cycle from now on in which anything may change."""
        return self.now if self._now or not self._later else self._later[0][0]

    def run(self) -> None:
        """Until nothing is left to do."""
        later, now = self._later, self._now
        while later or now:
            if now and not (later and later[0][0] <= self.now):
                now.popleft()()
            else:
                self.now, _, action = heappop(later)
                action()

    def start(self, process: Steps) -> None:
        """Begin a process."""
        self.soon(_Process(self, process).resume)


class _Process:
    """A process and how it goes on."""

    __slots__ = ("_clock", "_steps")

    def __init__(self, clock: Clock, steps: Steps) -> None:
        self._clock, self._steps = clock, steps

    def resume(self) -> None:
        """Run until what the process needs is not known yet."""
        for wait in self._steps:
            if not isinstance(wait, tuple):
                self._clock.at(wait, self.resume)
                return
            series, index = wait
            if index >= len(series.times):
                series.call(index, self._wake)
                return

    def _wake(self) -> None:
        self._clock.soon(self.resume)


class Series:
    """Cycles at which something happened for the first, second, ... time; they may be known in advance."""

    __slots__ = ("_waiting", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self._waiting: dict[int, list[Action]] = {}

    def append(self, time: int) -> None:
        """The next element; who waits for it goes on."""
        waiting = self._waiting.pop(len(self.times), ())
        self.times.append(time)
        for action in waiting:
            action()

    def call(self, index: int, action: Action) -> None:
        """Call `action` once element `index` is known, which it is not yet."""
        self._waiting.setdefault(index, []).append(action)
