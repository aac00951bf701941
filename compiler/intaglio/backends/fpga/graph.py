"""What the accelerator computes, before scheduling: producers of token tensors, and who reads which of their columns.

A *producer* makes a tensor of logical shape [rows, channels]. Rows are tokens in the accelerator's own order: computed
ones first, constant ones (class token, registers) last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.program import Array, Step

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Operand:
    """Rows and columns of one producer that a step reads: element [t, k] is (rows[t], columns[k])."""

    producer: Producer
    rows: Ints
    columns: Ints


@dataclass(eq=False)
class Producer:
    """One tensor [rows, channels] and the step that makes it; `constants`: rows appended at compile time."""

    step: Step
    rows: int
    channels: int
    dtype: str
    constants: list[Array] = field(default_factory=list)

    @property
    def total_rows(self) -> int:
        return self.rows + len(self.constants)


@dataclass(frozen=True)
class Addend:
    """A residual: `a * product + b * other + offset` with the attributes of `add`; `other` may be constant."""

    other: Operand | Array
    attrs: dict[str, Any]


@dataclass(frozen=True)
class Constants:
    """Of a matrix product: weight [channels, depth]; bias, multiplier, shift [channels]."""

    weight: Array
    bias: Array
    multiplier: Array
    shift: Array


@dataclass(eq=False)
class Product(Producer):
    """A matrix product with constant weights [channels, depth], then a table, then a residual, if given.

    `source` is what it reads: None for the patches of the input image. `tasks`: constants of every task, of which
    `weight` and the others are the first; empty where all tasks have the same.
    """

    source: Operand | None = None
    weight: Array = field(default_factory=lambda: np.zeros((0, 0), np.int8))
    bias: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    multiplier: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    shift: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    zero: int = 0
    wide: bool = False
    table: Array | None = None
    addend: Addend | None = None
    steps: tuple[Step, ...] = ()
    tasks: tuple[Constants, ...] = ()


@dataclass(eq=False)
class Mixture(Producer):
    """A mixture of experts, then a residual, if given: `first`, `second`: the products of every expert.

    `tables`: the function between them, int8 [1 or experts, 256], or None; `route_table`: [2, 256].
    """

    source: Operand | None = None
    logits: Operand | None = None
    route_table: Array = field(default_factory=lambda: np.zeros((2, 256), np.uint32))
    first: tuple[Constants, ...] = ()
    second: tuple[Constants, ...] = ()
    tables: Array | None = None
    addend: Addend | None = None
    steps: tuple[Step, ...] = ()


@dataclass(eq=False)
class Norm(Producer):
    """LayerNorm of one producer's rows."""

    source: Operand | None = None
    gain: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    offset: Array = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(eq=False)
class Attend(Producer):
    """Attention: columns of q, k, v are [heads, head dimension]; `table` has 256 exponentials."""

    heads: int = 0
    q: Operand | None = None
    k: Operand | None = None
    v: Operand | None = None
    table: Array = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Graph:
    """Producers in program order; the input image and its tables; what is stored."""

    producers: list[Producer]
    pixels: Array
    image: tuple[int, int, int]
    patch: tuple[int, int]
    result: Operand
