"""patch_embed: non-overlapping image patches, then linear. Accuracy: that of linear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import linear
from intaglio.ops.base import (
    Array,
    Attrs,
    Built,
    Cost,
    Grid,
    IntegerOp,
    TensorType,
    check_count,
    integers,
    output_grid,
)


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x [B, C, H, W], weight [N, C*ph*pw], bias, multiplier, shift [N] -> [B, H/ph * W/pw, N]."""
    check_count("patch_embed", types, 5)
    if len(types[0].shape) != 4:
        raise ValueError(f"patch_embed: x must have shape [B, C, H, W], not {list(types[0].shape)}.")
    ph, pw = integers("patch_embed", attrs, "patch", 2)
    batch, channels, height, width = types[0].shape
    if ph < 1 or pw < 1 or height % ph or width % pw:
        raise ValueError(f"patch_embed: patches of {[ph, pw]} do not tile an image of {[height, width]}.")
    out = linear.check_weights("patch_embed", types, channels * ph * pw, attrs)
    return TensorType((batch, (height // ph) * (width // pw), out), output_grid("patch_embed", attrs))


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """Linear on `patches(x)`."""
    return linear.product(patches(inputs[0], attrs["patch"]), inputs[1:5], attrs)


def patches(x: Array, patch: Sequence[int]) -> Array:
    """``[B, C, H, W]`` to ``[B, H/ph * W/pw, C*ph*pw]``: patches row-major, each in the order (c, y, x)."""
    batch, channels, height, width = x.shape
    ph, pw = patch
    split = x.reshape(batch, channels, height // ph, ph, width // pw, pw)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(
        batch, (height // ph) * (width // pw), channels * ph * pw
    )


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    return Cost(
        macs=out.size * types[1].shape[1],
        multiplies=out.size,
        bytes_weights=sum(t.nbytes for t in types[1:]),
        bytes_moved=types[0].nbytes + out.nbytes,
    )


def parameters(
    x: Grid,
    weight: Array,
    weight_scale: NDArray[np.float64] | float,
    bias: NDArray[np.float64] | None,
    out: Grid,
) -> Built:
    """As `linear.parameters`, with convolution weights [N, C, ph, pw] (kernel equal to stride, no padding)."""
    weight = np.asarray(weight)
    if weight.ndim != 4:
        raise ValueError(f"patch_embed: weight must be [N, C, ph, pw], not shape {list(weight.shape)}.")
    built = linear.parameters(x, weight.reshape(weight.shape[0], -1), weight_scale, bias, out)
    attrs: dict[str, Any] = {k: built.attrs[k] for k in ("acc_dtype", "zero_point", "dtype")}
    return Built(built.constants, attrs | {"patch": [int(weight.shape[2]), int(weight.shape[3])]})


OP = IntegerOp("patch_embed", "Non-overlapping image patches, then linear.", infer, reference, cost)
