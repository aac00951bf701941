"""Attention's operands in whole words per head: what stands in the lanes beyond the head dimension.

A lane adds `(q - q_zero) * (k - k_zero)` to a score: nothing if q or k holds its zero point there.
"""

from __future__ import annotations

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.graph import Attend, Ints, Producer, Product
from intaglio.backends.fpga.operations import CONSTANT, PAD, pad_columns
from intaglio.backends.fpga.refusal import refusal


def scores(attend: Attend, config: AcceleratorConfig) -> tuple[Ints, Ints]:
    """Columns of q and k, heads after one another."""
    assert attend.q is not None
    assert attend.k is not None
    q, k = attend.q.columns.reshape(attend.heads, -1), attend.k.columns.reshape(attend.heads, -1)
    q_filler, k_filler = _fillers(attend) if q.shape[1] % config.depth else (PAD, PAD)
    return _padded(q, config, q_filler), _padded(k, config, k_filler)


def values(attend: Attend, config: AcceleratorConfig) -> Ints:
    """Columns of v, heads after one another."""
    assert attend.v is not None
    return _padded(attend.v.columns.reshape(attend.heads, -1), config, PAD)


def before_table(product: Product, value: int) -> int:
    """What the product must give so that its table makes `value`, one of `image(product)`, of it."""
    return value if product.table is None else int(np.flatnonzero(product.table == value)[0]) - 128


def image(producer: Producer) -> Ints:
    """Constants that a column of the producer can hold: none if a residual is added to it."""
    if not isinstance(producer, Product) or producer.addend is not None or producer.constants:
        return np.zeros(0, np.int64)
    return np.arange(-128, 128) if producer.table is None else np.unique(producer.table).astype(np.int64)


def _padded(lanes: Ints, config: AcceleratorConfig, filler: int) -> Ints:
    return np.concatenate([pad_columns(head, config.depth, filler) for head in lanes])


def _fillers(attend: Attend) -> tuple[int, int]:
    """Columns that fill up q's and k's heads: one of the two holds its zero point."""
    assert attend.q is not None
    assert attend.k is not None
    q_zero, k_zero = int(attend.step.attrs["q_zero"]), int(attend.step.attrs["k_zero"])
    if k_zero in image(attend.k.producer):
        return PAD, CONSTANT + k_zero
    if q_zero in image(attend.q.producer):
        return CONSTANT + q_zero, PAD
    raise refusal(
        attend.step,
        "its head dimension fills no whole words, and neither q nor k can hold its zero point in the rest",
        "choose a configuration whose depth divides the head dimension",
    )
