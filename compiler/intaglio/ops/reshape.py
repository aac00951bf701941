"""reshape: the same values in the same order under another shape. Exact."""

from __future__ import annotations

from collections.abc import Sequence

from intaglio.ops.base import Array, Attrs, Cost, IntegerOp, TensorType, integers
from intaglio.ops.movement import one_tensor


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x -> `shape`, which has as many elements."""
    x = one_tensor("reshape", types)
    result = TensorType(tuple(integers("reshape", attrs, "shape")), x.dtype)
    if result.size != x.size or any(size < 0 for size in result.shape):
        raise ValueError(f"reshape: {list(x.shape)} cannot take the shape {list(result.shape)}.")
    return result


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """The values of x in row-major order."""
    return inputs[0].reshape(attrs["shape"])


def cost(_types: Sequence[TensorType], _attrs: Attrs) -> Cost:
    """Nothing moves: the memory is the same."""
    return Cost()


OP = IntegerOp("reshape", "The same values under another shape.", infer, reference, cost)
