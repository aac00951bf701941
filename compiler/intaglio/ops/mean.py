"""mean: pooling over one axis. Accuracy: the sum is exact and the multiplier as linear's; within 1 LSB of QDQ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.arith import clamp, dyadic_within, multiplier_bits, round_shift
from intaglio.ops.base import (
    ACTIVATIONS,
    Array,
    Attrs,
    Built,
    Cost,
    Grid,
    IntegerOp,
    TensorType,
    axis_of,
    check_count,
    check_dtype,
    check_rank,
    integer,
    output_grid,
)


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x [.., n, ..] -> the same without `axis`, or with size 1 there."""
    check_count("mean", types, 1)
    check_dtype("mean", "x", types[0], ACTIVATIONS)
    check_rank("mean", "x", types[0], 1)
    axis = axis_of("mean", attrs, len(types[0].shape))
    keepdims = integer("mean", attrs, "keepdims", 0, 1)
    integer("mean", attrs, "multiplier", 0, (1 << 24) - 1)
    integer("mean", attrs, "offset", -(1 << 61), 1 << 61)
    integer("mean", attrs, "shift", 1, 62)
    return TensorType(reduced(types[0].shape, axis, keepdims), output_grid("mean", attrs))


def reduced(shape: tuple[int, ...], axis: int, keepdims: int) -> tuple[int, ...]:
    """`shape` with `axis` removed, or 1 if `keepdims`."""
    return (*shape[:axis], *[1] * keepdims, *shape[axis + 1 :])


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """``round_shift(sum(x) * multiplier + offset, shift) + zero_point``, saturated."""
    total = inputs[0].sum(axis=attrs["axis"], keepdims=bool(attrs["keepdims"]), dtype=np.int64)
    scaled = round_shift(total * attrs["multiplier"] + attrs["offset"], attrs["shift"])
    return clamp(scaled + attrs["zero_point"], attrs["dtype"])


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    return Cost(multiplies=out.size, bytes_moved=types[0].nbytes + out.nbytes)


def parameters(x: Grid, n: int, out: Grid, axis: int = 1, keepdims: int = 0) -> Built:
    """Attributes of the mean of `n` elements along `axis`."""
    bits = multiplier_bits(out.dtype)
    multiplier, shift = dyadic_within(x.scale / (n * out.scale), bits, 2 * n * max(-x.minimum, x.reach))
    attrs = {
        "axis": axis,
        "keepdims": keepdims,
        "multiplier": multiplier,
        "offset": -n * x.zero_point * multiplier,
        "shift": shift,
        "zero_point": out.zero_point,
        "dtype": out.dtype,
    }
    return Built([], attrs)


OP = IntegerOp("mean", "Mean over one axis.", infer, reference, cost)
