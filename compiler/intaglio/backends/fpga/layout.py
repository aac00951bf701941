"""`weights.bin`: constants in the layouts that the accelerator's loaders expect (docs/accelerator.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.program import Array

ALIGNMENT = 64


class Weights:
    """The file so far; equal blocks are stored once."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._known: dict[bytes, int] = {}

    def add(self, block: bytes) -> int:
        """Append a block at a multiple of 64 bytes; returns its offset."""
        if block not in self._known:
            self._data.extend(bytes(-len(self._data) % ALIGNMENT))
            self._known[block] = len(self._data)
            self._data.extend(block)
        return self._known[block]

    def bytes(self) -> bytes:
        """The file, padded to whole blocks."""
        return bytes(self._data) + bytes(-len(self._data) % ALIGNMENT)


def weights(weight: Array, config: AcceleratorConfig) -> bytes:
    """Weights int8 [channels, depth] as entries, the columns of each weight port together."""
    tiles = -(-weight.shape[0] // config.cols)
    steps = weight.shape[1] // config.depth
    full = np.zeros((tiles * config.cols, weight.shape[1]), np.int8)
    full[: len(weight)] = weight
    entries = full.reshape(tiles, config.cols, steps, config.depth).transpose(0, 2, 1, 3)
    ports = entries.reshape(tiles * steps, config.weight_ports, -1).transpose(1, 0, 2)
    return ports.tobytes()


def entries(shape: tuple[int, ...], config: AcceleratorConfig) -> int:
    """Entries of the weight buffer that a matrix [channels, depth] takes."""
    channels, depth = shape
    return -(-channels // config.cols) * (depth // config.depth)


def of_tasks(blocks: Sequence[bytes]) -> tuple[bytes, int]:
    """Blocks of all tasks one after another, and their distance in units of ALIGNMENT."""
    units = max(-(-len(block) // ALIGNMENT) for block in blocks)
    return b"".join(block.ljust(units * ALIGNMENT, b"\0") for block in blocks), units


def params(bias: Array, multiplier: Array, shift: Array) -> bytes:
    """8 bytes a channel: bias (int32), multiplier (26 bits), shift (6 bits)."""
    low = bias.astype(np.int64) & 0xFFFFFFFF
    words = low.astype(np.uint64) | multiplier.astype(np.uint64) << np.uint64(32)
    return (words | shift.astype(np.uint64) << np.uint64(58)).astype("<u8").tobytes()


def norm(gain: Array, offset: Array) -> bytes:
    """16 bytes a channel: gain int32, 4 zero bytes, offset int64."""
    record = np.zeros(len(gain), np.dtype([("gain", "<i4"), ("zero", "<i4"), ("offset", "<i8")]))
    record["gain"], record["offset"] = gain, offset
    return record.tobytes()


def table(entries: Array) -> bytes:
    """256 entries of 16 bits, signed or not."""
    return (entries.astype(np.int64) & 0xFFFF).astype("<u2").tobytes()


def rows(values: Array, wide: bool, config: AcceleratorConfig) -> bytes:
    """Values [rows, columns] as scratchpad words, row tile after row tile."""
    tiles = -(-len(values) // config.rows)
    full = np.zeros((tiles * config.rows, values.shape[1]), "<i2" if wide else np.int8)
    full[: len(values)] = values
    split = full.view(np.int8).reshape(tiles, config.rows, -1, config.depth)
    return split.transpose(0, 2, 1, 3).tobytes()
