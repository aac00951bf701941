"""matmul: product of two activations, requantized. Accuracy: as linear, within 1 LSB of the QDQ value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.arith import accumulator, dyadic_within, exact_matmul, multiplier_bits, peak, requantize
from intaglio.ops.base import (
    ACCUMULATORS,
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
    choice,
    integer,
    output_grid,
)

_ZERO_POINTS = (-32768, 32767)


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: a [.., M, K], b [.., K, N] (or [.., N, K]) -> [.., M, N]; batch dimensions are equal."""
    check_count("matmul", types, 2)
    for name, operand in zip("ab", types, strict=True):
        check_dtype("matmul", name, operand, ACTIVATIONS)
        check_rank("matmul", name, operand, 2)
        integer("matmul", attrs, f"{name}_zero", *_ZERO_POINTS)
    choice("matmul", attrs, "acc_dtype", ACCUMULATORS)
    integer("matmul", attrs, "multiplier", 0, (1 << 24) - 1)
    integer("matmul", attrs, "shift", 1, 62)
    a, b = types[0].shape, types[1].shape
    transposed = integer("matmul", attrs, "transpose_b", 0, 1)
    depth, width = (b[-1], b[-2]) if transposed else (b[-2], b[-1])
    if a[:-2] != b[:-2] or a[-1] != depth:
        raise ValueError(
            f"matmul: shapes {list(a)} and {list(b)} do not match with transpose_b = {transposed}."
        )
    return TensorType((*a[:-1], width), output_grid("matmul", attrs))


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """The centred product, requantized."""
    acc = centred_product(inputs[0], inputs[1], attrs["a_zero"], attrs["b_zero"], bool(attrs["transpose_b"]))
    return requantize(acc, attrs["multiplier"], attrs["shift"], attrs["zero_point"], attrs["dtype"])


def centred_product(a: Array, b: Array, a_zero: int, b_zero: int, transpose_b: bool) -> Array:
    """``(a - a_zero) @ (b - b_zero)`` in exact integers, b's last two axes swapped if `transpose_b`."""
    left = a.astype(np.int64) - a_zero
    right = b.astype(np.int64) - b_zero
    right = right.swapaxes(-1, -2) if transpose_b else right
    return exact_matmul(left, right, peak(left) * peak(right) * a.shape[-1])


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    moved = types[0].nbytes + types[1].nbytes + out.nbytes
    return Cost(macs=out.size * types[0].shape[-1], multiplies=out.size, bytes_moved=moved)


def parameters(a: Grid, b: Grid, out: Grid, depth: int, factor: float = 1.0, transpose_b: int = 0) -> Built:
    """Attributes of ``out = factor * a @ b`` with `depth` products per sum; `factor` > 0 (a folded scaling)."""
    bound = depth * a.reach * b.reach
    multiplier, shift = dyadic_within(
        factor * a.scale * b.scale / out.scale, multiplier_bits(out.dtype), bound
    )
    attrs = {
        "a_zero": a.zero_point,
        "b_zero": b.zero_point,
        "transpose_b": transpose_b,
        "acc_dtype": accumulator(bound),
        "multiplier": multiplier,
        "shift": shift,
        "zero_point": out.zero_point,
        "dtype": out.dtype,
    }
    return Built([], attrs)


OP = IntegerOp("matmul", "Product of two activations, requantized.", infer, reference, cost)
