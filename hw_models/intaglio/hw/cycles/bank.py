"""Ports that units share: the cycles in which one is taken, and how long another needs for what is left."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import merge
from math import ceil

Interval = tuple[int, int]
"""Cycles from, to: the second is the first that is free."""


class Usage:
    """Cycles in which a port is taken: `count` times `width` cycles, `period` cycles apart, and again."""

    def __init__(self) -> None:
        self.version = 0
        self.end = 0
        """From here on, nothing is known to be taken."""
        self._starts: list[int] = []
        self._runs: list[tuple[int, int, int, int]] = []  # start, width, period, count

    def add(self, start: int, width: int, period: int = 0, count: int = 1) -> None:
        """Taken from `start` on; starts do not fall."""
        self.version += 1
        end = start + (count - 1) * period + width
        if end > self.end:
            self.end = end
        self._starts.append(start)
        self._runs.append((start, width, period, count))

    def mark(self) -> int:
        """A place to `rewind` to."""
        return len(self._runs)

    def rewind(self, mark: int) -> None:
        """Forget what was added since: it was a guess."""
        self.version += 1
        del self._starts[mark:], self._runs[mark:]

    def intervals(self, start: int) -> Iterator[Interval]:
        """Those that may reach beyond cycle `start`, in order of their starts."""
        at = max(bisect_right(self._starts, start) - 2, 0)
        for begin, width, period, count in self._runs[at:]:
            over = max((start - begin - width) // period + 1, 0) if period else 0
            for number in range(over, count):
                yield begin + number * period, begin + number * period + width


def idle(usages: Sequence[Usage], start: int) -> bool:
    """Whether nothing is known to be taken from cycle `start` on."""
    for usage in usages:  # noqa: SIM110 - `all` takes three times as long
        if usage.end > start:
            return False
    return True


def taken(usages: Sequence[Usage], start: int) -> Iterator[Interval]:
    """Intervals of all usages that may reach beyond cycle `start`, in order of their starts."""
    busy = [usage.intervals(start) for usage in usages if usage.end > start]
    return busy[0] if len(busy) == 1 else merge(*busy)


def free(usages: Sequence[Usage], start: int, count: int) -> list[Interval]:
    """Where `count` accesses go that take every cycle from `start` on which no usage has.

    Where usages meet, one waits for the other: both take their time.
    """
    found, time = [], start
    for begin, end in taken(usages, start):
        begin = max(begin, start)
        if end <= begin:
            continue
        if begin - time >= count:
            break
        if begin > time:
            found.append((time, begin))
            count -= begin - time
        time = max(time, begin) + end - begin
    return [*found, (time, time + count)]


def served(usages: Sequence[Usage], start: int, end: int, count: int) -> int:
    """When the last of `count` accesses is made wanted evenly from cycle `start` to `end`, or all at once.

    Each waits for the ones before and for a cycle that no usage takes.
    """
    if idle(usages, start):
        return max(start + count - 1, end)
    spacing = (end - start) / max(count - 1, 1)
    last = free(usages, start, count)[-1][1] - 1
    if spacing <= 1:
        return last
    last = max(last, free(usages, end, 1)[-1][1] - 1)
    for begin, _ in taken(usages, start):
        if begin >= end:
            break
        if begin > start:
            left = count - ceil((begin - start) / spacing)
            last = max(last, free(usages, begin, left)[-1][1] - 1)
    return last
