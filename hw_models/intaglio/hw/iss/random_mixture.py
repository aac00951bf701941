"""Random mixtures of experts: gate logits that are random or adversarial, and all that follows a ROUTE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intaglio.hw.iss.layout import word_count
from intaglio.hw.iss.memory import Data
from intaglio.hw.iss.program_builder import NoRoomError, Tensor, tiles_of
from intaglio.hw.iss.random_data import Dice
from intaglio.hw.iss.random_writer import Writer


def logits(dice: Dice, rows: int, experts: int, wide: int) -> Data:
    """Gate logits [rows, experts]: random, few values, all equal, all for one or a few experts, or one token each."""
    dtype = np.int16 if wide else np.int8
    low, high = -(1 << (15 if wide else 7)), (1 << (15 if wide else 7)) - 1
    style = dice.below(6)
    if style == 0:
        return np.full((rows, experts), dice.between(low, high), dtype)
    spread = 1 << dice.between(1, 15 if wide else 7)
    values = dice.rng.integers(-spread, spread, (rows, experts))
    if style == 1:
        values = dice.rng.choice(np.array([low, low + 1, high]), (rows, experts))
    elif style == 2:
        values[:, dice.below(experts)] = high
    elif style == 3:
        values[:, dice.rng.permutation(experts)[dice.below(experts) :]] = low
    elif style == 4:
        values[np.arange(rows), (np.arange(rows) + dice.below(experts)) % experts] = high
    return values.astype(dtype)


class Mixture:
    """One ROUTE, descriptors of every expert, and COMBINE."""

    def __init__(self, writer: Writer) -> None:
        self.writer, self.config, self.dice, self.builder = writer, writer.config, writer.dice, writer.builder
        self.scratch: list[Tensor] = []

    def add(self) -> None:
        """Add it. Raises NoRoomError, with nothing but loads added, where it does not fit."""
        try:
            self._add()
        finally:
            for tensor in self.scratch:
                self.builder.live.remove(tensor)

    def _add(self) -> None:
        dice, config = self.dice, self.config
        if not config.experts:
            raise NoRoomError
        rows = min(self.writer.rows(), config.max_keys)
        experts = 1 + dice.below(config.experts if dice.chance(0.1) else min(config.experts, 6))
        most = min(4, experts)
        k = most if dice.chance(0.3) else dice.between(1, most)
        chunks, words = dice.between(1, 3), dice.between(1, 3)
        x = self.writer.operand(0, rows, chunks)
        places = [self._place(rows, chunks, words) for _ in range(dice.between(1, 2))]
        results, step = self._slots(rows, words, k)
        slots = {"o_addr": results.addr, "o_stride": results.stride, "slot_stride": step, "k": k}
        self._route(rows, experts, k)
        for number, expert in enumerate(dice.rng.permutation(experts)):
            place = places[number % len(places)]
            self._expert(1 + int(expert), rows, x, place, slots)
        self._combine(rows, words, results, {"slot_stride": step, "k": k})

    def _temporary(self, tensor: Tensor) -> Tensor:
        """Keep a tensor, not all bytes of which may be defined, until the end of the mixture."""
        self.scratch.append(self.builder.keep(tensor, computed=False))
        self.builder.pinned.add(tensor)
        return tensor

    def _place(self, rows: int, chunks: int, words: int) -> tuple[Tensor, Tensor, Tensor]:
        """Room for an expert's tokens, its hidden layer and its results."""
        sizes = (chunks, self.dice.between(1, 3), words)
        gathered, hidden, out = (self._temporary(self.builder.place(0, rows, size)) for size in sizes)
        return gathered, hidden, out

    def _slots(self, rows: int, words: int, k: int) -> tuple[Tensor, int]:
        """Room for the results of k slots, side by side or one after another, and their distance."""
        dice, tiles = self.dice, tiles_of(self.config, rows)
        if dice.chance(0.5):
            step = words + dice.below(2)
            tensor = self.builder.place(0, rows, (k - 1) * step + words)
        else:
            tensor = self.builder.place(0, k * tiles * self.config.rows, words)
            step = tiles * tensor.stride
        if dice.chance(0.5):
            self.writer.fill(tensor)
            self.builder.keep(tensor)
            self.builder.pinned.add(tensor)
        else:
            self._temporary(tensor)
        return tensor, step

    def _route(self, rows: int, experts: int, k: int) -> None:
        dice, config = self.dice, self.config
        wide = dice.below(2)
        words = word_count(config, experts, wide)
        values = logits(dice, rows, experts, wide)
        tensor = self.builder.place(0, rows, words)
        lanes = words * (config.group if wide else config.depth)
        full = dice.rng.integers(-128, 128, (tiles_of(config, rows) * config.rows, lanes)).astype(
            values.dtype
        )
        full[:rows, :experts] = values
        data = full.view(np.int8).reshape(-1, config.rows, words, config.depth).swapaxes(1, 2)
        self.builder.fill(tensor, np.ascontiguousarray(data))
        self.builder.keep(tensor, computed=False)
        for slot in range(2):
            self.builder.add("LOAD_TABLE", offset=self.builder.block(self._table()), slot=slot, table=3)
        self.builder.add(
            "ROUTE", addr=tensor.addr, stride=tensor.stride, rows=rows, experts=experts, k=k, wide=wide,
            normalize=dice.below(2),
        )  # fmt: skip

    def _table(self) -> NDArray[np.uint16]:
        """A router table: falling, or anything."""
        if self.dice.chance(0.2):
            entries = self.dice.rng.integers(0, 65536, 256)
        else:
            entries = np.rint(65535 * np.exp(-np.arange(256) * self.dice.rng.uniform(0.001, 1)))
        entries[0] = 65535
        return entries.astype(np.uint16)

    def _expert(
        self, queue: int, rows: int, x: Tensor, place: tuple[Tensor, Tensor, Tensor], slots: dict[str, int]
    ) -> None:
        gathered, hidden, out = place
        self.builder.add(
            "MOVE_ROWS", queue=queue, s_addr=x.addr, s_stride=x.stride, rows=rows, chunks=gathered.words,
            o_addr=gathered.addr, o_stride=gathered.stride,
        )  # fmt: skip
        if self.dice.chance(0.2):
            self._any_gemm(queue, rows, gathered)
        self._gemm(queue, rows, gathered, hidden)
        self._gemm(queue, rows, hidden, out)
        self.builder.add(
            "MOVE_ROWS", queue=queue, s_addr=out.addr, s_stride=out.stride, rows=rows, chunks=out.words,
            scatter=1, **slots,
        )  # fmt: skip

    def _gemm(self, queue: int, rows: int, a: Tensor, o: Tensor) -> None:
        """A product to all bytes of `o`, in bank A."""
        groups = 2 * o.words
        fields = self.writer.gemm_constants(groups, a.words, 0, queue)
        if self.dice.chance(0.5):
            own = queue if self.dice.chance(0.5) else 0
            fields |= {"table": 1, "slot": self.writer.table(0, self.dice.activation(wide=False), own)}
        self.builder.add(
            "GEMM", queue=queue, a_addr=a.addr, a_stride=a.stride, k_steps=a.words, groups=groups, rows=rows,
            o_addr=o.addr, o_stride=o.stride, zero=self.dice.zero(0), **fields,
        )  # fmt: skip

    def _any_gemm(self, queue: int, rows: int, a: Tensor) -> None:
        """A product with whatever a GEMM can do, to a tensor whose bytes are defined before."""
        dice, config = self.dice, self.config
        groups = dice.between(1, 5)
        flags = dice.gemm_flags()
        fields = self.writer.gemm_constants(groups, a.words, flags["wide"], queue) | flags
        if flags["table"]:
            wide = bool(flags["o_wide"] or flags["residual"])
            fields["slot"] = self.writer.table(0, dice.activation(wide), queue)
        if flags["residual"]:
            fields |= dice.add_fields(flags)
        o = self.writer.gemm_tensors(fields, rows, groups * config.group, defined=True)
        self.builder.add(
            "GEMM", queue=queue, a_addr=a.addr, a_stride=a.stride, k_steps=a.words, groups=groups, rows=rows,
            o_addr=o.addr, o_stride=o.stride, **fields,
        )  # fmt: skip
        if o not in self.builder.live:
            self.builder.keep(o)

    def _combine(self, rows: int, words: int, results: Tensor, slots: dict[str, int]) -> None:
        dice = self.dice
        flags = dice.gemm_flags()
        while flags["table"]:
            flags = dice.gemm_flags()
        groups = dice.between(1, 2 * words)
        fields = dice.add_fields(flags) if flags["residual"] else {}
        fields |= flags
        o = self.writer.gemm_tensors(fields, rows, groups * self.config.group)
        multiplier = dice.multiplier()
        del fields["table"]
        self.builder.add(
            "COMBINE", a_addr=results.addr, a_stride=results.stride, groups=groups, rows=rows,
            o_addr=o.addr, o_stride=o.stride, y_zero=dice.zero(0), multiplier=multiplier,
            shift=dice.shift(multiplier, 1.0, 48), **slots, **fields,
        )  # fmt: skip
        if o not in self.builder.live:
            self.builder.keep(o)
