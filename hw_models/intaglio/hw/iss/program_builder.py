"""Assembles a legal program: places data, runs descriptors as they are added, derives waits from the ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor, ProgramFile
from intaglio.hw.iss.kernels import KERNELS
from intaglio.hw.iss.layout import ceil_div
from intaglio.hw.iss.ledger import Access, Counts, Ledger
from intaglio.hw.iss.machine import Machine, row_tiles, step_count, wait_index
from intaglio.hw.iss.memory import Cells, Data, Memories, Memory

BLOCK = 64
SPILL_BASE = 1 << 20
"""Where the spill area begins while a program is built; in the end it follows the result."""
_MAX_STEP = 4


class NoRoomError(Exception):
    """A memory is too small, or too full of tensors in use, for what was to be placed."""


@dataclass(frozen=True)
class Tensor:
    """Rows of `words` words in a bank, every byte of which is defined."""

    bank: int
    addr: int
    stride: int
    words: int
    rows: int


class Builder:
    """Adds descriptors one by one. `rng` decides on addresses and on how waits are written."""

    def __init__(self, config: AcceleratorConfig, rng: np.random.Generator, image: bytes) -> None:
        self.config, self.rng = config, rng
        self.weights = bytearray()
        self.output_bytes = self.spill_bytes = 0
        self.descriptors: list[Descriptor] = []
        self.memories = Memories(config, 2 * SPILL_BASE)
        self.machine = Machine(config, self.memories, self.weights, image)
        self.ledger = Ledger(self.memories)
        self.counts = np.zeros(len(UNITS), np.int64)
        self.pinned: set[Tensor] = set()
        self.unstored: list[Tensor] = []
        self.live: list[Tensor] = []
        self._reads: list[Access] = []
        for _, memory in self.memories:
            memory.observer = self._observe

    def _observe(self, memory: Memory, cells: Cells) -> None:
        self._reads.append((memory, cells))

    def block(self, data: Data) -> int:
        """Append an array to weights.bin as one block; its offset."""
        gap = int(self.rng.integers(0, 3)) * BLOCK
        self.weights += bytes(-len(self.weights) % BLOCK + gap)
        offset = len(self.weights)
        self.weights += np.ascontiguousarray(data).tobytes()
        return offset

    def place(self, bank: int, rows: int, words: int) -> Tensor:
        """Room at a random place for a tensor; what lies there and is not pinned is stored and given up.

        Raises NoRoomError.
        """
        limit = self.config.x_words if bank else self.config.a_words
        stride = words + int(self.rng.integers(0, 3))
        span = (ceil_div(rows, self.config.rows) - 1) * stride + words
        for _ in range(20 if span <= limit else 0):
            tensor = Tensor(bank, int(self.rng.integers(0, limit - span + 1)), stride, words, rows)
            hit = [other for other in self.live if self._overlap(tensor, other)]
            if not self.pinned.intersection(hit):
                for other in hit:
                    self.give_up(other)
                return tensor
        raise NoRoomError

    def _overlap(self, one: Tensor, other: Tensor) -> bool:
        low, high = self._extent(one)
        start, end = self._extent(other)
        return one.bank == other.bank and low < end and start < high

    def _extent(self, tensor: Tensor) -> tuple[int, int]:
        span = (ceil_div(tensor.rows, self.config.rows) - 1) * tensor.stride + tensor.words
        return tensor.addr, tensor.addr + span

    def keep(self, tensor: Tensor, computed: bool = True) -> Tensor:
        """Remember a tensor as one that exists; if `computed`, its bytes must reach the result."""
        self.live.append(tensor)
        if computed:
            self.unstored.append(tensor)
        return tensor

    def give_up(self, tensor: Tensor) -> None:
        """Store a tensor if need be, and forget it."""
        self.live.remove(tensor)
        if tensor in self.unstored:
            self.unstored.remove(tensor)
            self.store(tensor)

    def store(self, tensor: Tensor) -> None:
        """One STORE per row, each to a block of its own."""
        rows, depth = self.config.rows, self.config.depth
        for token in self.rng.permutation(tensor.rows):
            addr = tensor.addr + int(token) // rows * tensor.stride
            fields = {"addr": addr, "words": tensor.words, "bank": tensor.bank, "row": int(token) % rows}
            self.add("STORE", offset=self.output_bytes, **fields)
            self.output_bytes += ceil_div(tensor.words * depth, BLOCK) * BLOCK

    def fill(self, tensor: Tensor, data: Data) -> None:
        """LOAD_ROWS of int8 [row tiles, words, R, D] to a tensor."""
        tiles = len(data)
        if tensor.stride == tensor.words and self.rng.random() < 0.5:
            self._load_rows(tensor, tensor.addr, data)
            return
        for tile in range(tiles):
            self._load_rows(tensor, tensor.addr + tile * tensor.stride, data[tile])

    def _load_rows(self, tensor: Tensor, addr: int, data: Data) -> None:
        words = data.size // self.config.word_bytes
        self.add("LOAD_ROWS", offset=self.block(data), addr=addr, words=words, bank=tensor.bank)

    def add(self, kind: str, between: Callable[[int], None] | None = None, /, **fields: int) -> None:
        """Append a descriptor with the waits it needs.

        `between(i)` is called before the steps whose wait index is i: what it adds comes later in the program, and
        is ordered before those steps by waits alone (COPY_KV for later heads of ATTENTION).
        """
        d, index = Descriptor(kind, fields), len(self.descriptors)
        self.descriptors.append(d)
        unit = UNITS.index(BY_NAME[kind].unit)
        before = int(self.counts[unit])
        needs: dict[int, Counts] = {}
        limits: dict[int, Counts] = {}
        for step in range(step_count(self.config, d)):
            at = wait_index(self.config, d, step)
            if between and at not in needs:
                between(at)
            limits.setdefault(at, self.counts.copy())
            needs[at] = np.maximum(needs.get(at, 0), self._step(index, d, step))
        for limit in limits.values():
            limit[unit] = before
        self.descriptors[index] = replace(d, waits=self._waits(list(needs.values()), list(limits.values())))

    def _step(self, index: int, d: Descriptor, step: int) -> Counts:
        """Run one step; what it needs."""
        unit = BY_NAME[d.kind].unit
        self._reads = []
        writes = KERNELS[d.kind](self.machine, index, d, step, step + 1)
        reads, written = self._reads, [(write.memory, write.cells) for write in writes]
        needed = self.ledger.needed(unit, reads, written)
        self.counts[UNITS.index(unit)] += 1
        self.ledger.record(unit, int(self.counts[UNITS.index(unit)]), reads, written)
        self.memories.apply(writes)
        return needed

    def _waits(self, needs: list[Counts], limits: list[Counts]) -> dict[str, tuple[int, int]]:
        waits = {}
        for number, unit in enumerate(UNITS):
            need = [int(counts[number]) for counts in needs]
            if any(need):
                waits[unit] = self._fit(need, [int(counts[number]) for counts in limits])
        return waits

    def _fit(self, need: list[int], limit: list[int]) -> tuple[int, int]:
        """A (base, step) that reaches every need and asks for nothing that comes later."""
        for step in self.rng.permutation(_MAX_STEP):
            base = max(0, *(value - int(step) * i for i, value in enumerate(need)))
            if all(base + int(step) * i <= most for i, most in enumerate(limit)):
                return base, int(step)
        raise AssertionError(f"no wait fits {need} within {limit}")

    def finish(self) -> ProgramFile:
        """Store what is left, and close the program."""
        for tensor in list(self.unstored):
            self.give_up(tensor)
        result, image = max(self.output_bytes, BLOCK), self.machine.image
        descriptors = [_moved(d, result - SPILL_BASE) for d in self.descriptors]
        return ProgramFile(
            self.config.hash,
            len(image),
            result + self.spill_bytes,
            len(self.weights),
            descriptors,
            self.spill_bytes,
        )


def _moved(d: Descriptor, distance: int) -> Descriptor:
    """A descriptor with its place in the spill area moved."""
    if not (d["spilled"] or d["all_rows"]):
        return d
    return replace(d, fields={**d.fields, "offset": d["offset"] + distance})


def tiles_of(config: AcceleratorConfig, rows: int) -> int:
    """Row tiles of so many rows."""
    return row_tiles(config, Descriptor("GEMM", {"rows": rows}))
