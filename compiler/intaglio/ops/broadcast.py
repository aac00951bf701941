"""broadcast: repeat a tensor to a larger shape by NumPy's rules. Exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.base import Array, Attrs, IntegerOp, TensorType, integers
from intaglio.ops.movement import moving_cost, one_tensor


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x -> `shape`, by the rules of NumPy."""
    x = one_tensor("broadcast", types)
    shape = tuple(integers("broadcast", attrs, "shape"))
    padded = (1,) * (len(shape) - len(x.shape)) + x.shape
    if len(padded) != len(shape) or any(old not in (1, new) for old, new in zip(padded, shape, strict=True)):
        raise ValueError(f"broadcast: {list(x.shape)} does not broadcast to {list(shape)}.")
    return TensorType(shape, x.dtype)


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """X repeated, contiguous."""
    return np.ascontiguousarray(np.broadcast_to(inputs[0], attrs["shape"]))


OP = IntegerOp("broadcast", "Repeat a tensor to a larger shape.", infer, reference, moving_cost(infer))
