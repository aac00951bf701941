"""What the memories of a configuration become, as Yosys maps them: block RAM, UltraRAM or LUT RAM."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS, unit_words


class Memory(NamedTuple):
    """`number` memories of `words` x `bits` with one read and one write port; a write enable per `enable` bits.

    `style`: what the RTL asks for, "block" or "distributed"; "" leaves it to the tool.
    """

    number: int
    words: int
    bits: int
    enable: int
    style: str = ""


@cache
def _queues(routed: bool) -> tuple[Memory, ...]:
    """The queues of the units: of a descriptor they hold the words up to the last that the unit has a field in."""
    return tuple(Memory(1, 8, bits, bits) for bits in (32 * unit_words(unit, routed) for unit in UNITS))


RECORD_BITS = 340
"""Bits of the record that goes with a tile of accumulators, without those of rows and of a table's slot."""

GATE_BITS = 81
"""Bits of the four gate weights of a token, and of their total."""


def memories(c: AcceleratorConfig) -> Iterator[Memory]:
    """Every memory of the accelerator."""
    beat, lanes, column_tiles = 8 * c.depth, c.rows * c.depth // 2, 2 * c.cols // c.depth
    width = max(c.rows, 4)
    words = _power(c.max_keys // c.depth)
    yield Memory(c.rows, c.a_words, beat, 8)
    yield Memory(c.rows, c.x_words, beat, 8)
    yield Memory(c.cols * c.depth // width, c.weight_entries, 8 * width, 8 * c.rows, "block")
    yield Memory(1, c.param_groups, 4 * beat, beat, "block")
    yield Memory(2, c.norm_channels, 64, 64)
    yield Memory(lanes, 256 * c.table_slots, 16, 16, "block")
    yield Memory(lanes, 256 * c.table_slots, 15, 15, "block")
    yield Memory(c.depth, 1024, 8, 8)
    yield Memory(1, 8 * words, 8 * lanes, 8 * lanes, "block")
    yield Memory(2, 4 * words, 15 * lanes, 15 * lanes, "distributed")
    yield Memory(c.weight_ports + 2, c.burst * c.outstanding, beat, beat)
    yield Memory(1, 2 * c.burst, beat, beat)
    yield Memory(c.weight_ports + 3, 2, 64, 64, "distributed")
    yield Memory(c.weight_ports, 8, 32, 32, "distributed")
    yield Memory(1, max(2, c.outstanding), 8, 8, "distributed")
    yield Memory(1, max(2, c.outstanding), 1, 1, "distributed")
    yield from _queues(c.experts > 0)
    yield Memory(column_tiles, 16, 32 * lanes, 32 * lanes, "distributed")
    yield Memory(1, 16, 26 * c.rows, 26 * c.rows, "distributed")
    yield Memory(column_tiles, 16, 10 * c.depth, 10 * c.depth, "distributed")
    yield Memory(1, 16, 16 * lanes, 16 * lanes, "distributed")
    record = RECORD_BITS + c.rows + _bits(c.table_slots)
    yield Memory(1, 16, record, record, "distributed")
    if c.experts:
        yield from _router(c)


def _router(c: AcceleratorConfig) -> Iterator[Memory]:
    token_bits = _bits(c.max_keys)
    experts = _power(c.experts)
    yield Memory(1, experts * 2**token_bits, token_bits + 2, token_bits + 2, "block")
    yield Memory(c.rows, 32, 8 * c.depth, 8 * c.depth, "distributed")
    target = 17 + _bits(c.rows) + 8 * c.depth
    yield Memory(1, 4, target, target)
    yield Memory(1, experts, 16, 16, "distributed")
    yield Memory(2, 256, 16, 16, "distributed")
    yield Memory(c.rows, c.max_keys // c.rows, GATE_BITS, GATE_BITS)


def _bits(number: int) -> int:
    """Bits of an index into `number` places, at least 1."""
    return max(1, (number - 1).bit_length())


def _power(number: int) -> int:
    """The power of two that holds `number` places, at least 2."""
    return 1 << _bits(number)


class Cell(NamedTuple):
    """A memory cell of a family: `amount` BRAM36, UltraRAMs or LUTs; `cost` to the tool, which takes the cheapest.

    `byte`: bits that share a write enable; 0: all do.
    """

    kind: str
    bits: int
    words: int
    amount: float
    cost: int
    byte: int = 0


_HALF = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
_FULL = ((72, 512), (36, 1024), (18, 2048), (9, 4096), (4, 8192), (2, 16384), (1, 32768))
_XILINX = (
    *(Cell("block", *shape, 0.5, 129, 9) for shape in _HALF),
    *(Cell("block", *shape, 1.0, 257, 9) for shape in _FULL),
)

CELLS = {
    "ultrascale+": (
        *_XILINX,
        Cell("ultra", 72, 4096, 1, 1024, 8),
        Cell("distributed", 14, 32, 8, 16),
        Cell("distributed", 7, 64, 8, 16),
    ),
    "7-series": (*_XILINX, Cell("distributed", 6, 32, 4, 8), Cell("distributed", 3, 64, 4, 8)),
    "ecp5": (*(Cell("block", *shape, 0.5, 128, 9) for shape in _HALF), Cell("distributed", 4, 16, 6, 4)),
}

MULTIPLEXER = 0.5
"""Cost of choosing between two cells, per bit read."""


class Mapped(NamedTuple):
    """What one memory becomes: `lut` hold its bits; `banks`: cells of which one is read at a time, per bit."""

    bram36: float
    uram: int
    lut: int
    banks: int


@cache
def mapped(memory: Memory, family: str, uram: bool = False) -> Mapped:
    """What `memory` becomes: the cheapest of what its style allows. `uram`: the device has UltraRAM."""
    kinds = {memory.style} if memory.style else {"block", "distributed", *(["ultra"] if uram else [])}
    _, amount, banks, kind = min(_priced(memory, cell) for cell in CELLS[family] if cell.kind in kinds)
    if kind == "block":
        return Mapped(amount, 0, 0, banks)
    if kind == "ultra":
        return Mapped(0, int(amount), 0, banks)
    return Mapped(0, 0, int(amount), banks)


def _priced(memory: Memory, cell: Cell) -> tuple[float, float, int, str]:
    """Cost, amount, banks and kind of `memory` out of `cell`. Parts with write enables of their own share no byte."""
    parts, banks = memory.bits // memory.enable, -(-memory.words // cell.words)
    if parts == 1:
        number = banks * -(-memory.bits // cell.bits)
    elif cell.bits >= cell.byte > 0:
        number = -(-banks * parts * -(-memory.enable // cell.byte) * cell.byte // cell.bits)
    else:
        number = banks * parts * -(-memory.enable // cell.bits)
    return (
        number * cell.cost + MULTIPLEXER * memory.bits * (banks - 1),
        number * cell.amount,
        banks,
        cell.kind,
    )
