"""What the memories of a configuration become: block RAM, UltraRAM or LUT RAM, as Yosys maps them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2

from intaglio.accelerator.config import AcceleratorConfig

KINDS = ("dm", "io", "cp", "mm", "vu")


@dataclass(frozen=True)
class Memory:
    """`number` memories of `words` x `bits`, one read and one write port; a write enable per `enable` bits.

    `style`: what the RTL asks for ("block", "distributed"); "" leaves it to the tool.
    """

    module: str
    number: int
    words: int
    bits: int
    enable: int
    style: str = ""


QUEUE_WORDS = (10, 22, 12, 15, 12)
"""Words of a descriptor that the queue of each unit holds; the RTL takes them from the table of descriptors."""


def memories(c: AcceleratorConfig) -> Iterator[Memory]:
    """Every memory of the accelerator."""
    beat, group, lanes = c.axi_bits, c.group, c.lanes
    yield Memory("scratchpad", c.rows, c.a_words, beat, 8)
    yield Memory("scratchpad", c.rows, c.x_words, beat, 8)
    width = max(c.rows, 4)
    yield Memory("weight_buffer", c.cols * c.depth // width, c.weight_entries, 8 * width, 8 * c.rows, "block")
    yield Memory("param_buffer", 1, c.param_groups, 4 * beat, beat, "block")
    yield Memory("norm_buffer", 2, c.norm_channels, 64, 64)
    yield Memory("table_ram", lanes, 256 * c.table_slots, 16, 16, "block")
    yield Memory("table_ram", lanes, 256 * c.table_slots, 15, 15, "block")
    yield Memory("io_unit", c.depth, 1024, 8, 8)
    words = 2 ** _bits(c.max_keys // c.depth)
    yield Memory("softmax_unit", 1, 4 * 2 * words, 8 * lanes, 8 * lanes, "block")
    yield Memory("softmax_unit", 2, 4 * words, 15 * lanes, 15 * lanes, "distributed")
    yield Memory("fifo_ram", c.weight_ports + 2, c.burst * c.outstanding, beat, beat)
    yield Memory("fifo_ram", 1, 2 * c.burst, beat, beat)
    for size in QUEUE_WORDS:
        yield Memory("fifo_ram", 1, 8, 32 * size, 32 * size)
    yield Memory("mac_array", c.tile_groups, 16, 32 * lanes, 32 * lanes, "distributed")
    yield Memory("mac_array", 1, 16, 26 * c.rows, 26 * c.rows, "distributed")
    yield Memory("mac_array", c.tile_groups, 16, 20 * group, 20 * group, "distributed")
    yield Memory("post_process", 1, 16, 16 * lanes, 16 * lanes, "distributed")
    yield Memory("post_process", 1, 16, 346, 346, "distributed")


def _bits(words: int) -> int:
    return max(1, ceil(log2(words)))


def blocks(memory: Memory, family: str) -> float:
    """BRAM36 of one memory; 0 if it is LUT RAM."""
    if memory.style == "distributed" or (not memory.style and memory.words * memory.bits < 4096):
        return 0
    best = float("inf")
    for width, depth, cost in (
        (36, 512, 0.5),
        (18, 1024, 0.5),
        (72, 512, 1),
        (36, 1024, 1),
        (18, 2048, 1),
        (9, 4096, 1),
    ):
        best = min(best, cost * ceil(memory.bits / width) * ceil(memory.words / depth))
    return best
