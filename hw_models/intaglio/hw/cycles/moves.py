"""MOVE_ROWS: a word is read and, three cycles later or when the port is free, written (move_rows.sv)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from intaglio.hw.cycles.bank import Interval, Usage, taken

WAITING = 5
"""Words read and not yet written, at most."""

WRITE = 3
"""From a read granted to the write: read_q, and 2 in fifo_ram."""

ROOM = 1
"""From a write granted to a read that uses its place: room_q."""

FOREVER = 1 << 60


class Cursor:
    """Cycles in which a port is free, asked for in order."""

    def __init__(self, usages: Sequence[Usage], start: int) -> None:
        self._busy = taken(usages, start)
        self._next = next(self._busy, (FOREVER, FOREVER))

    def free(self, time: int) -> Interval:
        """The first free cycle from `time` on, and the first one after it that is taken."""
        while self._next[0] <= time:
            time = max(time, self._next[1])
            self._next = next(self._busy, (FOREVER, FOREVER))
        return time, self._next[0]


def moved(
    readers: Sequence[Usage], writers: Sequence[Usage], first: int, count: int
) -> tuple[list[Interval], int]:
    """When `count` words are read, from cycle `first` on, and the last write; `readers` and `writers` go first."""
    read_port, write_port = Cursor(readers, first), Cursor(writers, first + WRITE)
    reads: list[Interval] = []
    written: deque[int] = deque([-1] * WAITING, maxlen=WAITING)
    time = first
    while count:
        time, until = read_port.free(max(time, written[0] + ROOM))
        write, write_until = write_port.free(max(time + WRITE, written[-1] + 1))
        many = 1
        if write == time + WRITE:
            # Writes follow reads: nothing waits until one of the ports is taken.
            many = min(count, until - time, write_until - write)
        if reads and reads[-1][1] == time:
            reads[-1] = (reads[-1][0], time + many)
        else:
            reads.append((time, time + many))
        written.extend(range(max(write, write + many - WAITING), write + many))
        time += many
        count -= many
    return reads, written[-1]
