"""argmax: index of the largest element along an axis; ties go to the lower index. Exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.base import (
    ACTIVATIONS,
    Array,
    Attrs,
    Cost,
    IntegerOp,
    TensorType,
    axis_of,
    check_count,
    check_dtype,
    check_rank,
    integer,
)
from intaglio.ops.mean import reduced


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x -> int32 without `axis`, or with size 1 there."""
    check_count("argmax", types, 1)
    check_dtype("argmax", "x", types[0], ACTIVATIONS)
    check_rank("argmax", "x", types[0], 1)
    axis = axis_of("argmax", attrs, len(types[0].shape))
    return TensorType(reduced(types[0].shape, axis, integer("argmax", attrs, "keepdims", 0, 1)), "int32")


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """The first index of the largest element."""
    # NumPy returns the first of equal maxima.
    return np.argmax(inputs[0], axis=attrs["axis"], keepdims=bool(attrs["keepdims"])).astype(np.int32)


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    return Cost(bytes_moved=types[0].nbytes + infer(types, attrs).nbytes)


OP = IntegerOp("argmax", "Index of the largest element along an axis.", infer, reference, cost)
