"""What the memories of a configuration become, as Yosys maps them: block RAM, UltraRAM or LUT RAM."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import KINDS, UNITS


class Memory(NamedTuple):
    """`number` memories of `words` x `bits` with one read and one write port; a write enable per `enable` bits.

    `style`: what the RTL asks for, "block" or "distributed"; "" leaves it to the tool.
    """

    number: int
    words: int
    bits: int
    enable: int
    style: str = ""


def _queue_words(unit: str) -> int:
    """Words of a descriptor, from the first, that the kinds of `unit` have fields in; the waits end in word 5."""
    ends = [
        field.word + (field.width + 31) // 32 for kind in KINDS if kind.unit == unit for field in kind.fields
    ]
    return max(1 + len(UNITS), *ends)


_QUEUES = tuple(Memory(1, 8, 32 * words, 32 * words) for words in map(_queue_words, UNITS))

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
    yield from _QUEUES
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
    yield Memory(1, experts, 16, 16, "distributed")
    yield Memory(2, 256, 16, 16, "distributed")
    yield Memory(c.rows, c.max_keys // c.rows, GATE_BITS, GATE_BITS)


def _bits(number: int) -> int:
    """Bits of an index into `number` places, at least 1."""
    return max(1, (number - 1).bit_length())


def _power(number: int) -> int:
    """The power of two that holds `number` places, at least 2."""
    return 1 << _bits(number)


class Library(NamedTuple):
    """The memory cells of a family.

    Of a block: bits, words, BRAM36, and its cost to the tool, which takes what costs least; of a LUT RAM: LUTs instead.
    """

    blocks: tuple[tuple[int, int, float, int], ...]
    lutram: tuple[tuple[int, int, float, int], ...]


_HALF = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
_FULL = ((72, 512), (36, 1024), (18, 2048), (9, 4096), (4, 8192), (2, 16384), (1, 32768))
_XILINX_BLOCKS = (*((*shape, 0.5, 129) for shape in _HALF), *((*shape, 1.0, 257) for shape in _FULL))
_ECP5_BLOCKS = tuple((*shape, 0.5, 128) for shape in _HALF)

LIBRARIES = {
    "ultrascale+": Library(_XILINX_BLOCKS, ((14, 32, 8, 16), (7, 64, 8, 16))),
    "7-series": Library(_XILINX_BLOCKS, ((6, 32, 4, 8), (3, 64, 4, 8))),
    "ecp5": Library(_ECP5_BLOCKS, ((4, 16, 6, 4),)),
}

BYTE = 9
"""Bits of a block RAM that share a write enable."""


class Mapped(NamedTuple):
    """What one memory becomes: `lut` hold its bits; `banks`: cells of which one is read at a time, per bit."""

    bram36: float
    lut: int
    banks: int


@cache
def mapped(memory: Memory, family: str) -> Mapped:
    """What `memory` becomes: the cheapest of what its style allows."""
    library = LIBRARIES[family]
    block = min(_priced(memory, *cell, BYTE) for cell in library.blocks)
    spread = min(_priced(memory, *cell, 0) for cell in library.lutram)
    if memory.style == "distributed" or (not memory.style and spread <= block):
        return Mapped(0, int(spread[1]), spread[2])
    return Mapped(block[1], 0, block[2])


MULTIPLEXER = 0.5
"""Cost of choosing between two cells, per bit read."""


def _priced(
    memory: Memory, width: int, words: int, amount: float, cost: int, byte: int
) -> tuple[float, float, int]:
    """Cost, amount and banks of `memory` out of cells of `words` x `width`.

    With several write enables, each has bytes of a cell (or cells, if `byte` is 0) of its own.
    """
    groups, banks = memory.bits // memory.enable, -(-memory.words // words)
    if groups == 1:
        columns = -(-memory.bits // width)
    elif width >= byte > 0:
        columns = -(-groups * -(-memory.enable // byte) * byte // width)
    else:
        columns = groups * -(-memory.enable // width)
    return columns * banks * cost + MULTIPLEXER * memory.bits * (banks - 1), columns * banks * amount, banks
