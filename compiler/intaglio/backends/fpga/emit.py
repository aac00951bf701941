"""Operations -> nodes: column blocks, fields, accesses, and the loads that each node needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga import layout
from intaglio.backends.fpga.allocate import Addresses
from intaglio.backends.fpga.emit_experts import emit_experts
from intaglio.backends.fpga.graph import Constants
from intaglio.backends.fpga.layout import Weights
from intaglio.backends.fpga.nodes import OUTPUT_BLOCK, Access, Node, block, tiled
from intaglio.backends.fpga.operations import (
    Attention,
    Buffer,
    Experts,
    Fill,
    Gemm,
    Image,
    LayerNorm,
    Operation,
    Preload,
    Spill,
    Store,
)
from intaglio.backends.fpga.refusal import refusal
from intaglio.backends.fpga.rings import Rings
from intaglio.program import Step

SHARE = 0.29
"""Part of the weight buffer that one block takes at most: three fit, so that loads run ahead."""

TABLES = {"activation": 0, "exponential": 1, "pixel": 2, "router": 3}


class Emitter:
    """Nodes without their loads' positions: `nodes[i].loads` must come after `earliest` nodes and before node i.

    With `reuse`, constants that a ring still holds are not loaded again.
    """

    def __init__(self, config: AcceleratorConfig, addresses: Addresses, reuse: bool = False) -> None:
        self.config = config
        self.addresses = addresses
        self.weights = Weights()
        self.rings = Rings(config)
        self.reuse = reuse
        self.nodes: list[Node] = []
        self.spill_base = 0

    def emit(self, operations: Sequence[Operation]) -> None:
        self.spill_base = -(-result_bytes(operations, self.config) // OUTPUT_BLOCK) * OUTPUT_BLOCK
        for operation in operations:
            match operation:
                case Image():
                    self._image(operation)
                case Preload():
                    self._preload(operation)
                case Gemm():
                    self._gemm(operation)
                case Attention():
                    self._attention(operation)
                case Experts():
                    emit_experts(self, operation)
                case LayerNorm():
                    self._layernorm(operation)
                case Store():
                    self._store(operation)
                case Spill() | Fill():
                    self._spill(operation)
                case _:
                    raise TypeError(f"no descriptors are known for {type(operation).__name__}.")

    # --- helpers --------------------------------------------------------------------------------------------------

    def _load(
        self, node: Node, step: Step, kind: str, ring: str, count: int, *tasks: bytes, certain: bool = True
    ) -> int:
        """A load of `count` cells of a ring for a node that comes next; returns the first cell.

        `tasks`: the data, or that of every task. `certain`: it does not depend on the routing.
        """
        data, units = layout.of_tasks(tasks) if len(tasks) > 1 else (tasks[0], 0)
        offset = self.weights.add(data)
        if self.reuse and certain and (held := self.rings.find(ring, count, offset)) is not None:
            return held
        first, earliest = self.rings.take(step, ring, count)
        if certain:
            self.rings.hold(ring, first, count, offset)
        load = self._loading(node, kind, ring, first, count, data, earliest)
        if units:
            load.fields |= {"select": units, "tasks": len(tasks)}
        node.loads.append(load)
        return first

    def _loading(
        self, node: Node, kind: str, space: str, first: int, count: int, data: bytes, earliest: int
    ) -> Node:
        fields = {"offset": self.weights.add(data)}
        if kind == "LOAD_TABLE":
            fields |= {"slot": first, "table": TABLES[space]}
        else:
            where, size = {
                "LOAD_WEIGHTS": ("entry", "entries"),
                "LOAD_PARAMS": ("group", "groups"),
                "LOAD_NORM": ("channel", "channels"),
            }[kind]
            fields |= {where: first, size: count}
        access = block(space, True, first, count)
        return Node(kind, fields, node.step, f"{space} of {node.comment}", [access], earliest=earliest)

    def _append(self, node: Node, uses: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Add a node; `uses`: cells (first, count) of rings that it reads."""
        for name, (first, count) in (uses or {}).items():
            node.accesses.append(block(name, False, first, count))
            self.rings.use(name, first, count, len(self.nodes))
        self.nodes.append(node)

    def _tiled(
        self, buffer: Buffer, write: bool, low: int, tiles: int, offset: int = 0, width: int | None = None
    ) -> Access:
        """Words `offset ..` of every row tile from row `low` on."""
        start = self.addresses.of(buffer, low) + offset
        stride = buffer.stride(self.config)
        return tiled(buffer.bank, write, start, stride, tiles, stride if width is None else width)

    # --- operations -----------------------------------------------------------------------------------------------

    def _image(self, op: Image) -> None:
        (channels, height, width), (ph, pw) = op.image, op.patch
        _check_image(op, self.config)
        piece = pw & -pw
        while piece > self.config.depth:
            piece //= 2
        tiles = op.out.tiles(self.config)
        fields = {
            "channels": channels, "patch_h": ph, "patch_w": pw, "piece": piece,
            "grid_h": height // ph, "grid_w": width // pw,
            "addr": self.addresses.of(op.out), "stride": op.out.stride(self.config),
        }  # fmt: skip
        accesses = [self._tiled(op.out, True, op.out.low, tiles), block("pixel", False, 0, channels)]
        node = Node("LOAD_IMAGE", fields, op.name, "input image", accesses, substeps=tiles)
        for channel, entries in enumerate(op.pixels):
            data = layout.table(entries)
            node.loads.append(self._loading(node, "LOAD_TABLE", "pixel", channel, 1, data, 0))
        self.nodes.append(node)

    def _preload(self, op: Preload) -> None:
        words = layout.rows(op.values, op.out.wide, self.config)
        count = len(words) // self.config.word_bytes
        address = self.addresses.of(op.out, op.low)
        fields = {
            "offset": self.weights.add(words), "addr": address, "words": count, "bank": int(op.out.bank == "X"),
        }  # fmt: skip
        self.nodes.append(
            Node(
                "LOAD_ROWS", fields, op.name, f"constant rows of {op.name}",
                [block(op.out.bank, True, address, count)],
            )
        )  # fmt: skip

    def _gemm(self, op: Gemm) -> None:
        slot = None
        for index, (low, high) in enumerate(blocks := self._blocks(op)):
            part = f" [{index + 1}/{len(blocks)}]" if len(blocks) > 1 else ""
            slot = self._gemm_block(op, low, high, f"{op.name}{part}", slot)

    def _blocks(self, op: Gemm) -> list[tuple[int, int]]:
        return self.column_blocks(len(op.weight), len(op.a.columns) // self.config.depth)

    def column_blocks(self, channels: int, steps: int) -> list[tuple[int, int]]:
        """Column ranges whose weights (`steps` entries deep) and parameters leave room for those of the next ones."""
        config = self.config
        tiles = -(-channels // config.cols)
        most = min(
            int(config.weight_entries * SHARE) // steps, config.param_groups // 3 // config.tile_groups
        )
        count = -(-tiles // max(most, 1))
        edges = [tiles * i // count * config.cols for i in range(count)]
        return list(zip(edges, [*edges[1:], channels], strict=True))

    def _gemm_block(self, op: Gemm, low: int, high: int, comment: str, slot: int | None) -> int | None:
        config = self.config
        tiles = -(-op.rows // config.rows)
        node = Node("GEMM", {}, op.name, comment, [], substeps=tiles)
        steps, groups = len(op.a.columns) // config.depth, (high - low) // config.group
        entries = layout.entries((high - low, len(op.a.columns)), config)
        if op.table is not None and slot is None:
            slot = self._load(node, op.step, "LOAD_TABLE", "activation", 1, layout.table(op.table))
        group, entry = self._constants(node, op.step, op.constants, low, high)
        offset, width = op.out.words_of(low, config), op.out.words_of(high - low, config)
        node.fields |= {
            "a_addr": self.addresses.of(op.a, op.out.low), "a_stride": op.a.stride(config),
            "entry": entry, "k_steps": steps, "group": group, "groups": groups,
            "o_addr": self.addresses.of(op.out) + offset, "o_stride": op.out.stride(config),
            "rows": op.rows, "zero": op.zero, "wide": int(op.wide), "o_wide": int(op.out.wide),
            "o_bank": int(op.out.bank == "X"),
        }  # fmt: skip
        node.accesses = [
            self._tiled(op.a, False, op.out.low, tiles),
            self._tiled(op.out, True, op.out.low, tiles, offset, width),
        ]
        if op.residual is not None:
            self._residual(node, op, op.residual, low, high, tiles)
        uses = {"weights": (entry, entries), "params": (group, groups)}
        if slot is not None:
            node.fields |= {"table": 1, "slot": slot}
            uses["activation"] = (slot, 1)
        self._append(node, uses)
        return slot

    def _constants(
        self, node: Node, step: Step, tasks: Sequence[Constants], low: int, high: int, certain: bool = True
    ) -> tuple[int, int]:
        """Loads of columns low .. high - 1 of a product's constants, for every task; parameter group and entry."""
        config = self.config
        groups = (high - low) // config.group
        entries = layout.entries((high - low, tasks[0].weight.shape[1]), config)
        data = [layout.params(of.bias[low:high], of.multiplier[low:high], of.shift[low:high]) for of in tasks]
        group = self._load(node, step, "LOAD_PARAMS", "params", groups, *data, certain=certain)
        data = [layout.weights(of.weight[low:high], config) for of in tasks]
        return group, self._load(node, step, "LOAD_WEIGHTS", "weights", entries, *data, certain=certain)

    def _residual(
        self, node: Node, op: Gemm | Experts, residual: Buffer, low: int, high: int, tiles: int
    ) -> None:
        offset, width = residual.words_of(low, self.config), residual.words_of(high - low, self.config)
        node.accesses.append(self._tiled(residual, False, op.out.low, tiles, offset, width))
        node.fields |= {
            "residual": 1, "r_addr": self.addresses.of(residual, op.out.low) + offset,
            "r_stride": residual.stride(self.config), "r_wide": int(residual.wide),
            "add_a": op.add["a_multiplier"], "add_b": op.add["b_multiplier"],
            "add_offset": op.add["offset"], "add_shift": op.add["shift"], "add_zero": op.add["zero_point"],
        }  # fmt: skip

    def _layernorm(self, op: LayerNorm) -> None:
        attrs, channels = op.step.attrs, len(op.gain)
        tiles = op.out.tiles(self.config)
        accesses = [
            self._tiled(op.x, False, op.out.low, tiles),
            self._tiled(op.out, True, op.out.low, tiles),
        ]
        node = Node("LAYERNORM", {}, op.name, op.name, accesses, substeps=tiles)
        data = layout.norm(op.gain, op.offset)
        channel = self._load(node, op.step, "LOAD_NORM", "norm", channels, data)
        node.fields |= {
            "x_addr": self.addresses.of(op.x, op.out.low), "x_stride": op.x.stride(self.config),
            "o_addr": self.addresses.of(op.out), "o_stride": op.out.stride(self.config),
            "channels": channels, "rows": op.out.rows, "channel": channel, "x_wide": int(op.x.wide),
            "eps": attrs["eps"], "shift": attrs["shift"], "zero": attrs["zero_point"],
        }  # fmt: skip
        self._append(node, {"norm": (channel, channels)})

    def _store(self, op: Store) -> None:
        words = op.x.stride(self.config)
        address = self.addresses.of(op.x, op.row)
        fields = {
            "offset": op.index * words * self.config.depth, "addr": address, "words": words,
            "bank": int(op.x.bank == "X"), "row": op.row % self.config.rows,
        }  # fmt: skip
        self._append(Node("STORE", fields, op.name, "result", [block(op.x.bank, False, address, words)]))

    def _spill(self, op: Spill | Fill) -> None:
        """A whole buffer to the spill area, or back."""
        write, slot = isinstance(op, Spill), op.slot
        buffer = op.x if isinstance(op, Spill) else op.out
        address, words = self.addresses.of(buffer), buffer.words(self.config)
        offset = self.spill_base + slot.offset
        blocks = -(-words * self.config.word_bytes // OUTPUT_BLOCK)
        fields = {"offset": offset, "addr": address, "words": words, "bank": int(buffer.bank == "X")}
        fields |= {"all_rows": 1} if write else {"spilled": 1}
        accesses = [
            block(buffer.bank, not write, address, words),
            block("output", write, offset // OUTPUT_BLOCK, blocks),
        ]
        comment = f"{buffer.name} {'to' if write else 'from'} external memory, for {op.name}"
        self._append(Node("STORE" if write else "LOAD_ROWS", fields, op.name, comment, accesses))

    def _attention(self, op: Attention) -> None:
        """Copies of two heads, then the attention itself, then the other copies as slots become free."""
        config = self.config
        keys = -(-op.keys // config.cols) * op.qk_words
        step = keys + -(-op.v_words * config.depth // config.cols) * -(-op.keys // config.depth)
        slots = min(op.heads, 2)
        whole = op.out.words_of(len(op.out.columns), config) == op.heads * op.v_words
        part = "" if whole else f" [heads {op.first} to {op.first + op.heads - 1}]"
        node = Node("ATTENTION", {}, op.name, f"{op.name}{part}", [], heads=op.heads)
        slot = self._load(node, op.step, "LOAD_TABLE", "exponential", 1, layout.table(op.table))
        entry, _ = self.rings.take(op.step, "weights", slots * step)
        tiles = op.out.tiles(config)
        node.substeps = op.heads * tiles
        node.fields |= self._attention_fields(op, entry, step, keys, slot)
        node.accesses = self._attention_accesses(op, tiles)
        before = len(self.nodes)
        for head in range(slots):
            self._copies(op, head, entry + head * step, keys)
        node.copies = sum(other.kind == "COPY_KV" and other.head == 0 for other in self.nodes[before:])
        self._append(node, {"weights": (entry, slots * step), "exponential": (slot, 1)})
        for head in range(slots, op.heads):
            self._copies(op, head, entry + head % 2 * step, keys)
        self.rings.use("weights", entry, slots * step, len(self.nodes) - 1)

    def _attention_fields(
        self, op: Attention, entry: int, step: int, v_entry: int, slot: int
    ) -> dict[str, int]:
        attrs, config = op.step.attrs, self.config
        return {
            "q_addr": self.addresses.of(op.q, op.out.low), "q_stride": op.q.stride(config),
            "o_addr": self.addresses.of(op.out) + op.first * op.v_words, "o_stride": op.out.stride(config),
            "heads": op.heads, "qk_steps": op.qk_words, "keys": op.keys, "rows": op.out.rows,
            "v_words": op.v_words, "slot": slot, "entry": entry, "entry_step": step, "v_entry": v_entry,
            "score_multiplier": attrs["score_multiplier"], "score_shift": attrs["score_shift"],
            "score_zero": attrs["score_zero"], "multiplier": attrs["multiplier"], "shift": attrs["shift"],
            "zero": attrs["zero_point"],
            "q_zero": attrs["q_zero"], "k_zero": attrs["k_zero"], "v_zero": attrs["v_zero"],
            "score_bias": op.qk_words * config.depth * attrs["q_zero"] * attrs["k_zero"],
        }  # fmt: skip

    def _attention_accesses(self, op: Attention, tiles: int) -> list[Access]:
        """Row h * tiles + t: the words of head h in row tile t."""
        heads = range(op.heads)
        q = [self._head(op.q, False, op.out.low, tiles, h, op.qk_words) for h in heads]
        out = [self._head(op.out, True, op.out.low, tiles, op.first + h, op.v_words) for h in heads]
        return [
            Access(op.q.bank, False, np.concatenate([a.cells for a in q])),
            Access(op.out.bank, True, np.concatenate([a.cells for a in out])),
        ]

    def _head(self, buffer: Buffer, write: bool, low: int, tiles: int, head: int, words: int) -> Access:
        return self._tiled(buffer, write, low, tiles, head * words, words)

    def _copies(self, op: Attention, head: int, entry: int, v_entry: int) -> None:
        """Keys and values of one head to the weight buffer."""
        config = self.config
        for buffer in self._joined(op.k):
            first = entry + buffer.low // config.cols * op.qk_words
            self._copy(op, head, buffer, head * op.qk_words, op.qk_words, first, values=0)
        joined = self._joined(op.v)
        tiles = [(0, op.v_words)] if len(joined) == 1 else _column_tiles(op.v_words, config)
        for buffer in joined:
            for tile, (word, words) in enumerate(tiles):
                first = entry + v_entry + tile * -(-op.keys // config.depth) + buffer.low // config.depth
                self._copy(op, head, buffer, head * op.v_words + word, words, first, values=1)

    def _joined(self, pieces: Sequence[Buffer]) -> list[Buffer]:
        """Pieces that follow one another in the bank as one."""
        found: list[Buffer] = []
        for piece in pieces:
            address = self.addresses.of(piece)
            if found and address == self.addresses.of(found[-1], piece.low):
                piece = replace(found[-1], high=piece.high)
                self.addresses.first[piece] = self.addresses.first[found.pop()]
            found.append(piece)
        return found

    def _copy(
        self, op: Attention, head: int, buffer: Buffer, word: int, chunks: int, entry: int, values: int
    ) -> None:
        """Words `word ..` of a buffer of keys or values to entries from `entry` on."""
        config, rows = self.config, min(op.keys, buffer.high) - buffer.low
        source = self._tiled(buffer, False, buffer.low, -(-rows // config.rows), word, chunks)
        fields = {
            "addr": int(source.cells[0, 0]), "stride": buffer.stride(config), "entry": entry,
            "chunks": chunks, "values": values, "rows": rows,
        }  # fmt: skip
        keys = -(-rows // config.cols) * chunks
        entries = -(-chunks * config.depth // config.cols) * -(-rows // config.depth) if values else keys
        read = Access(source.space, False, source.cells.reshape(1, -1))
        comment = f"{'values' if values else 'keys'} of head {op.first + head} for {op.name}"
        accesses = [read, block("weights", True, entry, entries)]
        self.nodes.append(Node("COPY_KV", fields, op.name, comment, accesses, head=head))


def result_bytes(operations: Sequence[Operation], config: AcceleratorConfig) -> int:
    """Bytes of the result."""
    stores = [op for op in operations if isinstance(op, Store)]
    return max(((op.index + 1) * op.x.stride(config) * config.depth for op in stores), default=0)


def copies_per_head(op: Attention, config: AcceleratorConfig) -> int:
    """How many descriptors copy the keys and values of one head, at most."""
    tiles = 1 if len(op.v) == 1 else len(_column_tiles(op.v_words, config))
    return len(op.k) + len(op.v) * tiles


def _column_tiles(words: int, config: AcceleratorConfig) -> list[tuple[int, int]]:
    """First word and words of every column tile: rows that are copied in parts leave gaps between these."""
    width = config.cols // config.depth
    return [(word, min(width, words - word)) for word in range(0, words, width)]


def _check_image(op: Image, config: AcceleratorConfig) -> None:
    (channels, _, width), (ph, pw) = op.image, op.patch
    if channels > 4:
        raise refusal(op.step, f"the image has {channels} channels, the accelerator takes up to 4")
    if ph > 255 or pw > 255:
        raise refusal(op.step, f"patches of {[ph, pw]} are larger than 255 pixels")
    if ph * width % config.depth:
        raise refusal(
            op.step,
            f"a band of patches has {ph * width} bytes, no multiple of the configuration's depth {config.depth}",
            "choose a configuration of depth 8, or pad the image",
        )
