"""Time: events in order, and series of instants that processes wait for."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Generator
from heapq import heappop, heappush

Wait = tuple["Series", int] | float
"""What a process yields: an element of a series that it needs, or the cycle at which it goes on."""

Steps = Generator[Wait, None, None]


class Clock:
    """Runs actions in the order of their cycles."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Run `action` at a cycle, or now if that is over."""
        self._count += 1
        heappush(self._heap, (max(time, self.now), self._count, action))

    def run(self) -> None:
        """Until nothing is left to do."""
        while self._heap:
            self.now, _, action = heappop(self._heap)
            action()

    def start(self, process: Steps) -> None:
        """Begin a process."""
        self.at(self.now, lambda: self._resume(process))

    def _resume(self, process: Steps) -> None:
        """Let a process run until what it needs is not known yet."""
        for wait in process:
            if isinstance(wait, tuple):
                series, index = wait
                if index < len(series.times):
                    continue
                series.call(index, lambda: self.at(self.now, lambda: self._resume(process)))
            else:
                self.at(wait, lambda: self._resume(process))
            return


class Series:
    """Cycles at which something happened for the first, second, ... time; they may be known in advance."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def append(self, time: int) -> None:
        """The next element; who waits for it goes on."""
        self.times.append(time)
        while self._waiting and self._waiting[0][0] < len(self.times):
            self._waiting.pop(0)[2]()

    def call(self, index: int, action: Callable[[], None]) -> None:
        """Call `action` once element `index` is known."""
        self._count += 1
        insort(self._waiting, (index, self._count, action))
