"""Random legal programs: what RTL, HLS and simulator must agree on, far beyond what the compiler emits.

Data is uniform, or extreme (all -128, only the ends of the range). Results of one operation may be operands of the
next; addresses are random, so memories are reused as soon as what lies there has been stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.hw.iss.layout import ceil_div, word_count
from intaglio.hw.iss.program_builder import NoRoomError
from intaglio.hw.iss.random_data import Geometry
from intaglio.hw.iss.random_mixture import Mixture
from intaglio.hw.iss.random_spill import Spills
from intaglio.hw.iss.random_writer import Writer

KINDS = ("gemm", "layernorm", "attention", "image", "mixture", "spill")


def random_program(
    config: AcceleratorConfig, seed: int, kinds: Sequence[str] | None = None, size: int = 4
) -> tuple[ProgramFile, bytes, bytes]:
    """A program of `size` operations of `kinds` (of KINDS; default all), its weights.bin, and an image.

    It may have tasks; what is legal does not depend on them. Every byte that an operation computes reaches the
    result, but for what experts hand on; bytes of the result between blocks are not written.
    """
    unknown = set(kinds or ()) - set(KINDS)
    if unknown:
        raise ValueError(f"random_program: kinds must be among {', '.join(KINDS)}, not {min(unknown)!r}.")
    writer = _Writer(config, np.random.default_rng(seed))
    for _ in range(size):
        writer.operation(str(writer.dice.choice(kinds or KINDS)))
    writer.spills.finish()
    return writer.builder.finish(), bytes(writer.builder.weights), writer.image


class _Writer(Writer):
    """Adds one random operation at a time."""

    def __init__(self, config: AcceleratorConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.spills = Spills(self)

    def operation(self, kind: str) -> None:
        """One operation; where memories are too small for it, only a part of its loads."""
        make: dict[str, Callable[[], None]] = {
            "gemm": self._gemm,
            "layernorm": self._layernorm,
            "attention": self._attention,
            "image": self._image,
            "mixture": Mixture(self).add,
            "spill": self.spills.add,
        }
        try:
            make[kind]()
        except NoRoomError:
            pass
        finally:
            self.builder.pinned.clear()

    def _gemm(self) -> None:
        config, dice = self.config, self.dice
        rows = self.rows()
        groups = 1 + dice.below(min(2 * config.tile_groups + 3, 24, config.param_groups))
        k_steps = 1 + dice.below(min(4, config.weight_entries // ceil_div(groups, config.tile_groups)))
        flags = dice.gemm_flags()
        fields = self.gemm_constants(groups, k_steps, flags["wide"]) | flags
        if flags["table"]:
            fields["slot"] = self.table(0, dice.activation(bool(flags["o_wide"] or flags["residual"])))
        a = self.operand(0, rows, k_steps)
        if flags["residual"]:
            fields |= dice.add_fields(flags)
        o = self.gemm_tensors(fields, rows, groups * config.group)
        self.builder.add(
            "GEMM", a_addr=a.addr, a_stride=a.stride, k_steps=k_steps, groups=groups, rows=rows,
            o_addr=o.addr, o_stride=o.stride, **fields,
        )  # fmt: skip
        if o not in self.builder.live:
            self.builder.keep(o)

    def _layernorm(self) -> None:
        config, dice = self.config, self.dice
        rows = self.rows()
        channels = 1 + dice.below(min(config.norm_channels, 5 * config.depth + 3))
        wide = dice.below(2)
        first = dice.below(config.norm_channels - channels + 1)
        fields, constants = dice.norm(channels)
        self.builder.add("LOAD_NORM", offset=self.builder.block(constants), channel=first, channels=channels)
        x = self.operand(1, rows, word_count(config, channels, wide))
        o = self.builder.place(0, rows, word_count(config, channels, 0))
        self.builder.add(
            "LAYERNORM", x_addr=x.addr, x_stride=x.stride, o_addr=o.addr, o_stride=o.stride, rows=rows,
            channels=channels, channel=first, x_wide=wide, **fields,
        )  # fmt: skip
        self.builder.keep(o)

    def _attention(self) -> None:
        config, dice = self.config, self.dice
        heads, qk_steps, v_words = 1 + dice.below(3), 1 + dice.below(3), 1 + dice.below(3)
        rows, keys = self.rows(), 1 + dice.below(min(config.max_keys, 5 * config.depth))
        fields = self._kv_room(heads, qk_steps, v_words, keys)
        fields["slot"] = self.table(1, dice.exponential())
        q = self.operand(0, rows, heads * qk_steps)
        k = self.operand(0, keys, heads * qk_steps)
        v = self.operand(0, keys, heads * v_words)
        o = self.builder.place(0, rows, heads * v_words)

        def copy(head: int) -> None:
            """Keys and values of a head; those of the first two come before ATTENTION."""
            entry = fields["entry"] + head % 2 * fields["entry_step"]
            copies = [
                {"addr": k.addr + head * qk_steps, "stride": k.stride, "entry": entry, "chunks": qk_steps},
                {
                    "addr": v.addr + head * v_words, "stride": v.stride, "entry": entry + fields["v_entry"],
                    "chunks": v_words, "values": 1,
                },
            ]  # fmt: skip
            for number in dice.rng.permutation(2):
                self.builder.add("COPY_KV", rows=keys, **copies[number])

        for head in range(min(heads, 2)):
            copy(head)
        self.builder.add(
            "ATTENTION", lambda head: copy(head) if head >= 2 else None, q_addr=q.addr, q_stride=q.stride,
            o_addr=o.addr, o_stride=o.stride, heads=heads, qk_steps=qk_steps, v_words=v_words, keys=keys, rows=rows,
            **fields, **dice.attention(qk_steps),
        )  # fmt: skip
        self.builder.keep(o)

    def _kv_room(self, heads: int, qk_steps: int, v_words: int, keys: int) -> dict[str, int]:
        """Places in the weight buffer for K and V of even and odd heads. Raises NoRoomError."""
        config, dice = self.config, self.dice
        k_entries = ceil_div(keys, config.cols) * qk_steps
        v_entries = ceil_div(v_words * config.depth, config.cols) * ceil_div(keys, config.depth)
        v_entry = k_entries + dice.below(3)
        entry_step = v_entry + v_entries + dice.below(3)
        used = v_entry + v_entries + (entry_step if heads > 1 else 0)
        if used > config.weight_entries:
            raise NoRoomError
        return {
            "entry": dice.below(config.weight_entries - used + 1),
            "entry_step": entry_step,
            "v_entry": v_entry,
        }

    def _image(self) -> None:
        config, dice = self.config, self.dice
        g: Geometry = self.geometries[dice.below(len(self.geometries))]
        for channel in range(g.channels):
            table = dice.int8((256,)).astype("<i2")
            self.builder.add("LOAD_TABLE", offset=self.builder.block(table), slot=channel, table=2)
        depth = g.channels * g.patch_h * g.patch_w
        words = word_count(config, depth, 0)
        o = self.result(0, g.grid_h * g.grid_w, words, depth % config.depth > 0)
        self.builder.add("LOAD_IMAGE", addr=o.addr, stride=o.stride, piece=dice.piece(g), **g.fields)
        self.builder.keep(o)
