"""transpose: permute the axes. Exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.base import Array, Attrs, IntegerOp, TensorType, integers
from intaglio.ops.movement import moving_cost, one_tensor


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x -> axis i of the result is axis ``axes[i]`` of x."""
    x = one_tensor("transpose", types)
    axes = integers("transpose", attrs, "axes")
    if sorted(axes) != list(range(len(x.shape))):
        raise ValueError(f"transpose: axes must permute 0..{len(x.shape) - 1}, not {axes}.")
    return TensorType(tuple(x.shape[axis] for axis in axes), x.dtype)


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """The permuted values, contiguous."""
    return np.ascontiguousarray(inputs[0].transpose(attrs["axes"]))


OP = IntegerOp("transpose", "Permute the axes.", infer, reference, moving_cost(infer))
