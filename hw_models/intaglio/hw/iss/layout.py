"""Tensors in scratchpads: which cells they occupy, and bytes to channels and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.hw.iss.memory import Cells, Data, Memory, Write


def ceil_div(a: int, b: int) -> int:
    """Smallest integer at least a / b."""
    return -(-a // b)


def tokens(config: AcceleratorConfig, rows: int, low: int, high: int) -> NDArray[np.int64]:
    """The rows below `rows` of row tiles low .. high - 1."""
    return np.arange(low * config.rows, min(high * config.rows, rows))


def tensor_cells(config: AcceleratorConfig, addr: int, stride: int, at: Data, words: int) -> Cells:
    """Cells [tokens, words] of tensor (addr, stride)."""
    word = addr + (at // config.rows)[:, None] * stride + np.arange(words)
    return word, (at % config.rows)[:, None]


def as_channels(data: Data, wide: int) -> Data:
    """Cells int8 [tokens, words, D] as channels int8 or int16 [tokens, n]."""
    return data.reshape(len(data), -1).view("<i2" if wide else np.int8)


def word_count(config: AcceleratorConfig, channels: int, wide: int) -> int:
    """Words per row tile of so many channels."""
    return ceil_div(channels, config.group if wide else config.depth)


def tensor_writes(
    config: AcceleratorConfig, memory: Memory, addr: int, stride: int, at: Data, values: Data
) -> list[Write]:
    """Writes of `values` int8 or int16 [tokens, n]; bytes of the last word beyond them stay."""
    raw = np.ascontiguousarray(values).view(np.int8)
    full, rest = divmod(raw.shape[1], config.depth)
    writes = []
    if full:
        cells = tensor_cells(config, addr, stride, at, full)
        body = raw[:, : full * config.depth].reshape(len(at), full, config.depth)
        writes.append(Write(memory, cells, body))
    if rest:
        cells = tensor_cells(config, addr + full, stride, at, 1)
        writes.append(Write(memory, cells, raw[:, None, full * config.depth :], rest))
    return writes
