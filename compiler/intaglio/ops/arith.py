"""Exact integer arithmetic shared by the ops: the rounding rule, dyadic multipliers, square root, exact products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from intaglio.ops.base import PRODUCT_BITS, Array

Int64 = NDArray[np.int64]

MAX_SHIFT = 62

# Ops whose multipliers share one shift also hold offsets in units of 2^-shift; up to this shift an offset can be
# clamped to 2^61 without changing a saturated result.
MAX_SHARED_SHIFT = 44
_OFFSET_LIMIT = 1 << 61


def round_shift(value: Array, shift: Array | int) -> Int64:
    """``(value + 2^(shift-1)) >> shift``: divide by 2^shift, round half up; shift >= 1."""
    shift = np.asarray(shift, np.int64)
    return np.asarray((np.asarray(value, np.int64) + (np.int64(1) << (shift - 1))) >> shift)


def clamp(value: Array, dtype: str) -> Array:
    """Saturate to the range of `dtype` and convert."""
    limits = np.iinfo(dtype)
    return np.clip(value, limits.min, limits.max).astype(dtype)


def requantize(acc: Array, multiplier: Array | int, shift: Array | int, zero_point: int, dtype: str) -> Array:
    """``clamp(round_shift(acc * multiplier, shift) + zero_point)`` (shapes broadcast).

    Raises OverflowError where ``|acc * multiplier|`` reaches 2^62: the specification's integers are unbounded, so
    the reference refuses rather than wraps.
    """
    acc = np.asarray(acc, np.int64)
    multiplier = np.asarray(multiplier, np.int64)
    _check_product(acc, multiplier)
    return clamp(round_shift(acc * multiplier, shift) + zero_point, dtype)


def _check_product(acc: Int64, multiplier: Int64) -> None:
    if acc.size == 0 or _peak(acc) * _peak(multiplier) < 1 << PRODUCT_BITS:
        return
    # Only now the slower per-element check: large accumulators may belong to channels with short multipliers.
    if np.max(np.abs(acc.astype(np.float64) * multiplier)) >= 2.0**PRODUCT_BITS:
        raise OverflowError(
            "requantize: accumulator times multiplier reaches 2^62; the multiplier is too wide."
        )


def _peak(values: Int64) -> int:
    return max(int(values.max()), -int(values.min()))


def multiplier_bits(*dtypes: str) -> int:
    """Width of a requantization multiplier for the widest of `dtypes`: 17 for 8-bit, 24 for 16-bit."""
    return 24 if any(np.dtype(dtype).itemsize > 1 for dtype in dtypes) else 17


def operand_bits(*dtypes: str) -> int:
    """Width of a multiplier of operands rather than accumulators (add, rescale): 17, or 26 with a 16-bit type.

    An 8-bit operand on a grid 256 times as coarse as a 16-bit one takes the upper 8 bits of the shared shift; 18
    are left for the other, 1/16 LSB. 26 bits and a sign fill the 27-bit port of a DSP, the operand the 18-bit one.
    """
    return 17 if multiplier_bits(*dtypes) == 17 else 26


def dyadic(ratio: float, bits: int, max_shift: int = MAX_SHIFT) -> tuple[int, int]:
    """(m, s) with ``m / 2^s ~ ratio``, ``2^(bits-1) <= m < 2^bits``, ``1 <= s <= max_shift``.

    The relative error is at most 2^-bits. A ratio that needs a larger shift gives (0, 1). Raises ValueError for a
    ratio that is not positive and finite, or is too large for a shift of 1.
    """
    multiplier, shift = _dyadic(np.array([ratio], np.float64), np.array([bits]), max_shift)
    return int(multiplier[0]), int(shift[0])


def dyadic_within(ratio: float, bits: int, bound: int) -> tuple[int, int]:
    """`dyadic`, with fewer bits where ``bound * 2^bits`` would reach 2^62 (`bound`: largest |accumulator|).

    Raises ValueError if fewer than ``bits - 6`` are left: the result would not be accurate to 1 LSB.
    """
    multiplier, shift = dyadics_within(np.array([ratio], np.float64), bits, np.array([bound], np.int64))
    return int(multiplier[0]), int(shift[0])


def dyadics_within(ratios: NDArray[np.float64], bits: int, bounds: Int64) -> tuple[Int64, Int64]:
    """`dyadic_within` of every ratio and bound, [N] each: multipliers and shifts, int64 [N]."""
    allowed = np.minimum(bits, PRODUCT_BITS - bit_length(np.maximum(bounds, 1)))
    if allowed.min(initial=bits) < bits - 6:
        wide = int(allowed.argmin())
        raise ValueError(
            f"dyadic: accumulators up to {bounds[wide]} leave {allowed[wide]} bits for the multiplier; "
            f"{bits} are wanted."
        )
    return _dyadic(ratios, allowed, MAX_SHIFT)


def _dyadic(ratios: NDArray[np.float64], bits: Int64, max_shift: int) -> tuple[Int64, Int64]:
    """`dyadic` element by element."""
    wrong = ~(np.isfinite(ratios) & (ratios > 0))
    if wrong.any():
        raise ValueError(f"dyadic: ratio must be positive and finite, not {float(ratios[wrong][0])!r}.")
    fraction, exponent = np.frexp(ratios)
    multiplier = np.rint(np.ldexp(fraction, bits)).astype(np.int64)
    carried = multiplier == np.int64(1) << bits
    multiplier, shift = multiplier >> carried, bits - exponent - carried
    if (shift < 1).any():
        large = int(shift.argmin())
        raise ValueError(
            f"dyadic: ratio {float(ratios[large])!r} is too large for a {bits[large]}-bit multiplier with a shift of "
            "at least 1."
        )
    fits = shift <= max_shift
    return np.where(fits, multiplier, 0), np.where(fits, shift, 1)


def shared_shift(ratios: Sequence[float] | NDArray[np.float64], bits: int) -> int:
    """The shift s in ``1..44`` that gives the largest ``|ratio| * 2^s`` `bits` bits (or the nearest possible).

    Raises ValueError if the ratios need a shift below 1 or are not finite.
    """
    largest = float(np.max(np.abs(ratios)))
    if largest == 0:
        return MAX_SHARED_SHIFT
    # rint(1.5 * 2^-1200 * 2^s) is 0 whatever s is: such ratios take the largest shift.
    if largest < 2.0**-MAX_SHARED_SHIFT:
        return MAX_SHARED_SHIFT
    multiplier, shift = dyadic(largest, bits)
    return min(shift, MAX_SHARED_SHIFT) if multiplier else MAX_SHARED_SHIFT


def scaled(values: Array | float, shift: int) -> Int64:
    """``rint(values * 2^shift)``, clamped to +-2^61 (see MAX_SHARED_SHIFT: the clamp never changes a result)."""
    real = np.rint(np.asarray(values, np.float64) * 2.0**shift)
    return np.clip(real, -_OFFSET_LIMIT, _OFFSET_LIMIT).astype(np.int64)


def bit_length(value: Int64) -> Int64:
    """Exact bit length of positive int64 values."""
    length = np.frexp(value.astype(np.float64))[1].astype(np.int64)
    # Conversion to float64 may round up to the next power of two.
    return np.asarray(length - ((value >> (length - 1)) == 0))


def isqrt(value: Int64) -> Int64:
    """Floor of the square root, exact, for ``0 <= value < 2^62``.

    The float64 seed is off by at most one, so that one correction each way makes it exact.
    """
    root = np.sqrt(value.astype(np.float64)).astype(np.int64)
    root = root - (root * root > value)
    return np.asarray(root + ((root + 1) * (root + 1) <= value))


def exact_matmul(a: Array, b: Array, bound: int) -> Int64:
    """``a @ b`` in exact integers; `bound` limits ``sum_k |a| * |b|``.

    Floating-point BLAS is exact here: every product and partial sum, in any order, is an integer of magnitude at
    most `bound`, and float32 (float64) holds all integers up to 2^24 (2^53). int64 has no BLAS and is ~50x slower.
    """
    if bound <= 1 << 24:
        return np.asarray(np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.int64))
    if bound <= 1 << 53:
        return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64))
    if bound < 1 << 63:
        return np.asarray(np.matmul(a.astype(np.int64), b.astype(np.int64)))
    raise OverflowError(f"exact_matmul: sums up to {bound} do not fit int64.")


def peak(values: Array) -> int:
    """The largest magnitude in an integer array, 0 if empty."""
    return _peak(values.astype(np.int64)) if values.size else 0


def accumulator(bound: int) -> str:
    """The narrowest accumulator type that holds every integer of magnitude `bound`."""
    return "int32" if bound < 1 << 31 else "int64"
