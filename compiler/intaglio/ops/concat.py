"""concat: tensors of one type and one grid, end to end along an axis. Exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.base import Array, Attrs, IntegerOp, TensorType, axis_of, check_dtype
from intaglio.ops.movement import INTEGERS, moving_cost


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: Tensors alike except on `axis` -> their sizes added there."""
    if not types:
        raise ValueError("concat: expects at least one tensor, not 0.")
    first = types[0]
    check_dtype("concat", "x", first, INTEGERS)
    axis = axis_of("concat", attrs, len(first.shape))
    for other in types:
        if other.dtype != first.dtype or _without(other.shape, axis) != _without(first.shape, axis):
            raise ValueError(f"concat: tensors {first} and {other} do not match except on axis {axis}.")
    total = sum(other.shape[axis] for other in types)
    return TensorType((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], -len(shape), *shape[axis + 1 :])


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """The tensors in order."""
    return np.concatenate(list(inputs), axis=attrs["axis"])


OP = IntegerOp("concat", "Tensors end to end along an axis.", infer, reference, moving_cost(infer))
