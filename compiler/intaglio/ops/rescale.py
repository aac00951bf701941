"""rescale: a tensor to another grid; LayerScale; any per-channel affine map.

Accuracy: the multiplier is off by at most half a unit of 2^-shift, so the result is within 1 LSB of the QDQ value
while the largest ratio of steps does not exceed 2^7 (2^9 with 16-bit tensors).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from intaglio.ops.arith import clamp, operand_bits, round_shift, scaled, shared_shift
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
    integer,
    output_grid,
)


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x [.., C], multiplier int32 and offset int64, each [C] or [1] -> [.., C]."""
    check_count("rescale", types, 3)
    x, multiplier, offset = types
    check_dtype("rescale", "x", x, ACTIVATIONS)
    check_rank("rescale", "x", x, 1)
    channels = x.shape[-1]
    for name, constant, dtype in (("multiplier", multiplier, "int32"), ("offset", offset, "int64")):
        length = 1 if constant.shape == (1,) else channels
        check_type("rescale", name, constant, (dtype,), (length,))
    integer("rescale", attrs, "shift", 1, 62)
    return TensorType(x.shape, output_grid("rescale", attrs))


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """``round_shift(x * multiplier + offset, shift) + zero_point``, saturated."""
    x, multiplier, offset = (array.astype(np.int64) for array in inputs)
    return clamp(round_shift(x * multiplier + offset, attrs["shift"]) + attrs["zero_point"], attrs["dtype"])


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    return Cost(
        multiplies=out.size,
        bytes_weights=types[1].nbytes + types[2].nbytes,
        bytes_moved=types[0].nbytes + out.nbytes,
    )


def parameters(
    x: Grid,
    factor: NDArray[np.float64] | float,
    offset: NDArray[np.float64] | float | None,
    out: Grid,
) -> Built:
    """Constants (multiplier, offset) and attributes of ``out = factor * x + offset``, each scalar or [C], any sign."""
    ratio = np.atleast_1d(np.asarray(factor, np.float64)) * (x.scale / out.scale)
    shift = shared_shift(ratio, operand_bits(x.dtype, out.dtype))
    multiplier = scaled(ratio, shift)
    added = scaled(
        np.atleast_1d(0.0 if offset is None else np.asarray(offset, np.float64)) / out.scale, shift
    )
    attrs = {"shift": shift, "zero_point": out.zero_point, "dtype": out.dtype}
    return Built([multiplier.astype(np.int32), added - x.zero_point * multiplier], attrs)


OP = IntegerOp("rescale", "Per-channel affine map to another grid.", infer, reference, cost)
