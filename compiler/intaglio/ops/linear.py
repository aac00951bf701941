"""linear: matrix product with a constant, requantized per output channel; table and residual may be fused.

Accuracy: the accumulator is exact; the multiplier is off by at most 2^-17 (2^-24 for 16-bit outputs) relative, less
than 2^-9 LSB over the whole output range, so the result is within 1 LSB of the QDQ value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import add, table
from intaglio.ops.arith import (
    accumulator,
    dyadics_within,
    exact_matmul,
    multiplier_bits,
    peak,
    requantize,
)
from intaglio.ops.base import (
    ACCUMULATORS,
    ACTIVATIONS,
    Array,
    Attrs,
    Built,
    Cost,
    Grid,
    IntegerOp,
    TensorType,
    check_count,
    check_rank,
    check_type,
    choice,
    integer,
    output_grid,
)

# A row whose products cannot move the output by more than this is replaced by its bias.
_NEGLIGIBLE = 2.0**-12


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x [.., K], weight [N, K], bias, multiplier, shift [N], table and residual if present -> [.., N].

    With tasks, weight, bias, multiplier and shift have a leading dimension [tasks] and the last input is the task.
    """
    has_table, has_residual = _flags(attrs)
    has_task = task_flag(attrs)
    check_count("linear", types, 5 + has_table + has_residual + has_task)
    if has_task:
        check_type("linear", "task", types[-1], ("int32",), ())
        types = [types[0], *_one_task(types[1:5]), *types[5:-1]]
    check_rank("linear", "x", types[0], 1)
    shape = (*types[0].shape[:-1], check_weights("linear", types[:5], types[0].shape[-1], attrs))
    result = TensorType(shape, output_grid("linear", attrs))
    if has_table:
        result = table.infer([result, types[5]], {})
    if has_residual:
        check_type("linear", "residual", types[-1], ACTIVATIONS, shape)
        result = add.infer([result, types[-1]], _add_attrs(attrs))
    return result


def _one_task(types: Sequence[TensorType]) -> list[TensorType]:
    """The types of one task's constants. Raises ValueError where they do not all have the same number of tasks."""
    counts = {t.shape[:1] for t in types}
    if len(counts) > 1 or counts & {(), (0,)}:
        shapes = ", ".join(str(list(t.shape)) for t in types)
        raise ValueError(
            f"linear: weight, bias, multiplier and shift must be [tasks, ..] with has_task, not {shapes}."
        )
    return [TensorType(t.shape[1:], t.dtype) for t in types]


def check_weights(op: str, types: Sequence[TensorType], depth: int, attrs: Attrs) -> int:
    """Check x's dtype, weight [N, depth], bias, multiplier and shift [N]; return N."""
    x, weight, bias, multiplier, shift = types
    check_type(op, "x", x, ACTIVATIONS, x.shape)
    channels = weight.shape[0] if weight.shape else 0
    check_type(op, "weight", weight, ACTIVATIONS, (channels, depth))
    acc_dtype = choice(op, attrs, "acc_dtype", ACCUMULATORS)
    check_type(op, "bias", bias, (acc_dtype,), (channels,))
    check_type(op, "multiplier", multiplier, ("int32",), (channels,))
    check_type(op, "shift", shift, ("int32",), (channels,))
    return channels


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """The fused op equals linear, table and add in sequence to the bit."""
    has_table, has_residual = _flags(attrs)
    if task_flag(attrs):
        task = int(inputs[-1])
        inputs = [inputs[0], *(constant[task] for constant in inputs[1:5]), *inputs[5:-1]]
    result = product(inputs[0], inputs[1:5], attrs)
    if has_table:
        result = table.reference([result, inputs[5]], {})
    if has_residual:
        result = add.reference([result, inputs[-1]], _add_attrs(attrs))
    return result


def product(x: Array, constants: Sequence[Array], attrs: Attrs) -> Array:
    """The requantized product of ``x [.., K]`` with (weight, bias, multiplier, shift)."""
    weight, bias, multiplier, shift = constants
    bound = peak(x) * int(np.abs(weight.astype(np.int64)).sum(axis=1).max(initial=0))
    acc = exact_matmul(x, weight.T, bound) + bias.astype(np.int64)
    return requantize(acc, multiplier, shift, attrs["zero_point"], attrs["dtype"])


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call: with tasks, one task's constants."""
    has_table, has_residual = _flags(attrs)
    out = infer(types, attrs)
    if task_flag(attrs):
        types = [types[0], *_one_task(types[1:5]), *types[5:-1]]
    residual = types[-1].nbytes if has_residual else 0
    return Cost(
        macs=out.size * types[0].shape[-1],
        multiplies=out.size * (1 + 2 * has_residual),
        lookups=out.size * has_table,
        bytes_weights=sum(t.nbytes for t in types[1 : 5 + has_table]),
        bytes_moved=types[0].nbytes + residual + out.nbytes,
    )


def parameters(
    x: Grid,
    weight: Array,
    weight_scale: NDArray[np.float64] | float,
    bias: NDArray[np.float64] | None,
    out: Grid,
) -> Built:
    """Constants (weight, bias, multiplier, shift) and attributes of a linear.

    `weight`: integers [N, K], zero point already subtracted; `weight_scale`: [N] or scalar; `bias`: real, float64 [N].
    Raises ValueError where weights do not fit int16 or no multiplier of enough bits fits the accumulator.
    """
    weight = np.asarray(weight)
    if weight.ndim != 2 or not _holds("int16", weight):
        raise ValueError(f"linear: weight must be [N, K] within int16, not shape {list(weight.shape)}.")
    ratio = np.broadcast_to(np.asarray(weight_scale, np.float64), weight.shape[:1]) * x.scale / out.scale
    total = weight.sum(axis=1, dtype=np.int64)
    magnitude = 2 * np.maximum(weight, 0).sum(axis=1, dtype=np.int64) - total  # |w| = 2 max(w, 0) - w
    # Pruned channels have weight scales near zero: they get a step of the accumulator that holds any bias.
    dead = magnitude * x.reach * ratio < _NEGLIGIBLE
    if dead.any():
        weight, ratio = np.where(dead[:, None], 0, weight), np.where(dead, _NEGLIGIBLE, ratio)
        total, magnitude = np.where(dead, 0, total), np.where(dead, 0, magnitude)
    bias_int = _integer_bias(total, magnitude, ratio, bias, x, out)
    largest = max(-x.minimum, x.maximum) * magnitude + np.abs(bias_int)
    multiplier, shift = dyadics_within(ratio, multiplier_bits(out.dtype), largest)
    acc_dtype = accumulator(int(largest.max(initial=0)))
    constants = [
        weight.astype("int8" if _holds("int8", weight) else "int16", copy=False),
        bias_int.astype(acc_dtype),
        multiplier.astype(np.int32),
        shift.astype(np.int32),
    ]
    attrs: dict[str, Any] = {"acc_dtype": acc_dtype, "zero_point": out.zero_point, "dtype": out.dtype}
    return Built(constants, attrs | {"has_table": 0, "has_residual": 0})


def stack(built: Sequence[Built]) -> Built:
    """The constants of several linears of one shape and output grid, stacked: of tasks, or of experts.

    Raises ValueError where shapes or output grids differ.
    """
    shapes = {tuple(c.shape for c in b.constants) for b in built}
    grids = {(b.attrs["zero_point"], b.attrs["dtype"]) for b in built}
    if len(shapes) != 1 or len(grids) != 1:
        weights = [list(b.constants[0].shape) for b in built]
        raise ValueError(
            f"linear: one shape and one output grid are expected, not {weights} on {sorted(grids)}."
        )
    acc_dtype = max((b.attrs["acc_dtype"] for b in built), key=ACCUMULATORS.index)
    # NumPy's promotion takes the wider type: int16 weights, int64 biases.
    constants = [np.stack(arrays) for arrays in zip(*(b.constants for b in built), strict=True)]
    return Built(constants, dict(built[0].attrs) | {"acc_dtype": acc_dtype})


def with_tasks(built: Sequence[Built]) -> Built:
    """One linear that chooses among those of several tasks by its last input, `task`."""
    stacked = stack(built)
    return Built(stacked.constants, stacked.attrs | {"has_task": 1})


def _holds(dtype: str, values: Array) -> bool:
    """Whether integers of `dtype` hold all of `values`."""
    if np.can_cast(values.dtype, dtype):
        return True
    limits = np.iinfo(dtype)
    return bool(limits.min <= values.min(initial=0) and values.max(initial=0) <= limits.max)


def _integer_bias(
    total: Array, magnitude: Array, ratio: Array, bias: Array | None, x: Grid, out: Grid
) -> Array:
    """Bias in accumulator steps with x's zero point folded in; a bias that always saturates is clipped.

    `total`, `magnitude` [N]: sums of a row's weights and of their absolute values.
    """
    steps = np.zeros(len(ratio))
    if bias is not None:
        steps = np.rint(np.asarray(bias, np.float64) / out.scale / ratio)
    span = 2.0 * (out.maximum - out.minimum + 1)
    limit = np.minimum(magnitude * x.reach + span / ratio, 2.0**61)
    return np.asarray(np.clip(steps, -limit, limit).astype(np.int64) - x.zero_point * total)


def _flags(attrs: Attrs) -> tuple[int, int]:
    return integer("linear", attrs, "has_table", 0, 1), integer("linear", attrs, "has_residual", 0, 1)


def task_flag(attrs: Attrs) -> int:
    """Whether the constants are chosen by a task; programs without tasks need not say so."""
    return integer("linear", {"has_task": 0, **attrs}, "has_task", 0, 1)


def _add_attrs(attrs: Attrs) -> dict[str, Any]:
    return {name.removeprefix("add_"): value for name, value in attrs.items() if name.startswith("add_")}


OP = IntegerOp(
    "linear", "Matrix product with a constant, requantized per output channel.", infer, reference, cost
)
