"""The descriptor of the unit vu: LAYERNORM, after docs/integer-semantics.md with exact mean."""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.descriptors import Descriptor
from intaglio.hw.iss.errors import FaultError
from intaglio.hw.iss.layout import as_channels, tensor_cells, tensor_writes, tokens, word_count
from intaglio.hw.iss.machine import Machine
from intaglio.hw.iss.memory import Data, Write
from intaglio.ops.arith import bit_length, clamp, isqrt, round_shift

_GAIN = 1 << 25
_LIMIT = 1 << 61


def layernorm(machine: Machine, _index: int, d: Descriptor, low: int, high: int) -> list[Write]:
    """Row tiles low .. high - 1; bytes of the last word beyond `channels` become 0."""
    config, memories, channels = machine.config, machine.memories, d["channels"]
    at = tokens(config, d["rows"], low, high)
    cells = tensor_cells(config, d["x_addr"], d["x_stride"], at, word_count(config, channels, d["x_wide"]))
    x = as_channels(memories.bank_x.read(cells), d["x_wide"])[:, :channels].astype(np.int64)
    gain, offset = memories.norm.read((d["channel"] + np.arange(channels),)).T
    if offset.min() < -_LIMIT or offset.max() > _LIMIT:
        raise FaultError("a LayerNorm offset exceeds 2^61.")
    if gain.min() < -_GAIN or gain.max() >= _GAIN:
        raise FaultError("a LayerNorm gain exceeds 26 bits.")
    y = round_shift(_normalized(x, d["eps"]) * gain + offset, d["shift"]) + d["zero"]
    out = np.zeros((len(at), word_count(config, channels, 0) * config.depth), np.int8)
    out[:, :channels] = clamp(y, "int8")
    return tensor_writes(config, memories.bank_a, d["o_addr"], d["o_stride"], at, out)


def _normalized(x: Data, eps: int) -> Data:
    """``(x - mean) / sqrt(variance + eps)`` of rows int64 [tokens, C], with 20 fractional bits."""
    channels = x.shape[1]
    total = x.sum(axis=1, keepdims=True)
    variance = channels * (x * x).sum(axis=1, keepdims=True) - total * total + eps
    # Where it is 0, so are all of x - mean.
    positive = np.maximum(variance, 1)
    # The j with 2^60 <= variance * 4^j < 2^62.
    j = (62 - bit_length(positive)) // 2
    r = (1 << 54) // isqrt(positive << 2 * j)
    return round_shift((channels * x - total) * r, 34 - j)
