"""Scalar integer arithmetic as expressions: the rounding rule, saturation, requantization (all in int64)."""

from __future__ import annotations

from tvm import tirx

from intaglio.backends.cpu.ir import Expr, bind, cast, const, maximum, minimum


def wide(value: Expr) -> Expr:
    """As int64."""
    return cast(value, "int64")


def round_shift(value: Expr, shift: Expr) -> Expr:
    """``(value + 2^(shift-1)) >> shift`` in int64; shift >= 1."""
    return (value + (const(1, "int64") << (shift - 1))) >> shift


def clamp(value: Expr, dtype: str) -> Expr:
    """Saturate an int64 to `dtype`."""
    low, high = const(minimum(dtype), "int64"), const(maximum(dtype), "int64")
    return cast(tirx.max(tirx.min(value, high), low), dtype)


def rescale(value: Expr, shift: Expr, zero_point: Expr, dtype: str) -> Expr:
    """``clamp(round_shift(value, shift) + zero_point)``."""
    return bind(clamp(round_shift(value, shift) + zero_point, dtype))
