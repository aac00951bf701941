"""External memory and the AXI engines before it (axi_memory.sv, axi_read_engine.sv, axi_write_engine.sv).

Bursts are the grain. A burst may be served from `latency` cycles after its request on, in the order of requests of
its port. Ports that have a burst to be served move a beat per cycle each, or share the bandwidth equally.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, MutableMapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from math import ceil
from typing import Protocol

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.hw.cycles.clock import Clock, Series, Steps, Wait

PAGE = 4096
"""Bytes that no burst crosses (AXI)."""

FIRST_BURST = 3
"""axi_read_engine: a command is queued, taken, its first burst measured and requested."""

NEXT_BURST = 2
"""A burst is measured in one cycle and requested in the next."""

TO_MEMORY = 1
"""From the cycle that decides on a burst to its request on the bus (arvalid_q)."""

CREDIT = 2
"""From a burst's last beat served to the next request: rvalid_q, bursts_q."""

TO_UNIT = 3
"""From a beat served to its place at the output of the engine's queue: rvalid_q, then 2 in fifo_ram."""

ROOM = 1
"""From a beat taken to a request that uses its place: room_q."""

COMMANDS = 2
"""Commands that wait behind the one in work."""


class MemoryModel(Protocol):
    """What the prediction must know of the external memory: `intaglio.simulation.frame.MemoryModel` says it."""

    @property
    def latency(self) -> int:
        """Cycles from a request to its first beat."""

    @property
    def bytes_per_cycle(self) -> float:
        """Of all ports together."""


class Burst:
    """A burst: beats, and the cycles (of the bus) that its service takes.

    `kinks`: where the rate changed, the cycle and the beats left.
    """

    __slots__ = ("beats", "due", "finish", "first", "kinks", "last", "shared", "start")

    start: float
    finish: float
    first: int
    last: int
    shared: bool

    def __init__(self, beats: int, due: float) -> None:
        self.beats, self.due = beats, due
        self.kinks: Sequence[tuple[float, float]] = ()


SAVED = 1.0
"""Beats that the memory may make up for after it was not asked for all that it could do (its bucket of tokens)."""

NOTHING = 1e-6


class Server:
    """The bandwidth: every port in service gets an equal share, at most a beat per cycle."""

    def __init__(self, clock: Clock, beats_per_cycle: float) -> None:
        self.clock, self.capacity = clock, beats_per_cycle
        self._rate = 1.0  # of a port in service
        self._width = 0  # ports in service
        self._saved = SAVED
        self._work = 0.0  # beats that a port in service all the time would have got
        self._last = 0.0
        self._ends: dict[Port, float] = {}  # of ports in service: the work at which their burst is done
        self._plan = 0

    @property
    def spacing(self) -> float:
        """Cycles from a beat of a port in service to its next."""
        return max(1.0, self._width / self.capacity)

    def _advance(self) -> None:
        time = self.clock.now - self._last
        self._work += self._rate * time
        saved = self._saved + (self.capacity - self._rate * self._width) * time
        self._saved = saved if saved < SAVED else SAVED
        self._last = self.clock.now

    def _share(self) -> None:
        """The rate from now on, and the next time that something changes."""
        self._plan += 1
        if not self._ends:
            return
        lack = self._width - self.capacity
        whole = lack <= 0 or self._saved > NOTHING
        rate = 1.0 if whole else self.capacity / self._width
        if rate != self._rate:
            self._turn(rate)
        time = (min(self._ends.values()) - self._work) / rate
        if whole and lack > 0:
            time = min(time, self._saved / lack)
        self.clock.at(self._last + time, partial(self._change, self._plan))

    def _turn(self, rate: float) -> None:
        """Another rate, in the middle of bursts."""
        self._rate = rate
        for port, end in self._ends.items():
            burst = port.flight[0]
            burst.kinks = (*burst.kinks, (self._last, end - self._work))

    def enter(self, port: Port) -> None:
        """A port has a burst that may be served now.

        Beats go in turn, one of every port. Its first one waits for half of the others on average, and half of the time
        until there is bandwidth for a beat; its last one is followed by none: so much it is ahead of an equal share.
        """
        self._advance()
        alone = not self._ends
        self._width += port.width
        width, capacity = self._width, self.capacity
        turns = width / 2 + ((1 - capacity) / 2 if capacity < 1 else 1 - capacity)
        self._begin(port, 0.0 if alone else max(turns, 0.0) / width)
        self._share()

    def _begin(self, port: Port, lead: float = 0.0) -> None:
        """Start the next burst of a port; `lead`: beats by which it is ahead of its share."""
        burst = port.flight[0]
        burst.start = self.clock.now
        self._ends[port] = self._work + burst.beats - lead
        if port.begun:
            port.begun(burst)

    def _change(self, plan: int) -> None:
        """Bursts are done, or nothing is saved any more."""
        if plan != self._plan:
            return
        self._advance()
        now, shared = self._last, self._width > self.capacity
        done = [port for port, end in self._ends.items() if end <= self._work + NOTHING]
        for port in done:
            burst = port.flight.popleft()
            burst.finish, burst.shared = now, shared
            burst.first = ceil(burst.start - NOTHING)
            burst.last = ceil(now - NOTHING) - 1
            goes_on = len(port.flight) > 0 and port.flight[0].due <= now
            if goes_on:
                self._begin(port)
            else:
                del self._ends[port]
                self._width -= port.width
            port.served(burst, goes_on)
        self._share()


class Port:
    """Bursts that are on their way, of `width` AXI ports that do the same."""

    def __init__(
        self,
        clock: Clock,
        server: Server,
        width: int,
        served: Callable[[Burst], None],
        begun: Callable[[Burst], None] | None = None,
    ) -> None:
        self.clock, self.server, self.width = clock, server, width
        self.flight: deque[Burst] = deque()
        self.begun = begun
        """Called with every burst whose service begins, if anyone needs to know."""
        self._served = served
        self._entering = False
        self._active = False

    def request(self, beats: int, due: float) -> None:
        """A burst that may be served from cycle `due` on."""
        self.flight.append(Burst(beats, due))
        if not self._active:
            self._enter()

    def _enter(self) -> None:
        if self._entering or not self.flight:
            return
        self._entering = True
        self.clock.at(self.flight[0].due, self._now)

    def _now(self) -> None:
        self._entering, self._active = False, True
        self.server.enter(self)

    def served(self, burst: Burst, goes_on: bool) -> None:
        """The server is done with a burst; it goes on with the next one if that is due."""
        self._active = goes_on
        self._served(burst)
        if not goes_on:
            self._enter()


def split(address: int, beats: int, config: AcceleratorConfig) -> Sequence[int]:
    """Beats of the bursts of a command: at most `burst`, none across a page."""
    return _split(address % PAGE, beats, config.burst, config.depth)


@lru_cache(maxsize=1024)
def _split(place: int, beats: int, burst: int, depth: int) -> Sequence[int]:
    """As `split`, from a place in a page: blocks of a program are alike."""
    bursts: list[int] = []
    while beats:
        here = min((PAGE - place) // depth, beats)
        whole, rest = divmod(here, burst)
        bursts += [burst] * whole + [rest] * (rest > 0)
        place, beats = 0, beats - here
    return tuple(bursts)


class ReadEngine:
    """axi_read_engine: commands to bursts; at most `outstanding` in flight, each with room in the queue reserved.

    `taken(burst)` is called with every burst served and returns the cycle in which its last beat was taken, or None if
    the unit calls `free` later.
    """

    def __init__(
        self,
        clock: Clock,
        server: Server,
        config: AcceleratorConfig,
        latency: int,
        taken: Callable[[Burst], int | None],
        width: int = 1,
        begun: Callable[[Burst], None] | None = None,
    ) -> None:
        self.latency = latency
        self.port = Port(clock, server, width, self._served, begun)
        self.requested = Series()
        """Per command: the cycle that decided on its last burst."""
        self._taken = taken
        self._todo: deque[tuple[int, float, bool]] = deque()
        self._next = 0.0  # no request before
        self._credits = deque([0] * config.outstanding)
        """Of bursts to come: the cycle from which one may be requested."""
        self._beats = 0  # requested
        self._room = config.outstanding * config.burst  # for beats, those requested included
        self._rooms = deque([(self._room, 0)])
        """Room that there is or will be, and from which cycle on, as far as beats to come may need it."""

    def command(self, time: int, bursts: Sequence[int]) -> None:
        """A command that is handed over in cycle `time`: beats of its bursts."""
        last = len(bursts) - 1
        for number, beats in enumerate(bursts):
            self._todo.append((beats, time + FIRST_BURST if number == 0 else 0.0, number == last))
        self._issue()

    def free(self, beats: int, time: int) -> None:
        """`beats` more were taken, the last of them in cycle `time`."""
        self._room += beats
        self._rooms.append((self._room, time + ROOM))
        self._issue()

    def _issue(self) -> None:
        """Request all bursts for which credit and room are known."""
        todo, rooms = self._todo, self._rooms
        while todo and self._credits:
            beats, earliest, last = todo[0]
            need = self._beats + beats
            while rooms and rooms[0][0] < need:
                rooms.popleft()
            if not rooms:
                return
            todo.popleft()
            time = max(earliest, self._next, self._credits.popleft(), rooms[0][1])
            self._beats = need
            self._next = time + NEXT_BURST
            self.port.request(beats, time + TO_MEMORY + self.latency)
            if last:
                self.requested.append(int(time))

    def _served(self, burst: Burst) -> None:
        self._credits.append(burst.last + CREDIT)
        time = self._taken(burst)
        if time is not None:
            self.free(burst.beats, time)
        else:
            self._issue()


def explain(bursts: Sequence[Burst], since: float, causes: MutableMapping[str, float]) -> None:
    """Add where the time of bursts went: until the first beat and between bursts; in service at full rate or shared."""
    causes["latency"] += max(bursts[0].start - since, 0)
    for one, two in pairwise(bursts):
        causes["latency"] += two.start - one.finish
    for burst in bursts:
        causes["bandwidth" if burst.shared else "port"] += burst.finish - burst.start


class WriteEngine:
    """axi_write_engine with a command at a time: a burst is requested when all its data is there.

    Its queue holds two bursts; what it has no room for stays with the unit.
    """

    FIRST = 3
    """A command is queued, taken, its first burst measured and requested."""
    DATA = 3
    """From the cycle that decides on a burst to its first beat in the memory's queue: writing_q, wvalid, w_count_q."""
    RESPONSE = 1
    """b_valid_q."""
    ANSWERED = 1
    """From a response to a request in its place: bursts_q."""
    QUEUED = 1
    """From the last beat that comes to the request of its burst: have_q."""

    def __init__(self, clock: Clock, server: Server, config: AcceleratorConfig, latency: int) -> None:
        self.latency = latency
        self.places = 2 * config.burst + 1
        """Beats that the queue holds, its output included."""
        self.port = Port(clock, server, 1, self._served)
        self.answered = Series()
        """Per burst: the cycle of its response."""
        self._outstanding = config.outstanding
        self._served_at = Series()  # per burst: the cycle of its last beat in memory
        self._next = self._passed = 0
        self._left: list[
            tuple[int, int]
        ] = []  # per burst: beats so far, and when the last one leaves the queue
        self._beats = 0

    def command(self, time: int) -> None:
        """A command handed over in cycle `time`, when all before is answered."""
        self._next = time + self.FIRST
        self._left, self._beats = [], 0

    def burst(self, beats: int, here: int) -> Steps:
        """Its next burst, whose last beat comes in cycle `here`."""
        number = len(self._served_at.times) + len(self.port.flight)
        start = max(self._next, here + self.QUEUED)
        if number >= self._outstanding:
            before = number - self._outstanding
            yield self.answered, before
            start = max(start, self.answered.times[before] + self.ANSWERED)
        self._next = start + NEXT_BURST
        self.port.request(beats, start + self.DATA)
        self._passed = max(start + self.DATA - 1, self._passed + 1) + beats - 1
        self._beats += beats
        self._left.append((self._beats, self._passed))

    def room(self, beats: int) -> Generator[Wait, None, int]:
        """The cycle in which so many beats of the command have left the queue, for the memory or its queue."""
        number = next(i for i, (so_far, _) in enumerate(self._left) if so_far >= beats)
        so_far, time = self._left[number]
        first = len(self._served_at.times) + len(self.port.flight) - len(self._left)
        if number:
            # The memory's queue holds a burst.
            yield self._served_at, first + number - 1
            time = max(time, self._served_at.times[first + number - 1] + 1)
        return time - (so_far - beats)

    def _served(self, burst: Burst) -> None:
        self._served_at.append(burst.last)
        self.answered.append(burst.last + self.latency + self.RESPONSE)
