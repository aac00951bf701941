"""What the test bench logged, as the time every descriptor took, and as a Chrome/Perfetto trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor
from intaglio.accelerator.progress import growth


@dataclass(frozen=True)
class Span:
    """One descriptor of one run, in cycles from the start of the run.

    It starts when it is offered to its unit, or when the unit has finished the one before: waits are included.
    """

    image: int
    index: int
    kind: str
    unit: str
    start: int
    end: int
    comment: str

    @property
    def cycles(self) -> int:
        return self.end - self.start

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "cycles": self.cycles}


@dataclass(frozen=True)
class _Event:
    cycle: int
    unit: int
    value: int
    offered: bool


def parse(lines: Iterable[str]) -> Iterator[_Event]:
    """Lines of the events file; a last line that was cut off is left out."""
    for line in lines:
        words = line.split()
        if len(words) == 4:
            yield _Event(int(words[0]), int(words[2]), int(words[3]), words[1] == "A")


def spans(
    lines: Iterable[str],
    descriptors: Sequence[Descriptor],
    begins: Sequence[int],
    config: AcceleratorConfig,
    comments: Mapping[int, str],
) -> list[Span]:
    """The time of every descriptor of every run; `begins`: the cycle in which each run was started."""
    runs = _by_run(list(parse(lines)), begins)
    return [
        span
        for image, (begin, events) in enumerate(zip(begins, runs, strict=True))
        for unit in range(len(UNITS))
        for span in _unit_spans(image, unit, begin, events, descriptors, config, comments)
    ]


def _by_run(events: Sequence[_Event], begins: Sequence[int]) -> list[list[_Event]]:
    ends = [*begins[1:], 1 << 62]
    return [
        [event for event in events if begin <= event.cycle < end]
        for begin, end in zip(begins, ends, strict=True)
    ]


def _unit_spans(
    image: int,
    unit: int,
    begin: int,
    events: Sequence[_Event],
    descriptors: Sequence[Descriptor],
    config: AcceleratorConfig,
    comments: Mapping[int, str],
) -> Iterator[Span]:
    """A descriptor ends when its unit's counter has grown by its share; it starts when offered, or the last ended."""
    mine = [i for i, d in enumerate(descriptors) if BY_NAME[d.kind].unit == UNITS[unit]]
    taken = [event.cycle for event in events if event.unit == unit and event.offered]
    progress = [event for event in events if event.unit == unit and not event.offered and event.value]
    reached, previous, position = 0, 0, 0
    for index, cycle in zip(mine, taken, strict=False):
        reached += growth(descriptors[index], config)
        while position < len(progress) and progress[position].value < reached:
            position += 1
        if position == len(progress):
            return
        end = progress[position].cycle
        start = max(cycle, previous)
        previous = end
        kind = descriptors[index].kind
        yield Span(image, index, kind, UNITS[unit], start - begin, end - begin, comments.get(index, ""))


def perfetto(found: Sequence[Span], begins: Sequence[int], clock_mhz: int) -> dict[str, Any]:
    """A trace in Chrome's JSON format, one track per unit; times in microseconds at `clock_mhz`."""
    names = [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": i, "args": {"name": name}}
        for i, name in enumerate(UNITS)
    ]
    events = [
        {
            "ph": "X",
            "name": span.kind if not span.comment else f"{span.kind} {span.comment}",
            "pid": 0,
            "tid": UNITS.index(span.unit),
            "ts": (begins[span.image] + span.start) / clock_mhz,
            "dur": span.cycles / clock_mhz,
            "args": {"descriptor": span.index, "cycles": span.cycles, "image": span.image},
        }
        for span in found
    ]
    return {"traceEvents": names + events, "displayTimeUnit": "ns"}
