"""table: any unary function of an int8 or int16 tensor.

Accuracy: exactly the QDQ result, computed in float64 and rounded half to even.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

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
    check_type,
)
from intaglio.ops.exponential import shift_exp

RealFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def infer(types: Sequence[TensorType], _attrs: Attrs) -> TensorType:
    """Type rule: x, table [256] (int8 x) or [65536] (int16 x) -> the shape of x, the type of the table."""
    check_count("table", types, 2)
    check_dtype("table", "x", types[0], ACTIVATIONS)
    check_type("table", "table", types[1], ACTIVATIONS, (256 if types[0].dtype == "int8" else 65536,))
    return TensorType(types[0].shape, types[1].dtype)


def reference(inputs: Sequence[Array], _attrs: Attrs) -> Array:
    """``table[x - min(dtype of x)]``."""
    x, table = inputs
    return np.asarray(table[x.astype(np.int64) - np.iinfo(x.dtype).min])


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    moved = types[0].nbytes + out.nbytes
    return Cost(lookups=out.size, bytes_weights=types[1].nbytes, bytes_moved=moved)


def parameters(function: RealFunction, x: Grid, out: Grid) -> Built:
    """The table of `function` (float64 array to float64 array) from the grid of x to that of the output."""
    return Built([out.quantize(function(x.values()))], {})


def shift_gelu(x: Grid, out: Grid) -> Built:
    """I-ViT's ShiftGELU, ``x * sigmoid(1.702 x)`` by ShiftExp, as a table.

    The sigmoid is 1 / (1 + e) for x >= 0 and e / (1 + e) below, with e = ShiftExp(-|1.702 x|): unlike the paper's
    form (arXiv 2207.01405, section 3.4) it does not subtract a row maximum, which clips beyond 9.37.
    """
    steps = np.arange(x.minimum, x.maximum + 1) - x.zero_point
    e = shift_exp(np.abs(steps), 1.702 * x.scale)
    return Built([out.quantize(x.scale * steps * np.where(steps >= 0, 1, e) / (1 + e))], {})


OP = IntegerOp("table", "Any unary function of an int8 or int16 tensor.", infer, reference, cost)
