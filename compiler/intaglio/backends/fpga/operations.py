"""Operations of the accelerator before addresses: each becomes a few descriptors. Arrays have the layout of buffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.graph import Constants, Ints
from intaglio.program import Array, Step

PAD = -1
"""A column whose value does not matter."""

CONSTANT = -10000
"""A column that holds v in every row is CONSTANT + v."""


@dataclass(eq=False)
class Buffer:
    """A tensor in bank "A" or "X": rows `low` to `high` of a producer, and which column stands where.

    `columns`: a producer's channel, PAD, or CONSTANT + v; their number fills whole words. `low` is a multiple of R.
    """

    name: str
    bank: str
    columns: Ints
    wide: bool
    low: int
    high: int

    @property
    def rows(self) -> int:
        return self.high - self.low

    def tiles(self, config: AcceleratorConfig) -> int:
        """Row tiles."""
        return -(-self.rows // config.rows)

    def stride(self, config: AcceleratorConfig) -> int:
        """Words per row tile."""
        return self.words_of(len(self.columns), config)

    def words_of(self, columns: int, config: AcceleratorConfig) -> int:
        """Words that so many columns take in a row tile."""
        return columns * (2 if self.wide else 1) // config.depth

    def words(self, config: AcceleratorConfig) -> int:
        return self.tiles(config) * self.stride(config)


@dataclass(eq=False)
class Operation:
    """What all operations have: the step they come from, buffers read, buffer written (None: external memory)."""

    step: Step

    @property
    def reads(self) -> list[Buffer]:
        return []

    @property
    def writes(self) -> Buffer | None:
        return None

    @property
    def name(self) -> str:
        return self.step.name


@dataclass(eq=False)
class Image(Operation):
    """The input image as patches; `pixels`: int8 [channels, 256]."""

    out: Buffer
    pixels: Array
    image: tuple[int, int, int]
    patch: tuple[int, int]

    @property
    def writes(self) -> Buffer:
        return self.out


@dataclass(eq=False)
class Preload(Operation):
    """Constant rows `low ..` of a buffer: values [rows, columns]; `low` is a multiple of R."""

    out: Buffer
    low: int
    values: Array

    @property
    def writes(self) -> Buffer:
        return self.out


@dataclass(eq=False)
class Gemm(Operation):
    """Matrix product: weight int8 [out columns, a columns]; bias, multiplier, shift [out columns].

    `tasks`: constants of every task, the first those above; empty where all tasks have the same.
    """

    a: Buffer
    out: Buffer
    rows: int
    weight: Array
    bias: Array
    multiplier: Array
    shift: Array
    zero: int
    wide: bool
    table: Array | None = None
    residual: Buffer | None = None
    add: Mapping[str, int] = field(default_factory=dict)
    tasks: tuple[Constants, ...] = ()

    @property
    def constants(self) -> tuple[Constants, ...]:
        """Of every task, or those that all have."""
        return self.tasks or (Constants(self.weight, self.bias, self.multiplier, self.shift),)

    @property
    def reads(self) -> list[Buffer]:
        return [self.a] if self.residual is None else [self.a, self.residual]

    @property
    def writes(self) -> Buffer:
        return self.out


@dataclass(eq=False)
class Attention(Operation):
    """softmax(q k^T) v of `heads` heads from `first` on: words per head of q and k, and of v and the result.

    `k`, `v`: row after row, in one buffer or in several that begin at multiples of the configuration's `cols`; they
    and q hold these heads only, `out` all.
    """

    q: Buffer
    k: tuple[Buffer, ...]
    v: tuple[Buffer, ...]
    out: Buffer
    first: int
    heads: int
    keys: int
    qk_words: int
    v_words: int
    table: Array

    @property
    def reads(self) -> list[Buffer]:
        return [self.q, *self.k, *self.v]

    @property
    def writes(self) -> Buffer:
        return self.out


@dataclass(eq=False)
class Experts(Operation):
    """A mixture of experts: tokens of x to the experts that `logits` choose, the weighted results to `out`.

    `first`, `second`: constants of every expert, [hidden columns, x columns] and [out columns, hidden columns].
    `tables`: int8 [1 or experts, 256], or None. `places`: one or two buffers, for the rows that an expert takes and
    later gives; `hidden`: between its products; `slots`: results, those of slot s + 1 after those of slot s.
    """

    moe: Step
    x: Buffer
    logits: Buffer
    out: Buffer
    route_table: Array
    first: tuple[Constants, ...]
    second: tuple[Constants, ...]
    tables: Array | None
    places: tuple[Buffer, ...]
    hidden: Buffer
    slots: Buffer
    residual: Buffer | None = None
    add: Mapping[str, int] = field(default_factory=dict)

    @property
    def reads(self) -> list[Buffer]:
        residual = [] if self.residual is None else [self.residual]
        return [self.x, self.logits, *self.places, self.hidden, self.slots, *residual]

    @property
    def writes(self) -> Buffer:
        return self.out


@dataclass(eq=False)
class LayerNorm(Operation):
    """LayerNorm of buffer x (bank X) to bank A."""

    x: Buffer
    out: Buffer
    gain: Array
    offset: Array

    @property
    def reads(self) -> list[Buffer]:
        return [self.x]

    @property
    def writes(self) -> Buffer:
        return self.out


@dataclass(eq=False)
class Store(Operation):
    """One row of a buffer to row `index` of the output."""

    x: Buffer
    row: int
    index: int = 0

    @property
    def reads(self) -> list[Buffer]:
        return [self.x]


@dataclass(eq=False)
class Slot:
    """A place of `words` words in the spill area, `offset` bytes from its start."""

    words: int
    offset: int = 0


@dataclass(eq=False)
class Spill(Operation):
    """A whole buffer to external memory."""

    x: Buffer
    slot: Slot

    @property
    def reads(self) -> list[Buffer]:
        return [self.x]


@dataclass(eq=False)
class Fill(Operation):
    """A whole buffer back from external memory."""

    out: Buffer
    slot: Slot

    @property
    def writes(self) -> Buffer:
        return self.out


def pad_columns(columns: Ints, multiple: int, filler: int = PAD) -> Ints:
    """`columns` filled up to a multiple."""
    missing = -len(columns) % multiple
    return np.concatenate([columns, np.full(missing, filler, np.int64)])
