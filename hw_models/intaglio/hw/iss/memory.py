"""The accelerator's memories: contents and, cell by cell, whether a program has written them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.hw.iss.errors import FaultError

Data = NDArray[Any]
Cells = tuple[Data, ...]
"""One integer array per axis of `Memory.valid`; they broadcast against each other."""

PIXEL_SLOTS = 4
ROUTER_SLOTS = 2
TOP = 4
"""Experts that a token may choose."""


@dataclass
class Memory:
    """One memory. A cell is the least that is written or not: the leading axes of `data` index cells.

    `place` tells a reader where a cell is. `observer`, if any, hears of every read.
    """

    data: Data
    valid: NDArray[np.bool_]
    place: str
    observer: Callable[[Memory, Cells], None] | None = None

    def read(self, cells: Cells) -> Data:
        """Contents of `cells`: their broadcast shape, then that of a cell. FaultError if one was never written."""
        self.touch(cells)
        return np.asarray(self.data[cells])

    def copy(self, cells: Cells) -> tuple[Data, NDArray[np.bool_]]:
        """As `read`, whether written or not, and which cells are."""
        if self.observer:
            self.observer(self, cells)
        return np.asarray(self.data[cells]), np.asarray(self.valid[cells])

    def touch(self, cells: Cells) -> None:
        """As `read`, without the contents."""
        if self.observer:
            self.observer(self, cells)
        valid = self.valid[cells]
        if not valid.all():
            cell = locate(cells, ~valid)
            raise FaultError(f"it reads {self.place.format(*cell)}, which nothing has written yet.")


def locate(cells: Cells, mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """The first of `cells` where `mask` (their broadcast shape) holds."""
    at = tuple(np.argwhere(mask)[0])
    return tuple(int(axis[at]) for axis in np.broadcast_arrays(*cells))


@dataclass(frozen=True)
class Write:
    """Values for `cells`, or for the first `length` bytes of each; `source` > 0 names what they were loaded by."""

    memory: Memory
    cells: Cells
    values: Data
    length: int | None = None
    source: int = 0
    defined: NDArray[np.bool_] | None = None
    """Which cells hold something, if not all."""


class Memories:
    """All memories of one configuration, for one run.

    bank_a, bank_x    int8 [words, R, D], cells (word, row)
    weights           int8 [entries, C, D / R, R], cells (entry, column, granule of R bytes)
    params            int64 [groups, G, 3] of bias, multiplier, shift; cells (group,)
    norm              int64 [channels, 2] of gain, offset; cells (channel,)
    activation, exponential, pixel   int64 [slots, 256], cells (slot,)
    router            int64 [2, 256], cells (slot,)
    lengths           int64 [experts], cells (expert,): tokens in its queue
    queues            int64 [experts, max_keys, 2] of token, slot; cells (expert,)
    gates             int64 [max_keys, 4], cells (token,): gate weight of every slot
    totals            int64 [max_keys], cells (token,)
    output            uint8 [beats, D], cells (beat,)
    source            int64 [entries]: which LOAD_WEIGHTS, and of which task, a weight entry is from; 0: none
    """

    def __init__(self, config: AcceleratorConfig, output_bytes: int) -> None:
        r, d, c = config.rows, config.depth, config.cols
        self.config = config
        self.bank_a = _memory((config.a_words, r), (d,), np.int8, "row {1} of word {0} of bank A")
        self.bank_x = _memory((config.x_words, r), (d,), np.int8, "row {1} of word {0} of bank X")
        self.weights = _memory(
            (config.weight_entries, c, d // r), (r,), np.int8, "entry {0}, column {1} of the weight buffer"
        )
        self.params = _memory(
            (config.param_groups,), (config.group, 3), np.int64, "group {0} of the parameter buffer"
        )
        self.norm = _memory((config.norm_channels,), (2,), np.int64, "channel {0} of the LayerNorm buffer")
        slots = config.table_slots
        self.activation = _memory((slots,), (256,), np.int64, "slot {0} of the activation table")
        self.exponential = _memory((slots,), (256,), np.int64, "slot {0} of the exponential table")
        self.pixel = _memory((PIXEL_SLOTS,), (256,), np.int64, "slot {0} of the pixel table")
        experts, keys = config.experts, config.max_keys
        self.router = _memory((ROUTER_SLOTS,), (256,), np.int64, "slot {0} of the router table")
        self.lengths = _memory((experts,), (), np.int64, "the length of the queue of expert {0}")
        self.queues = _memory((experts,), (keys, 2), np.int64, "the queue of expert {0}")
        self.gates = _memory((keys,), (TOP,), np.int64, "the gate weights of token {0}")
        self.totals = _memory((keys,), (), np.int64, "the sum of gate weights of token {0}")
        beats = -(-output_bytes // d)
        self.output = _memory((beats,), (d,), np.uint8, "beat {0} of the output")
        self.source = np.zeros(config.weight_entries, np.int64)

    def bank(self, number: int) -> Memory:
        """Bank A (0) or X (1)."""
        return self.bank_x if number else self.bank_a

    def table(self, number: int) -> Memory:
        """The table memory with this number in LOAD_TABLE."""
        return (self.activation, self.exponential, self.pixel, self.router)[number]

    def __iter__(self) -> Iterator[tuple[str, Memory]]:
        """Names and memories that a program writes."""
        for name in _NAMES:
            yield name, getattr(self, name)

    def apply(self, writes: list[Write]) -> None:
        """Perform writes."""
        for write in writes:
            part: tuple[Any, ...] = write.cells
            if write.length is not None:
                part = (*write.cells, ..., slice(0, write.length))
            write.memory.data[part] = write.values
            write.memory.valid[write.cells] = True if write.defined is None else write.defined
            if write.memory is self.weights:
                self.source[write.cells[0]] = write.source

    def poison(self, rng: np.random.Generator) -> None:
        """Fill scratchpads and weight buffer with noise, so that use of undefined bytes changes results."""
        for memory in (self.bank_a, self.bank_x, self.weights):
            memory.data[...] = rng.integers(-128, 128, memory.data.shape, np.int8)

    def dump(self) -> dict[str, Data]:
        """Copies of all contents, and of what is valid as `<name>_valid`.

        Banks are uint8 [words, R * D], weights uint8 [entries, C * D], byte by byte as the accelerator has them.
        """
        copies: dict[str, Data] = {}
        for name, memory in self:
            data = memory.data.copy()
            flat = data.dtype == np.int8
            copies[name] = data.reshape(len(data), -1).view(np.uint8) if flat else data
            copies[f"{name}_valid"] = memory.valid.copy()
        return copies


_NAMES = (
    "bank_a", "bank_x", "weights", "params", "norm", "activation", "exponential", "pixel",
    "router", "lengths", "queues", "gates", "totals", "output",
)  # fmt: skip


def _memory(cells: tuple[int, ...], cell: tuple[int, ...], dtype: type, place: str) -> Memory:
    return Memory(np.zeros((*cells, *cell), dtype), np.zeros(cells, np.bool_), place)
