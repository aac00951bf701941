"""slice: every stride-th element between begin and end, on all axes. Exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.base import Array, Attrs, IntegerOp, TensorType, integers
from intaglio.ops.movement import moving_cost, one_tensor


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x -> ``ceil((end - begin) / stride)`` elements on every axis."""
    x = one_tensor("slice", types)
    begin, end, strides = (
        integers("slice", attrs, name, len(x.shape)) for name in ("begin", "end", "strides")
    )
    for axis, (low, high, stride) in enumerate(zip(begin, end, strides, strict=True)):
        if not (0 <= low < high <= x.shape[axis] and stride >= 1):
            wanted = f"0 <= begin < end <= {x.shape[axis]} and a positive stride"
            raise ValueError(f"slice: axis {axis} needs {wanted}, not {low}:{high}:{stride}.")
    return TensorType(tuple(map(_length, begin, end, strides)), x.dtype)


def _length(begin: int, end: int, stride: int) -> int:
    return -(-(end - begin) // stride)


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """``x[begin:end:stride, ...]``, contiguous."""
    ranges = zip(attrs["begin"], attrs["end"], attrs["strides"], strict=True)
    return np.ascontiguousarray(inputs[0][tuple(slice(*bounds) for bounds in ranges)])


OP = IntegerOp("slice", "A strided box of a tensor.", infer, reference, moving_cost(infer))
