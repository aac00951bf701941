"""topk: indices of the k largest elements of the last axis, largest first; ties go to the lower index. Exact."""

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
    check_count,
    check_dtype,
    check_rank,
    integer,
)


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x [.., n] -> int32 [.., k]."""
    check_count("topk", types, 1)
    check_dtype("topk", "x", types[0], ACTIVATIONS)
    check_rank("topk", "x", types[0], 1)
    k = integer("topk", attrs, "k", 1, types[0].shape[-1])
    return TensorType((*types[0].shape[:-1], k), "int32")


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """The first k indices by falling value, then rising index."""
    # A stable sort of the negated values keeps equal ones in order of index.
    order = np.argsort(-inputs[0].astype(np.int64), axis=-1, kind="stable")
    return np.ascontiguousarray(order[..., : attrs["k"]].astype(np.int32))


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    return Cost(bytes_moved=types[0].nbytes + infer(types, attrs).nbytes)


OP = IntegerOp("topk", "Indices of the k largest elements of the last axis.", infer, reference, cost)
