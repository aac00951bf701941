"""moe: the k best of E expert MLPs for every token, weighted by the gate's exact integer probabilities.

Accuracy: both products of an expert are exact and requantized once, as linear. A gate weight is off by at most 1.03 of
32767 (two table entries and one rounding), so given the integer logits and results y of the experts the output is
within 1 LSB of the float64 softmax, while ``k * y_scale / out_scale`` is below 60 (E instead of k without
renormalization).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import linear, table
from intaglio.ops.arith import Int64, requantize, round_shift
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
    check_dtype,
    check_rank,
    check_type,
    choice,
    integer,
    output_grid,
)
from intaglio.ops.exponential import row_multiplier
from intaglio.ops.table import RealFunction

MAX_K = 4
MAX_EXPERTS = 4096

E_BITS = 15
"""Bits of a gate weight; the largest of a token has the value 2^15 - 1."""

_TOP = 65535
_PRODUCT_SHIFT = 17


@dataclass(frozen=True)
class Projection:
    """One linear of an expert: integer weights [N, K] (zero point subtracted), scale [N] or scalar, real bias [N]."""

    weight: Array
    scale: NDArray[np.float64] | float
    bias: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Expert:
    """An expert MLP: ``second(function(first(x)))``.

    `hidden`: the int8 grid of the first product; `activated`: that of the function's result (None without function:
    the second product then reads `hidden`). Both may differ from expert to expert.
    """

    first: Projection
    hidden: Grid
    second: Projection
    function: RealFunction | None = None
    activated: Grid | None = None


@dataclass(frozen=True)
class Routing:
    """Where tokens go: `slots` [T, k] expert indices, best first; `weights` [T, k] gate weights; `total` [T]."""

    slots: Int64
    weights: Int64
    total: Int64


@dataclass(frozen=True)
class Operands:
    """The inputs of a call (tensors or their types) by name; `first` and `second`: weight, bias, multiplier, shift.

    `tables` is None without functions.
    """

    x: Any
    logits: Any
    route_table: Any
    first: list[Any]
    tables: Any
    second: list[Any]

    @classmethod
    def of(cls, inputs: Sequence[Any]) -> Operands:
        """Split the op's inputs: 11 without table, 12 with."""
        inputs = list(inputs)
        x, logits, route_table = inputs[:3]
        tables = inputs[7] if len(inputs) == 12 else None
        return cls(x, logits, route_table, inputs[3:7], tables, inputs[-4:])


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x [.., K], logits [.., E], route_table, experts (docs/integer-semantics.md) -> [.., N]."""
    has_table = integer("moe", attrs, "has_table", 0, 1)
    check_count("moe", types, 11 + has_table)
    given = Operands.of(types)
    for name, operand in (("x", given.x), ("logits", given.logits)):
        check_dtype("moe", name, operand, ACTIVATIONS)
        check_rank("moe", name, operand, 1)
    count = given.logits.shape[-1]
    if not 1 <= count <= MAX_EXPERTS:
        raise ValueError(f"moe: expects 1..{MAX_EXPERTS} experts, not {count}.")
    check_type("moe", "logits", given.logits, ACTIVATIONS, (*given.x.shape[:-1], count))
    check_type("moe", "route_table", given.route_table, ("uint32",), (2, 256))
    hidden = _check_experts(given.first, count, given.x.shape[-1], attrs, 1)
    if has_table:
        length = 1 if given.tables.shape[:1] == (1,) else count
        check_type("moe", "table", given.tables, ("int8",), (length, 256))
    channels = _check_experts(given.second, count, hidden, attrs, 2)
    _check_attrs(attrs, count)
    return TensorType((*given.x.shape[:-1], channels), output_grid("moe", attrs))


def _check_experts(types: Sequence[TensorType], count: int, depth: int, attrs: Attrs, which: int) -> int:
    """Check weight [E, N, depth], bias, multiplier and shift [E, N] of projection `which`; return N."""
    weight, bias, multiplier, shift = types
    channels = weight.shape[1] if len(weight.shape) == 3 else 0
    check_type("moe", f"weight{which}", weight, ACTIVATIONS, (count, channels, depth))
    acc_dtype = choice("moe", attrs, f"acc{which}_dtype", ACCUMULATORS)
    check_type("moe", f"bias{which}", bias, (acc_dtype,), (count, channels))
    check_type("moe", f"multiplier{which}", multiplier, ("int32",), (count, channels))
    check_type("moe", f"shift{which}", shift, ("int32",), (count, channels))
    return channels


def _check_attrs(attrs: Attrs, count: int) -> None:
    integer("moe", attrs, "k", 1, min(MAX_K, count))
    integer("moe", attrs, "normalize", 0, 1)
    integer("moe", attrs, "hidden_zero", -128, 127)
    integer("moe", attrs, "y_zero", -128, 127)
    integer("moe", attrs, "multiplier", 0, (1 << 26) - 1)
    integer("moe", attrs, "shift", 1, 62 - (E_BITS - 1))


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """Expert by expert: each computes the tokens that chose it, and adds its weighted result to theirs."""
    given = Operands.of(inputs)
    x = given.x.reshape(-1, given.x.shape[-1])
    routing = route(given.logits, given.route_table, attrs)
    acc = np.zeros((len(x), given.second[0].shape[1]), np.int64)
    for expert in np.unique(routing.slots):
        tokens, slots = np.nonzero(routing.slots == expert)
        y = run_expert(x[tokens], given, int(expert), attrs)
        # A token has an expert once at most, so that no index repeats.
        acc[tokens] += routing.weights[tokens, slots, None] * (y.astype(np.int64) - attrs["y_zero"])
    r = (np.int64(attrs["multiplier"]) << (E_BITS - 1)) // routing.total
    out = requantize(acc, r[:, None], attrs["shift"] + E_BITS - 1, attrs["zero_point"], attrs["dtype"])
    return out.reshape(*given.x.shape[:-1], -1)


def route(logits: Array, route_table: Array, attrs: Attrs) -> Routing:
    """The experts of every token and their weights, from logits [.., E] and the step's attributes."""
    scores = logits.reshape(-1, logits.shape[-1]).astype(np.int64)
    # A stable sort of the negated values keeps equal ones in order of index.
    slots = np.argsort(-scores, axis=1, kind="stable")[:, : attrs["k"]]
    weights = gate_weights(scores.max(axis=1, keepdims=True) - scores, route_table)
    chosen = np.take_along_axis(weights, slots, axis=1)
    return Routing(slots, chosen, (chosen if attrs["normalize"] else weights).sum(axis=1))


def gate_weights(distance: Int64, route_table: Array) -> Int64:
    """``E`` of every distance from the largest logit: 32767 at 0, falling to 0."""
    coarse, fine = route_table.astype(np.int64)
    return round_shift(coarse[distance >> 8] * fine[distance & 255], _PRODUCT_SHIFT)


def run_expert(x: Array, given: Operands, expert: int, attrs: Attrs) -> Array:
    """The result y, int8 [rows, N], of one expert on rows [rows, K]."""
    first = {"zero_point": attrs["hidden_zero"], "dtype": "int8"}
    hidden = linear.product(x, [constant[expert] for constant in given.first], first)
    if given.tables is not None:
        entries = given.tables[expert if len(given.tables) > 1 else 0]
        hidden = table.reference([hidden, entries], {})
    second = {"zero_point": attrs["y_zero"], "dtype": "int8"}
    return linear.product(hidden, [constant[expert] for constant in given.second], second)


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call; every expert's weights are counted, as a routing may choose all of them."""
    out = infer(types, attrs)
    given = Operands.of(types)
    tokens = out.size // out.shape[-1]
    slots, hidden = tokens * attrs["k"], given.first[0].shape[1]
    return Cost(
        macs=slots * hidden * (given.x.shape[-1] + out.shape[-1]),
        multiplies=slots * (hidden + 2 * out.shape[-1]) + out.size,
        lookups=slots * hidden * attrs["has_table"] + 2 * given.logits.size,
        divides=tokens,
        bytes_weights=sum(t.nbytes for t in types[2:]),
        bytes_moved=given.x.nbytes + given.logits.nbytes + out.nbytes,
    )


def route_table(scale: float) -> NDArray[np.uint32]:
    """The gate's exponential, uint32 [2, 256]: ``65535 * exp(-scale * 256 * i)`` and ``65535 * exp(-scale * i)``."""
    steps = np.arange(256)
    coarse, fine = np.exp(-scale * 256 * steps), np.exp(-scale * steps)
    return np.rint(_TOP * np.stack([coarse, fine])).astype(np.uint32)


def parameters(
    x: Grid, logits: Grid, experts: Sequence[Expert], y: Grid, out: Grid, *, k: int, normalize: bool
) -> Built:
    """Constants (route_table, then the experts') and attributes of a mixture of experts.

    `y`: the one int8 grid of every expert's result; `out`: that of the weighted sum; `normalize`: whether the k gate
    weights sum to one (else they are the softmax over all experts). Raises ValueError where a hidden grid or `y` is
    not int8, experts differ in shape or only some have a function, or a linear cannot be built (`linear.parameters`).
    """
    _check_built(experts, y)
    zeros = {expert.hidden.zero_point for expert in experts}
    hidden_zero = zeros.pop() if len(zeros) == 1 else 0
    first = linear.stack([_first(x, expert, hidden_zero) for expert in experts])
    second = linear.stack(
        [
            linear.parameters(e.activated or e.hidden, e.second.weight, e.second.scale, e.second.bias, y)
            for e in experts
        ]
    )
    tables = _tables(experts)
    multiplier, shift = row_multiplier(y.scale / out.scale, E_BITS)
    attrs = {
        "k": k,
        "normalize": int(normalize),
        "acc1_dtype": first.attrs["acc_dtype"],
        "acc2_dtype": second.attrs["acc_dtype"],
        "has_table": len(tables),
        "hidden_zero": hidden_zero,
        "y_zero": y.zero_point,
        "multiplier": multiplier,
        "shift": shift,
        "zero_point": out.zero_point,
        "dtype": out.dtype,
    }
    return Built([route_table(logits.scale), *first.constants, *tables, *second.constants], attrs)


def _check_built(experts: Sequence[Expert], y: Grid) -> None:
    if not experts:
        raise ValueError("moe: expects at least one expert.")
    grids = [("hidden", e.hidden) for e in experts] + [
        ("activated", e.activated) for e in experts if e.activated
    ]
    for name, grid in [*grids, ("y", y)]:
        if grid.dtype != "int8":
            raise ValueError(f"moe: the grid {name} must be int8, not {grid.dtype}.")
    shapes = {(np.shape(e.first.weight), np.shape(e.second.weight)) for e in experts}
    if len(shapes) > 1:
        raise ValueError(f"moe: experts must have weights of equal shapes, not {sorted(shapes)}.")
    if len({(e.function is None, e.activated is None) for e in experts}) > 1 or any(
        (e.function is None) != (e.activated is None) for e in experts
    ):
        raise ValueError("moe: either every expert has a function and its grid, or none has.")


def _first(x: Grid, expert: Expert, hidden_zero: int) -> Built:
    """The first product on the expert's own grid: what its zero point differs by from `hidden_zero` is bias."""
    grid, projection = expert.hidden, expert.first
    bias = projection.bias
    if grid.zero_point != hidden_zero:
        bias = np.zeros(len(projection.weight)) if bias is None else np.asarray(bias, np.float64)
        bias = bias + (grid.zero_point - hidden_zero) * grid.scale
    common = Grid(grid.scale, hidden_zero, grid.dtype)
    return linear.parameters(x, projection.weight, projection.scale, bias, common)


def _tables(experts: Sequence[Expert]) -> list[Array]:
    """The functions as one array, [1, 256] where all are the same table; empty without functions."""
    entries = [
        table.parameters(e.function, e.hidden, e.activated).constants[0]
        for e in experts
        if e.function is not None and e.activated is not None
    ]
    if not entries:
        return []
    tables = np.stack(entries)
    return [tables[:1] if (tables == tables[0]).all() else tables]


OP = IntegerOp("moe", "The k best of E expert MLPs, weighted by the gate.", infer, reference, cost)
