"""Mixtures of experts -> nodes: one expert computes while tokens and weights of the next are fetched.

The unit cp alternates: it scatters what an expert gave, then gathers for the one after the next, into the same place.
The weights of the first experts, as many as the weight buffer holds, are loaded before the routing is known, while the
external memory has nothing else to do, unless it may well be that no token chooses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from intaglio.backends.fpga import layout
from intaglio.backends.fpga.nodes import Access, Node, block
from intaglio.backends.fpga.operations import Buffer, Experts

if TYPE_CHECKING:
    from intaglio.backends.fpga.emit import Emitter
    from intaglio.backends.fpga.graph import Constants

ROUTED = block("routing", False, 0, 1)

UNUSED = 0.01
"""Experts are loaded ahead of the routing if the chance that none of evenly spread tokens chooses one is less."""


def emit_experts(emitter: Emitter, op: Experts) -> None:
    """Append the nodes of one mixture of experts."""
    _Experts(emitter, op).emit()


class _Experts:
    """`routed`: how many nodes precede what depends on the routing."""

    def __init__(self, emitter: Emitter, op: Experts) -> None:
        self.emitter, self.op, self.config = emitter, op, emitter.config
        self.tiles = op.out.tiles(self.config)
        self.slot_stride = self.tiles * op.slots.stride(self.config)
        self.routed = 0
        self.table: int | None = None
        self.early = self._early()

    def _early(self) -> int:
        """How many experts are loaded whether or not a token chooses them."""
        count = len(self.op.first)
        if (1 - self.op.moe.attrs["k"] / count) ** self.op.out.rows >= UNUSED:
            return 0
        products = self.op.first[0], self.op.second[0]
        return self.config.weight_entries // sum(
            layout.entries(of.weight.shape, self.config) for of in products
        )

    def emit(self) -> None:
        count, ahead = len(self.op.first), len(self.op.places)
        self._route()
        for expert in range(min(ahead, count)):
            self._gather(expert)
        for expert in range(count):
            place = self._place(expert)
            self._product(expert, self.op.first[expert], place, self.op.hidden, first=True)
            self._product(expert, self.op.second[expert], self.op.hidden, place, first=False)
            self._scatter(expert)
            if expert + ahead < count:
                self._gather(expert + ahead)
        self._combine()

    def _place(self, expert: int) -> Buffer:
        return self.op.places[expert % len(self.op.places)]

    def _address(self, buffer: Buffer) -> int:
        return self.emitter.addresses.of(buffer, self.op.out.low)

    def _whole(self, buffer: Buffer, write: bool, offset: int = 0, width: int | None = None) -> Access:
        """Words `offset ..` of all row tiles."""
        access = self.emitter._tiled(buffer, write, self.op.out.low, self.tiles, offset, width)
        return Access(access.space, write, access.cells.reshape(1, -1))

    # --- router ---------------------------------------------------------------------------------------------------

    def _route(self) -> None:
        op, attrs = self.op, self.op.moe.attrs
        words = -(-len(op.first) // (self.config.group if op.logits.wide else self.config.depth))
        fields = {
            "addr": self._address(op.logits), "stride": op.logits.stride(self.config), "rows": op.out.rows,
            "experts": len(op.first), "k": attrs["k"], "wide": int(op.logits.wide), "normalize": attrs["normalize"],
        }  # fmt: skip
        accesses = [
            self._whole(op.logits, False, 0, words), block("router", False, 0, 2), block("routing", True, 0, 1),
        ]  # fmt: skip
        node = Node("ROUTE", fields, op.moe.name, f"experts of {op.moe.name}", accesses)
        last = [i for i, other in enumerate(self.emitter.nodes) if other.kind == "ROUTE"]
        for slot, entries in enumerate(op.route_table):
            data = layout.table(entries)
            load = self.emitter._loading(
                node, "LOAD_TABLE", "router", slot, 1, data, last[-1] + 1 if last else 0
            )
            node.loads.append(load)
        self.emitter._append(node)
        self.routed = len(self.emitter.nodes)

    def _gather(self, expert: int) -> None:
        place, chunks = self._place(expert), self.op.x.stride(self.config)
        self._move(expert, self.op.x, place, chunks, "tokens", {})

    def _scatter(self, expert: int) -> None:
        chunks = self.op.slots.stride(self.config)
        fields = {"scatter": 1, "k": self.op.moe.attrs["k"], "slot_stride": self.slot_stride}
        self._move(expert, self._place(expert), self.op.slots, chunks, "results", fields)

    def _move(
        self, expert: int, source: Buffer, target: Buffer, chunks: int, what: str, fields: dict[str, int]
    ) -> None:
        op = self.op
        all_fields = {
            "queue": 1 + expert, "s_addr": self._address(source), "s_stride": source.stride(self.config),
            "o_addr": self._address(target), "o_stride": target.stride(self.config), "rows": op.out.rows,
            "chunks": chunks,
        }  # fmt: skip
        written = self._whole(target, True, 0, chunks) if target is not op.slots else self._all_slots(True)
        accesses = [ROUTED, self._whole(source, False, 0, chunks), written]
        comment = f"{what} of expert {expert} of {op.moe.name}"
        self.emitter._append(Node("MOVE_ROWS", all_fields | fields, op.moe.name, comment, accesses))

    def _all_slots(self, write: bool) -> Access:
        return block("A", write, self._address(self.op.slots), self.op.slots.words(self.config))

    # --- products -------------------------------------------------------------------------------------------------

    def _product(self, expert: int, of: Constants, a: Buffer, out: Buffer, first: bool) -> None:
        """One product of an expert; unless early, it loads after the routing, and if a token chose the expert."""
        blocks = self.emitter.column_blocks(len(of.weight), of.weight.shape[1] // self.config.depth)
        for index, (low, high) in enumerate(blocks):
            part = f" [{index + 1}/{len(blocks)}]" if len(blocks) > 1 else ""
            comment = f"expert {expert} of {self.op.moe.name}, product {1 if first else 2}{part}"
            node = Node("GEMM", {}, self.op.moe.name, comment, [])
            certain = expert < self.early
            group, entry = self.emitter._constants(node, self.op.moe, (of,), low, high, certain=certain)
            if not certain:
                self._depend(node.loads, expert)
            uses = self._uses(group, entry, high - low, of.weight.shape[1])
            self._gemm_fields(node, expert, a, out, low, high, of.weight.shape[1])
            node.fields |= {"group": group, "entry": entry}
            if first and self.op.tables is not None:
                slot = self._table_slot(node, expert, new=index == 0)
                node.fields |= {"table": 1, "slot": slot, "zero": self.op.moe.attrs["hidden_zero"]}
                uses["activation"] = (slot, 1)
            else:
                node.fields["zero"] = self.op.moe.attrs["hidden_zero" if first else "y_zero"]
            self.emitter._append(node, uses)

    def _depend(self, loads: Sequence[Node], expert: int) -> None:
        for load in loads:
            load.fields["queue"] = 1 + expert
            load.accesses.append(ROUTED)
            load.earliest = max(load.earliest, self.routed)

    def _uses(self, group: int, entry: int, channels: int, depth: int) -> dict[str, tuple[int, int]]:
        entries = layout.entries((channels, depth), self.config)
        return {"weights": (entry, entries), "params": (group, channels // self.config.group)}

    def _gemm_fields(
        self, node: Node, expert: int, a: Buffer, out: Buffer, low: int, high: int, depth: int
    ) -> None:
        steps = depth // self.config.depth
        offset, width = out.words_of(low, self.config), out.words_of(high - low, self.config)
        node.fields |= {
            "queue": 1 + expert, "a_addr": self._address(a), "a_stride": a.stride(self.config), "k_steps": steps,
            "groups": (high - low) // self.config.group, "o_addr": self._address(out) + offset,
            "o_stride": out.stride(self.config), "rows": self.op.out.rows,
        }  # fmt: skip
        node.accesses = [ROUTED, self._whole(a, False, 0, steps), self._whole(out, True, offset, width)]

    def _table_slot(self, node: Node, expert: int, new: bool) -> int:
        """The slot of the expert's table: its own, or the one that all have."""
        tables = self.op.tables
        assert tables is not None
        own = len(tables) > 1
        if self.table is None or (own and new):
            data = layout.table(tables[expert if own else 0])
            certain = not own or expert < self.early
            self.table = self.emitter._load(
                node, self.op.moe, "LOAD_TABLE", "activation", 1, data, certain=certain
            )
            if not certain:
                self._depend(node.loads[-1:], expert)
        return self.table

    # --- result ---------------------------------------------------------------------------------------------------

    def _combine(self) -> None:
        op, attrs, config = self.op, self.op.moe.attrs, self.config
        columns = len(op.out.columns)
        node = Node(
            "COMBINE", {}, op.name, f"{op.name}: sum of {attrs['k']} experts", [], substeps=self.tiles
        )
        node.fields |= {
            "a_addr": self._address(op.slots), "a_stride": op.slots.stride(config), "slot_stride": self.slot_stride,
            "k": attrs["k"], "groups": columns // config.group, "o_addr": self._address(op.out),
            "o_stride": op.out.stride(config), "rows": op.out.rows, "zero": attrs["zero_point"],
            "wide": int(attrs["dtype"] == "int16"), "o_wide": int(op.out.wide), "o_bank": int(op.out.bank == "X"),
            "multiplier": attrs["multiplier"], "shift": attrs["shift"], "y_zero": attrs["y_zero"],
        }  # fmt: skip
        slot = self.emitter._tiled(op.slots, False, op.out.low, self.tiles).cells
        slots = [slot + number * self.slot_stride for number in range(attrs["k"])]
        node.accesses = [
            ROUTED,
            Access("A", False, np.concatenate(slots, axis=1)),
            self.emitter._tiled(op.out, True, op.out.low, self.tiles),
        ]
        if op.residual is not None:
            self.emitter._residual(node, op, op.residual, 0, columns, self.tiles)
        self.emitter._append(node)
