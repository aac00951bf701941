"""What random operations are made with: operands, results, constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.hw.iss.layout import ceil_div, word_count
from intaglio.hw.iss.program_builder import BLOCK, Builder, Tensor, tiles_of
from intaglio.hw.iss.random_data import Dice, geometries

_TASKS = 3
"""Most tasks of a program."""


class Writer:
    """A builder, and random tensors and constants for it; `tasks`: how many the program has."""

    def __init__(self, config: AcceleratorConfig, rng: np.random.Generator) -> None:
        self.config, self.dice = config, Dice(config, rng)
        self.geometries = geometries(config, rng)
        size = max(geometry.size for geometry in self.geometries)
        self.image = rng.integers(0, 256, size, np.uint8).tobytes()
        self.builder = Builder(config, rng, self.image)
        self.tasks = 1 + self.dice.below(_TASKS)

    def operand(self, bank: int, rows: int, words: int) -> Tensor:
        """A pinned tensor of at least so many rows and words: one that exists, or constants."""
        fits = [t for t in self.builder.live if t.bank == bank and t.rows >= rows and t.words >= words]
        if fits and self.dice.chance(0.5):
            tensor = fits[self.dice.below(len(fits))]
        else:
            tensor = self.builder.place(bank, rows, words)
            self.fill(tensor)
            self.builder.keep(tensor, computed=self.dice.chance(0.1))
        self.builder.pinned.add(tensor)
        return tensor

    def fill(self, tensor: Tensor) -> None:
        """Random constants."""
        tiles = tiles_of(self.config, tensor.rows)
        data = self.dice.int8((tiles, tensor.words, self.config.rows, self.config.depth))
        self.builder.fill(tensor, data)

    def result(self, bank: int, rows: int, words: int, partial: bool) -> Tensor:
        """Room for a result; if its last words are written in part only, they are defined first."""
        tensor = self.builder.place(bank, rows, words)
        if partial:
            self.fill(tensor)
        return tensor

    def rows(self) -> int:
        """How many tokens an operation has: up to three row tiles and a bit."""
        return 1 + self.dice.below(3 * self.config.rows + 2)

    def gemm_tensors(self, fields: dict[str, int], rows: int, channels: int, defined: bool = False) -> Tensor:
        """Fill in the residual; the result's tensor, which may be the residual's; it may have to be defined before."""
        config = self.config
        o_words = word_count(config, channels, fields["o_wide"])
        partial = defined or channels * (1 + fields["o_wide"]) % config.depth > 0
        if not fields["residual"]:
            return self.result(fields["o_bank"], rows, o_words, partial)
        r_words = word_count(config, channels, fields["r_wide"])
        r = self.operand(1, rows, r_words)
        fields |= {"r_addr": r.addr, "r_stride": r.stride}
        in_place = fields["o_bank"] and fields["r_wide"] == fields["o_wide"] and self.dice.chance(0.8)
        if not in_place:
            return self.result(fields["o_bank"], rows, o_words, partial)
        if r not in self.builder.unstored:
            self.builder.unstored.append(r)
        return r

    def gemm_constants(self, groups: int, k_steps: int, wide: int, queue: int = 0) -> dict[str, int]:
        """Load random weights and parameters, in random order; where they are."""
        config, dice = self.config, self.dice
        entries = ceil_div(groups, config.tile_groups) * k_steps
        entry = dice.below(config.weight_entries - entries + 1)
        group = dice.below(config.param_groups - groups + 1)
        weights = self.task_block(lambda: dice.int8((entries, config.entry_bytes)))
        params = self.task_block(lambda: dice.params(groups, k_steps, wide))
        loads: list[tuple[str, dict[str, int]]] = [
            ("LOAD_WEIGHTS", {"entry": entry, "entries": entries, "queue": queue} | weights),
            ("LOAD_PARAMS", {"group": group, "groups": groups, "queue": queue} | params),
        ]
        for number in dice.rng.permutation(2):
            self.builder.add(loads[number][0], **loads[number][1])
        return {"entry": entry, "group": group}

    def task_block(self, make: Callable[[], NDArray[Any]]) -> dict[str, int]:
        """Fields of a load of what `make` makes: the same for every task, or made for each."""
        if self.tasks == 1 or self.dice.chance(0.5):
            return {"offset": self.builder.block(make())}
        blocks = [make().tobytes() for _ in range(self.tasks)]
        size = (len(blocks[0]) // BLOCK + 1 + self.dice.below(2)) * BLOCK
        data = b"".join(block.ljust(size, b"\0") for block in blocks)
        offset = self.builder.block(np.frombuffer(data, np.uint8))
        return {"offset": offset, "select": size // BLOCK, "tasks": self.tasks}

    def table(self, table: int, entries: NDArray[np.int16], queue: int = 0) -> int:
        """Load a table; its slot."""
        slot = self.dice.below(self.config.table_slots)
        offset = self.builder.block(entries)
        self.builder.add("LOAD_TABLE", offset=offset, slot=slot, table=table, queue=queue)
        return slot
