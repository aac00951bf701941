"""When the descriptors of one run were executed, modelled or simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One descriptor's time in cycles from the start of the run, waits included. `bound`: what most of it was for."""

    start: int
    end: int
    bound: str = ""

    @property
    def cycles(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Timing:
    """One run. `source`: modelled or simulated; `spans`: of every descriptor."""

    source: str
    cycles: int
    spans: Sequence[Span]
