"""The exponential table and the once-per-row division that softmax and attention share."""

from __future__ import annotations

from tvm import tirx

from intaglio.backends.cpu.arith import round_shift, wide
from intaglio.backends.cpu.ir import Buffer, Expr, bind, cast, const, load


def exponential(table: Buffer, distance: Expr, score: str, e_bits: int) -> Expr:
    """`e`, an int32, of an int32 distance from the row's maximum."""
    if score == "int8":
        return bind(cast(load(table, distance), "int32"))
    coarse, fine = load(table, distance >> 8), load(table, 256 + (distance & 255))
    return bind(cast(round_shift(wide(coarse) * wide(fine), const(60 - e_bits, "int64")), "int32"))


def row_reciprocal(total: Expr, multiplier: Expr, e_bits: int) -> Expr:
    """``(multiplier << (e_bits - 1)) // total``, an int64 below 2^31; both operands are positive."""
    return bind(tirx.truncdiv(multiplier << const(e_bits - 1, "int64"), total))
