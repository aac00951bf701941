"""add: sums and differences of two tensors on different grids.

Accuracy: each multiplier is off by at most half a unit of 2^-shift, so the result is within 1 LSB of the QDQ value
while no operand's scale exceeds 2^7 times the output's (2^10 for an 8-bit operand of a 16-bit sum).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    integer,
    output_grid,
)

_MULTIPLIER = (-(1 << 26) + 1, (1 << 26) - 1)


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: a, b whose shape is a suffix of that of a (leading 1s dropped) -> the shape of a."""
    check_count("add", types, 2)
    for name, operand in zip("ab", types, strict=True):
        check_dtype("add", name, operand, ACTIVATIONS)
        integer("add", attrs, f"{name}_multiplier", *_MULTIPLIER)
    integer("add", attrs, "offset", -(1 << 61), 1 << 61)
    integer("add", attrs, "shift", 1, 62)
    a, b = types[0].shape, trailing(types[1].shape)
    if len(b) > len(a) or a[len(a) - len(b) :] != b:
        raise ValueError(f"add: b's shape {list(types[1].shape)} must be a suffix of a's {list(a)}.")
    return TensorType(a, output_grid("add", attrs))


def trailing(shape: Sequence[int]) -> tuple[int, ...]:
    """`shape` without its leading 1s."""
    leading = next((i for i, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[leading:])


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """``round_shift(a * a_multiplier + b * b_multiplier + offset, shift) + zero_point``, saturated."""
    a, b = (array.astype(np.int64) for array in inputs)
    # Two products of at most 2^41 and an offset of at most 2^61.
    acc = a * attrs["a_multiplier"] + b.reshape(trailing(b.shape)) * attrs["b_multiplier"] + attrs["offset"]
    return clamp(round_shift(acc, attrs["shift"]) + attrs["zero_point"], attrs["dtype"])


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    return Cost(multiplies=2 * out.size, bytes_moved=types[0].nbytes + types[1].nbytes + out.nbytes)


def parameters(a: Grid, b: Grid, out: Grid, b_sign: int = 1) -> Built:
    """Attributes of ``out = a + b_sign * b``, `b_sign` 1 or -1."""
    if b_sign not in (1, -1):
        raise ValueError(f"add: b_sign must be 1 or -1, not {b_sign!r}.")
    ratios = np.array([a.scale, b_sign * b.scale]) / out.scale
    shift = shared_shift(ratios, operand_bits(a.dtype, b.dtype, out.dtype))
    a_multiplier, b_multiplier = (int(m) for m in scaled(ratios, shift))
    attrs = {
        "a_multiplier": a_multiplier,
        "b_multiplier": b_multiplier,
        "offset": -(a.zero_point * a_multiplier + b.zero_point * b_multiplier),
        "shift": shift,
        "zero_point": out.zero_point,
        "dtype": out.dtype,
    }
    return Built([], attrs)


OP = IntegerOp("add", "Sum of two tensors on different grids.", infer, reference, cost)
