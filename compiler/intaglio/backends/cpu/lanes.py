"""Requantization of eight int32 at a time: 32 x 32 -> 64-bit products of even and odd lanes, one shift, one join.

`v >> s` of a 64-bit product is needed only modulo 2^32, as its value is known to fit int32. The shift may then be
logical, which AVX2 has and arithmetic it has not: `BIAS` makes v positive, and what it leaves in the low 32 bits is
part of the constant that is added last, with the zero point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from intaglio.backends.cpu.ir import Buffer, Expr, bind, bits, cast, const, load, maximum, minimum, splat
from intaglio.program import Array

LANES = 8
BIAS = 1 << 62
# One group of eight channels: even and odd multipliers, addends and shifts, then eight int32 of `last`.
GROUP_WORDS = 28


@dataclass(frozen=True)
class Scale:
    """Multipliers, addends (rounding and BIAS), shifts, of the even and odd lanes, and what is added last."""

    multiplier: tuple[Expr, Expr]
    addend: tuple[Expr, Expr]
    shift: tuple[Expr, Expr]
    last: Expr


def requantize(products: Sequence[tuple[Expr, tuple[Expr, Expr]]], scale: Scale) -> Expr:
    """``(sum(value * multiplier) + addend) >> shift, + last`` for int32 x 8 values, as int32 x 8."""
    shifted = []
    for parity in (0, 1):
        total = scale.addend[parity]
        for value, multiplier in products:
            total = total + _widen(value, parity) * sign_extended(multiplier[parity])
        shifted.append(bind(bits(total, "uint64x4") >> bits(scale.shift[parity], "uint64x4")))
    low = shifted[0] & splat(const(0xFFFFFFFF, "uint64"), 4)
    joined = bits(low | (shifted[1] << splat(const(32, "uint64"), 4)), "int32x8")
    return bind(joined + scale.last)


def _widen(value: Expr, parity: int) -> Expr:
    """The even or odd elements of int32 x 8 as int64 x 4."""
    pairs = bits(value, "int64x4")
    return pairs >> splat(const(32, "int64"), 4) if parity else sign_extended(pairs)


def sign_extended(pairs: Expr) -> Expr:
    """The low halves of int64 x 4, sign-extended: what tells LLVM that a 32-bit multiply will do."""
    by = splat(const(32, "int64"), 4)
    return (pairs << by) >> by


def saturate(value: Expr, dtype: str, lanes: int = LANES) -> Expr:
    """int32 lanes clamped to `dtype`."""
    low, high = (splat(const(limit(dtype), "int32"), lanes) for limit in (minimum, maximum))
    return cast(tirx.max(tirx.min(value, high), low), f"{dtype}x{lanes}")


def channel_scale(records: Buffer, start: Expr) -> Scale:
    """The scale of eight channels, from `records` as `pack_scales` lays them out."""
    m0, m1, a0, a1, s0, s1, last = (load(records, start + 4 * word, 4) for word in range(7))
    return Scale((m0, m1), (a0, a1), (s0, s1), bits(last, "int32x8"))


def uniform_scale(numbers: Buffer, start: int) -> Scale:
    """One scale for every lane, from four int64: multiplier, addend, shift, last (see `uniform_numbers`)."""
    m, a, s = (bind(splat(load(numbers, start + i), 4)) for i in range(3))
    last = bind(splat(cast(load(numbers, start + 3), "int32"), LANES))
    return Scale((m, m), (a, a), (s, s), last)


def addend(shift: Array) -> Array:
    """Rounding and BIAS."""
    return (np.int64(1) << (shift.astype(np.int64) - 1)) + np.int64(BIAS)


def last_addend(shift: Array, zero_point: int) -> Array:
    """The zero point less what BIAS leaves in the low 32 bits."""
    return (zero_point - (np.int64(BIAS) >> shift.astype(np.int64))).astype(np.int32)


def uniform_numbers(multiplier: int, shift: int, zero_point: int, offset: int = 0) -> list[int]:
    """The four int64 that `uniform_scale` reads; `offset` is added to the product."""
    at = np.array([shift])
    return [multiplier, int(addend(at)[0]) + offset, shift, int(last_addend(at, zero_point)[0])]


def pack_scales(multiplier: Array, shift: Array, zero_point: int, offset: Array | int = 0) -> Array:
    """Records of groups of eight channels, int64 [groups, GROUP_WORDS]; the channels must be a multiple of eight."""
    m, s = (array.astype(np.int64).reshape(-1, LANES) for array in (multiplier, shift))
    a = addend(s) + np.asarray(offset, np.int64).reshape(-1, LANES if np.ndim(offset) else 1)
    last = last_addend(s, zero_point).view(np.int64)
    parts = [half for array in (m, a, s) for half in (array[:, 0::2], array[:, 1::2])]
    return np.ascontiguousarray(np.concatenate([*parts, last], axis=1))


def fits(bound: Array | int, shift: Array | int, zero_point: int) -> bool:
    """Whether ``|product| <= bound`` keeps the shifted value, with its zero point, within int32.

    `bound` is a Python integer or an array of them (dtype object), as products may pass 2^63 before they are refused.
    """
    pairs = np.broadcast(np.asarray(bound, object), np.asarray(shift, object))
    return all(int(b) < BIAS // 2 and (int(b) >> int(s)) + abs(zero_point) + 1 < 1 << 31 for b, s in pairs)
