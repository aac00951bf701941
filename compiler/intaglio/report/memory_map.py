"""Which tensor lies where in the accelerator's memories, and how long: from the program and the times of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.backends.fpga.touches import touches

Ints = NDArray[np.int64]
Times = Sequence[tuple[float, float]]
"""Start and end of every descriptor."""


@dataclass(frozen=True)
class Region:
    """Cells that one descriptor wrote, from when they were written to their last read. `runs`: first cell, count."""

    writer: int
    start: float
    end: float
    runs: list[tuple[int, int]]

    @property
    def cells(self) -> int:
        return sum(count for _, count in self.runs)


@dataclass(frozen=True)
class MemoryMap:
    """One memory: its size in cells, and what lay in it."""

    name: str
    title: str
    cells: int
    regions: list[Region]

    @property
    def peak(self) -> int:
        """Most cells in use at a time."""
        changes = sorted(
            (time, change)
            for region in self.regions
            for time, change in ((region.start, region.cells), (region.end, -region.cells))
        )
        most = now = 0
        for _, change in changes:
            now += change
            most = max(most, now)
        return most

    @property
    def top(self) -> int:
        """One more than the highest cell in use."""
        return max((first + count for region in self.regions for first, count in region.runs), default=0)

    @property
    def share(self) -> float:
        return self.peak / self.cells


@dataclass
class _Space:
    """A memory while the program is followed: who wrote each cell, when it may be overwritten."""

    size: int
    owner: Ints = field(init=False)
    begin: NDArray[np.float64] = field(init=False)
    release: NDArray[np.float64] = field(init=False)
    regions: list[Region] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owner = np.full(self.size, -1, np.int64)
        self.begin, self.release = np.zeros(self.size), np.zeros(self.size)

    def read(self, cells: Ints, end: float) -> None:
        self.release[cells] = np.maximum(self.release[cells], end)

    def write(self, index: int, cells: Ints, start: float, end: float) -> None:
        """New contents begin when the old ones were last read, but not before their descriptor.

        A reader that is still at work then, an attention whose heads take turns in these cells, reads the new ones.
        """
        reading = self.release[cells]
        begin = np.clip(reading, start, end)
        self.release[cells] = np.minimum(reading, begin)
        self._close(cells)
        self.owner[cells], self.begin[cells], self.release[cells] = index, begin, np.maximum(reading, end)

    def finish(self) -> list[Region]:
        self._close(np.arange(self.size))
        return self.regions

    def _close(self, cells: Ints) -> None:
        """What was in `cells` becomes regions, one for each writer and lifetime."""
        held = np.sort(cells[self.owner[cells] >= 0])
        keys = np.stack([self.owner[held], self.begin[held], self.release[held]])
        kinds, which = np.unique(keys, axis=1, return_inverse=True)
        for number, (owner, start, end) in enumerate(kinds.T):
            self.regions.append(Region(int(owner), float(start), float(end), _runs(held[which == number])))
        self.owner[cells] = -1


def _runs(cells: Ints) -> list[tuple[int, int]]:
    """Sorted cells as stretches without a gap."""
    breaks = np.flatnonzero(np.diff(cells) != 1)
    firsts, lasts = np.r_[0, breaks + 1], np.r_[breaks, len(cells) - 1]
    return [(int(cells[a]), int(b - a + 1)) for a, b in zip(firsts, lasts, strict=True)]


def memory_maps(program: Sequence[Descriptor], config: AcceleratorConfig, times: Times) -> list[MemoryMap]:
    """Scratchpad banks and weight buffer. Experts' tensors are drawn as if every token had chosen the expert."""
    sizes = {"A": config.a_words, "X": config.x_words, "weights": config.weight_entries}
    spaces = {name: _Space(size) for name, size in sizes.items()}
    for index, (d, (start, end)) in enumerate(zip(program, times, strict=True)):
        found = [touch for touch in touches(d, config) if touch.space in spaces]
        for touch in sorted(found, key=lambda touch: touch.write):
            space, cells = spaces[touch.space], np.unique(touch.cells)
            if touch.write:
                space.write(index, cells, start, end)
            else:
                space.read(cells, end)
    titles = {"A": "bank A: int8 operands", "X": "bank X: residual stream", "weights": "weight buffer"}
    return [MemoryMap(name, titles[name], sizes[name], space.finish()) for name, space in spaces.items()]
