"""quantize_input: raw uint8 pixels to the first integer tensor, by one table per channel. Exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.base import (
    ACTIVATIONS,
    Array,
    Attrs,
    Built,
    Cost,
    Grid,
    IntegerOp,
    TensorType,
    check_count,
    check_dtype,
    check_rank,
    check_type,
)


def infer(types: Sequence[TensorType], _attrs: Attrs) -> TensorType:
    """Type rule: x uint8 [B, C, ...], table [C, 256] -> [B, C, ...] of the type of the table."""
    check_count("quantize_input", types, 2)
    check_dtype("quantize_input", "x", types[0], ("uint8",))
    check_rank("quantize_input", "x", types[0], 2)
    check_type("quantize_input", "table", types[1], ACTIVATIONS, (types[0].shape[1], 256))
    return TensorType(types[0].shape, types[1].dtype)


def reference(inputs: Sequence[Array], _attrs: Attrs) -> Array:
    """``table[c, x[b, c, ...]]``."""
    x, table = inputs
    channel = np.arange(table.shape[0]).reshape(-1, *[1] * (x.ndim - 2))
    return np.asarray(table[channel, x])


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    moved = types[0].nbytes + out.nbytes
    return Cost(lookups=out.size, bytes_weights=types[1].nbytes, bytes_moved=moved)


def parameters(
    mean: Sequence[float] | float, std: Sequence[float] | float, out: Grid, channels: int
) -> Built:
    """The table ``quantize(((p / 255) - mean) / std)`` [channels, 256]; `mean` and `std` scalar or per channel."""
    pixels = np.arange(256, dtype=np.float64) / 255
    mean_column = np.broadcast_to(np.asarray(mean, np.float64), (channels,))[:, None]
    std_column = np.broadcast_to(np.asarray(std, np.float64), (channels,))[:, None]
    return Built([out.quantize((pixels - mean_column) / std_column)], {})


OP = IntegerOp("quantize_input", "Raw pixels to the first integer tensor, by table.", infer, reference, cost)
