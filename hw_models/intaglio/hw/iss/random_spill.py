"""Random spilling: tensors leave the scratchpads for the spill area, and come back elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from intaglio.hw.iss.layout import ceil_div
from intaglio.hw.iss.program_builder import BLOCK, SPILL_BASE, NoRoomError, Tensor, tiles_of
from intaglio.hw.iss.random_writer import Writer

_TRIES = 50


@dataclass(frozen=True)
class _Area:
    """Bytes of the spill area; the row tiles of what lies there begin `step` bytes apart."""

    offset: int
    size: int
    step: int


class Spills:
    """What is in the spill area. All of it reaches the result in the end."""

    def __init__(self, writer: Writer) -> None:
        self.config, self.dice, self.builder, self.writer = (
            writer.config,
            writer.dice,
            writer.builder,
            writer,
        )
        self._away: list[tuple[Tensor, _Area]] = []
        self._free: list[_Area] = []

    def add(self) -> None:
        """Send a tensor away, or fetch one. Raises NoRoomError."""
        if self._away and self.dice.chance(0.4):
            self._fetch(self.dice.below(len(self._away)))
        else:
            self._send()

    def finish(self) -> None:
        """Fetch all that is away."""
        tries = 0
        while self._away:
            try:
                self._fetch(0)
            except NoRoomError:
                tries += 1
                if tries > _TRIES:
                    raise

    def _send(self) -> None:
        """A tensor that exists, or a new one; mostly it then exists in the spill area only."""
        builder, dice = self.builder, self.dice
        if builder.live and dice.chance(0.9):
            tensor = builder.live[dice.below(len(builder.live))]
        else:
            tensor = self.writer.operand(dice.below(2), self.writer.rows(), dice.between(1, 4))
        area = self._area(tensor)
        for addr, words, shift in self._pieces(tensor, area):
            offset = area.offset + shift
            builder.add("STORE", offset=offset, addr=addr, words=words, bank=tensor.bank, all_rows=1)
        self._away.append((tensor, area))
        if dice.chance(0.7):
            builder.live.remove(tensor)
            if tensor in builder.unstored:
                builder.unstored.remove(tensor)

    def _fetch(self, number: int) -> None:
        """To a random place, sometimes of the other bank."""
        builder, dice = self.builder, self.dice
        old, area = self._away[number]
        tensor = builder.place(old.bank ^ int(dice.chance(0.2)), old.rows, old.words)
        del self._away[number]
        for addr, words, shift in self._pieces(tensor, area):
            offset = area.offset + shift
            builder.add("LOAD_ROWS", offset=offset, addr=addr, words=words, bank=tensor.bank, spilled=1)
        builder.keep(tensor)
        self._free.append(area)

    def _area(self, tensor: Tensor) -> _Area:
        """Room in the spill area, new or used before."""
        step = ceil_div(tensor.words * self.config.word_bytes, BLOCK) * BLOCK
        size = step * tiles_of(self.config, tensor.rows)
        for number, area in enumerate(self._free):
            if area.size >= size and self.dice.chance(0.5):
                return _Area(self._free.pop(number).offset, size, step)
        offset = SPILL_BASE + self.builder.spill_bytes + BLOCK * self.dice.below(3)
        self.builder.spill_bytes = offset + size - SPILL_BASE
        return _Area(offset, size, step)

    def _pieces(self, tensor: Tensor, area: _Area) -> Iterator[tuple[int, int, int]]:
        """Address, words, bytes from the area's begin: row tiles one by one, or all if nothing lies between."""
        tiles = tiles_of(self.config, tensor.rows)
        gapless = tensor.stride == tensor.words and area.step == tensor.words * self.config.word_bytes
        if gapless and self.dice.chance(0.5):
            yield tensor.addr, tiles * tensor.words, 0
            return
        for tile in self.dice.rng.permutation(tiles):
            yield tensor.addr + int(tile) * tensor.stride, tensor.words, int(tile) * area.step
