"""gather: elements of one axis by constant indices. Exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.base import Array, Attrs, IntegerOp, TensorType, axis_of, integers
from intaglio.ops.movement import moving_cost, one_tensor


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x -> `axis` takes the length of `indices`."""
    x = one_tensor("gather", types)
    axis = axis_of("gather", attrs, len(x.shape))
    indices = integers("gather", attrs, "indices")
    if not indices or not all(0 <= index < x.shape[axis] for index in indices):
        raise ValueError(
            f"gather: indices must be a non-empty list within 0..{x.shape[axis] - 1}, not {indices}."
        )
    return TensorType((*x.shape[:axis], len(indices), *x.shape[axis + 1 :]), x.dtype)


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """``take(x, indices, axis)``."""
    return np.take(inputs[0], attrs["indices"], axis=attrs["axis"])


OP = IntegerOp("gather", "Elements of one axis by constant indices.", infer, reference, moving_cost(infer))
