"""The exponential table and the once-per-row division that softmax and attention share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intaglio.ops.arith import Int64, dyadic, round_shift
from intaglio.ops.base import Array, Attrs, TensorType, check_type, integer

NONLINEAR = ("exact", "ivit")


def weight_bits(dtype: str) -> int:
    """`e_bits` for an output type: 15 for 8-bit, 22 for 16-bit."""
    return 15 if dtype == "int8" else 22


def reciprocal_bits(e_bits: int) -> int:
    """Width of the row multiplier: 26 for 8-bit outputs (a 35 x 27 product divides an accumulator), else 31."""
    return 26 if e_bits <= 15 else 31


def exp_table(scale: float, score_dtype: str, e_bits: int, nonlinear: str = "exact") -> NDArray[np.uint32]:
    """Table of ``(2^e_bits - 1) * exp(-scale * d)``: uint32 [1, 256] for int8 scores, [2, 256] for int16.

    int16 scores use a product of two entries with 30 fractional bits; the first is a multiple-of-256 exponential
    scaled so that ``d = 0`` gives exactly 2^e_bits - 1. Raises ValueError for an unknown `nonlinear`, or ivit with
    int16 scores.
    """
    if nonlinear not in NONLINEAR:
        raise ValueError(f"exp_table: nonlinear must be exact or ivit, not {nonlinear!r}.")
    top = (1 << e_bits) - 1
    steps = np.arange(256)
    if nonlinear == "ivit":
        if score_dtype != "int8":
            raise ValueError(
                "exp_table: the ivit exponential is defined for int8 scores; use nonlinear=exact for int16."
            )
        return np.rint(top * shift_exp(steps, scale)).astype(np.uint32)[None]
    if score_dtype == "int8":
        return np.rint(top * np.exp(-scale * steps)).astype(np.uint32)[None]
    coarse = np.rint((top << (30 - e_bits)) * np.exp(-scale * 256 * steps))
    fine = np.rint(((1 << 30) - 1) * np.exp(-scale * steps))
    return np.stack([coarse, fine]).astype(np.uint32)


def shift_exp(distance: Array, scale: float) -> NDArray[np.float64]:
    """I-ViT's ShiftExp of ``-scale * distance`` relative to its value at 0, for integers ``distance >= 0``.

    Paper arXiv 2207.01405, section 3.3: log2 e ~ 1.0111b, 2^-f ~ 1 - f/2, both by shifts. The paper clips the
    quotient at N = 15 or 23 and so never reaches 0; here it is not clipped. Exact in float64 (values are
    integers below 2^40 times powers of two, divided once by I0).
    """
    unit = max(1, int(np.rint(1 / scale)))
    negative = -np.asarray(distance, np.int64)
    in_base_two = negative + (negative >> 1) - (negative >> 4)
    quotient = -in_base_two // unit
    remainder = -in_base_two - quotient * unit
    mantissa = ((-remainder) >> 1) + unit
    return np.asarray(np.ldexp(mantissa.astype(np.float64), -np.minimum(quotient, 1000)) / unit)


def exponentials(scores: Array, table: Array, e_bits: int) -> Int64:
    """`e` of every score, by its distance from the maximum of its row (the last axis)."""
    scores = scores.astype(np.int64)
    distance = scores.max(axis=-1, keepdims=True) - scores
    entries = table.astype(np.int64)
    if entries.shape[0] == 1:
        return np.asarray(entries[0][distance])
    # Below 2^60, so the product and its rounding fit int64.
    return round_shift(entries[0][distance >> 8] * entries[1][distance & 255], 60 - e_bits)


def reciprocal(total: Int64, multiplier: int, e_bits: int) -> Int64:
    """``(multiplier << (e_bits - 1)) // total``: the row's only division.

    No wider than `multiplier`, as total >= 2^e_bits - 1.
    """
    return np.asarray((np.int64(multiplier) << np.int64(e_bits - 1)) // total)


def row_multiplier(ratio: float, e_bits: int, acc_shift: int = 0) -> tuple[int, int]:
    """`dyadic` with `reciprocal_bits`; its shift leaves the total, ``shift + e_bits - 1 - acc_shift``, within 62."""
    return dyadic(ratio, reciprocal_bits(e_bits), 62 - (e_bits - 1) + acc_shift)


def check_row_attrs(op: str, table: TensorType, score_dtype: str, attrs: Attrs) -> None:
    """Check the exponential table and the attributes of the row division."""
    check_type(op, "exp_table", table, ("uint32",), (1 if score_dtype == "int8" else 2, 256))
    e_bits = integer(op, attrs, "e_bits", 8, 22)
    integer(op, attrs, "multiplier", 0, (1 << reciprocal_bits(e_bits)) - 1)
    acc_shift = attrs.get("acc_shift", 0)
    integer(op, attrs, "shift", 1, 62 - (e_bits - 1) + acc_shift)
