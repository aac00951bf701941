"""What the data-movement ops share: a cost without arithmetic, and the types they accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from intaglio.ops.base import Attrs, Cost, TensorType, check_count, check_dtype

INTEGERS = ("int8", "int16", "int32", "uint8")

Infer = Callable[[Sequence[TensorType], Attrs], TensorType]


def one_tensor(op: str, types: Sequence[TensorType]) -> TensorType:
    """The only operand, checked."""
    check_count(op, types, 1)
    check_dtype(op, "x", types[0], INTEGERS)
    return types[0]


def moving_cost(infer: Infer) -> Callable[[Sequence[TensorType], Attrs], Cost]:
    """Every output element is read once and written once."""

    def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
        return Cost(bytes_moved=2 * infer(types, attrs).nbytes)

    return cost
