"""softmax: quantized probabilities over the last axis, where a graph insists on them.

Accuracy: with n <= 258 the integer weights of a row are off by less than 2^-8 of its mass (e_bits = 15) in the worst
case; a probability is within 1 LSB of the QDQ value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.arith import clamp, round_shift
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
    output_grid,
)
from intaglio.ops.exponential import (
    check_row_attrs,
    exp_table,
    exponentials,
    reciprocal,
    row_multiplier,
    weight_bits,
)


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x [.., n], exp_table -> [.., n]."""
    check_count("softmax", types, 2)
    check_dtype("softmax", "x", types[0], ACTIVATIONS)
    check_rank("softmax", "x", types[0], 1)
    check_row_attrs("softmax", types[1], types[0].dtype, attrs)
    return TensorType(types[0].shape, output_grid("softmax", attrs))


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """``e * r`` for every score, with the row reciprocal r."""
    e_bits = attrs["e_bits"]
    e = exponentials(inputs[0], inputs[1], e_bits)
    r = reciprocal(e.sum(axis=-1, keepdims=True), attrs["multiplier"], e_bits)
    # e <= total, so e * r <= multiplier << (e_bits - 1) < 2^52.
    return clamp(round_shift(e * r, attrs["shift"] + e_bits - 1) + attrs["zero_point"], attrs["dtype"])


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    return Cost(
        multiplies=out.size,
        lookups=out.size * types[1].shape[0],
        divides=int(np.prod(out.shape[:-1], dtype=np.int64)),
        bytes_weights=types[1].nbytes,
        bytes_moved=types[0].nbytes + out.nbytes,
    )


def parameters(x: Grid, out: Grid, nonlinear: str = "exact") -> Built:
    """The exponential table and attributes; `nonlinear`: exact or ivit (int8 scores only)."""
    e_bits = weight_bits(out.dtype)
    multiplier, shift = row_multiplier(1 / out.scale, e_bits)
    attrs = {
        "e_bits": e_bits,
        "multiplier": multiplier,
        "shift": shift,
        "zero_point": out.zero_point,
        "dtype": out.dtype,
    }
    return Built([exp_table(x.scale, x.dtype, e_bits, nonlinear)], attrs)


OP = IntegerOp("softmax", "Quantized probabilities over the last axis.", infer, reference, cost)
