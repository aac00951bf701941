"""What the model says of a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Span:
    """One descriptor, in cycles from the start of the run: as `intaglio.simulation.events.Span`, and what bounds it.

    It starts when it is offered to its unit, or when the unit has finished the one before: waits are included.
    """

    index: int
    kind: str
    unit: str
    start: int
    end: int
    bound: str
    comment: str

    @property
    def cycles(self) -> int:
        return self.end - self.start

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "cycles": self.cycles}


@dataclass(frozen=True)
class Prediction:
    """One frame. `macs`: products counted as `simulate` counts them; `peak`: products that a cycle can make.

    `routing`: for every ROUTE, how many tokens choose each expert, and where that comes from: `recorded`, `uniform`,
    `worst`, or nothing where there is no ROUTE.
    Frames do not overlap: a run starts when the one before has ended, so the rate is one frame per `cycles`.
    """

    cycles: int
    spans: Sequence[Span]
    macs: int
    peak: int
    array_steps: int
    clock_mhz: int
    routing: Sequence[Sequence[int]] = ()
    routed_by: str = ""

    @property
    def utilization(self) -> float:
        """Share of the array's products, over the whole frame, that are `macs`."""
        return self.macs / (self.cycles * self.peak)

    @property
    def occupancy(self) -> float:
        """Share of cycles in which the array is issued a step."""
        return self.array_steps / self.cycles

    @property
    def latency_ms(self) -> float:
        return self.cycles / (self.clock_mhz * 1e3)

    @property
    def frames_per_second(self) -> float:
        """Steady state."""
        return self.clock_mhz * 1e6 / self.cycles

    def by_kind(self) -> dict[str, int]:
        """Sum of the cycles of all descriptors of a kind."""
        total: Counter[str] = Counter()
        for span in self.spans:
            total[span.kind] += span.cycles
        return dict(total)

    def by_bound(self) -> dict[str, int]:
        """Sum of the cycles of all descriptors by what bounds them."""
        total: Counter[str] = Counter()
        for span in self.spans:
            total[span.bound] += span.cycles
        return dict(total)

    def as_json(self) -> dict[str, Any]:
        return {
            "cycles": self.cycles,
            "clock_mhz": self.clock_mhz,
            "latency_ms": self.latency_ms,
            "frames_per_second": self.frames_per_second,
            "macs_per_cycle": self.peak,
            "utilization": self.utilization,
            "occupancy": self.occupancy,
            "routing": {"how": self.routed_by, "tokens": [list(one) for one in self.routing]}
            if self.routed_by
            else None,
            "by_kind": self.by_kind(),
            "by_bound": self.by_bound(),
            "descriptors": [span.as_json() for span in self.spans],
        }
