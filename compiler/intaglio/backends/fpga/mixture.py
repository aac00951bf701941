"""Mixtures of experts before addresses: from a program's step to a producer, and from it to an operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.graph import Constants, Ints, Mixture, Operand
from intaglio.backends.fpga.operations import PAD, Buffer, Experts, pad_columns
from intaglio.backends.fpga.refusal import refusal
from intaglio.program import Array, Step

_TOP = 65535
"""The first entry of both route tables (docs/accelerator.md, ROUTE)."""


def mixture(step: Step, source: Operand, logits: Operand, arrays: Sequence[Array]) -> Mixture:
    """The producer of a step `moe`; `arrays`: its constant inputs, in order."""
    route_table, first, second = arrays[0], arrays[1:5], arrays[-4:]
    if (route_table[:, 0] != _TOP).any():
        raise refusal(step, f"its route table does not begin with {_TOP}")
    if max(int(part[2].max(initial=0)) for part in (first, second)) >= 1 << 26:
        raise refusal(step, "a multiplier has more than 26 bits")
    return Mixture(
        step, source.producer.total_rows, second[0].shape[1], step.attrs["dtype"], source=source, logits=logits,
        route_table=route_table, first=_of_experts(first), second=_of_experts(second),
        tables=arrays[5] if step.attrs["has_table"] else None, steps=(step,),
    )  # fmt: skip


def _of_experts(arrays: Sequence[Array]) -> tuple[Constants, ...]:
    return tuple(Constants(*of) for of in zip(*arrays, strict=True))


def experts(
    producer: Mixture,
    x: Buffer,
    logits: Buffer,
    out: Buffer,
    residual: Buffer | None,
    config: AcceleratorConfig,
) -> Experts:
    """The operation that computes rows and columns of `out`."""
    assert producer.source is not None
    _check(producer, out, config)
    hidden = pad_columns(np.arange(len(producer.first[0].weight)), config.depth)
    depth = _positions(x, producer.source.columns)
    add: Mapping[str, Any] = {} if producer.addend is None else producer.addend.attrs
    operation = Experts(
        producer.steps[-1], producer.step, x, logits, out, producer.route_table,
        tuple(_spread(of, hidden, depth, len(x.columns)) for of in producer.first),
        tuple(_spread(of, out.columns, np.arange(of.weight.shape[1]), len(hidden)) for of in producer.second),
        producer.tables, (), _scratch("hidden", hidden, out, 0), _scratch("slots", out.columns, out, 0),
        residual, add,
    )  # fmt: skip
    return resized(operation, config)


def resized(op: Experts, config: AcceleratorConfig) -> Experts:
    """The operation with room between its steps for all rows of its result."""
    rows = op.moe.attrs["k"] * op.out.tiles(config) * config.rows
    hidden = _scratch("hidden", op.hidden.columns, op.out, op.out.rows)
    slots = _scratch("slots", op.slots.columns, op.out, rows)
    changed = replace(op, places=(), hidden=hidden, slots=slots)
    changed.places = _places(changed, config)
    return changed


def _check(producer: Mixture, out: Buffer, config: AcceleratorConfig) -> None:
    """Raises UnsupportedError where the configuration's router is too small."""
    count = len(producer.first)
    if count > config.experts:
        raise refusal(
            producer.step,
            f"it has {count} experts, the configuration's router chooses from {config.experts}",
            f"raise experts in the configuration to at least {count}",
        )
    if out.rows > config.max_keys:
        raise refusal(
            producer.step,
            f"it routes {out.rows} tokens, the configuration allows {config.max_keys}",
            f"raise max_keys in the configuration to at least {out.rows}",
        )


def _positions(buffer: Buffer, columns: Ints) -> Ints:
    """Where in `buffer` each of a producer's columns stands."""
    place = {int(c): i for i, c in reversed(list(enumerate(buffer.columns))) if c >= 0}
    return np.array([place[int(c)] for c in columns])


def _spread(of: Constants, columns: Ints, depth: Ints, width: int) -> Constants:
    """Constants of output `columns` (PAD: 0), with input k at `depth[k]` of `width`."""
    real, index = columns >= 0, np.maximum(columns, 0)
    weight = np.zeros((len(columns), width), np.int8)
    weight[:, depth] = np.where(real[:, None], of.weight[index], 0)
    bias, multiplier, shift = (
        np.where(real, values[index].astype(np.int64), filler)
        for values, filler in ((of.bias, 0), (of.multiplier, 0), (of.shift, 1))
    )
    return Constants(weight, bias, multiplier, shift)


def _scratch(name: str, columns: Ints, out: Buffer, rows: int) -> Buffer:
    return Buffer(f"{out.name} {name}", "A", columns, False, out.low, out.low + rows)


def _places(op: Experts, config: AcceleratorConfig) -> tuple[Buffer, ...]:
    """Two buffers, so that tokens of one expert are fetched while another computes; one where two do not fit."""
    columns = np.full(max(len(op.x.columns), len(op.out.columns)), PAD)
    two = tuple(_scratch(f"expert {parity}", columns, op.out, op.out.rows) for parity in range(2))
    held = [buffer for buffer in (*op.reads, op.out) if buffer.bank == "A"]
    words = sum(buffer.words(config) for buffer in (*held, *two))
    return two if words <= config.a_words else two[:1]
