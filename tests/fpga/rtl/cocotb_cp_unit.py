"""cp_unit against the functional simulator: ROUTE, MOVE_ROWS and COPY_KV in any order."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from bank import LENGTH_BITS, Bank, give, progress, start
from cocotb.triggers import ClockCycles, RisingEdge
from numpy.typing import NDArray
from weight_port import WeightBuffer

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.hw.iss.layout import ceil_div, word_count
from intaglio.hw.iss.machine import Machine
from intaglio.hw.iss.memory import Memories, Write
from intaglio.hw.iss.random_data import Dice
from intaglio.hw.iss.random_mixture import logits
from intaglio.hw.iss.router import move_rows, route
from intaglio.hw.iss.transfer import copy_kv

CONFIG = AcceleratorConfig.model_validate_json(os.environ["CONFIG"])
R, C, D = CONFIG.rows, CONFIG.cols, CONFIG.depth
GATE_BITS, TOTAL_BITS, SLOTS = 15, 21, 4
EXECUTE: dict[str, Callable[[Machine, int, Descriptor, int, int], list[Write]]] = {
    "ROUTE": route,
    "MOVE_ROWS": move_rows,
    "COPY_KV": copy_kv,
}


class Bench:
    """The unit, its memories, and the simulator's, on which every descriptor is executed as soon as it is made.

    `unread`: words of bank A that are written by descriptors for which none has waited yet.
    """

    def __init__(self, dut: Any, seed: str, grant: float = 1.0, gap: int = 0) -> None:
        self.dut, self.gap = dut, gap
        self.rng = random.Random(f"{CONFIG.hash} {seed} {grant} {gap}")
        self.dice = Dice(CONFIG, np.random.default_rng(self.rng.getrandbits(64)))
        self.a = Bank(dut, CONFIG, CONFIG.a_words, self.rng, grant)
        self.weights = WeightBuffer(dut, CONFIG, CONFIG.weight_entries, self.rng)
        self.machine = Machine(CONFIG, Memories(CONFIG, 0), b"", b"")
        memories = self.machine.memories
        memories.bank_a.data[:] = self.a.data
        memories.weights.data[:] = self.weights.data.reshape(memories.weights.data.shape)
        for _, memory in memories:
            memory.valid[:] = True
        self.unread = np.zeros(CONFIG.a_words, bool)
        self.reserved = np.zeros(CONFIG.a_words, bool)
        self.queue: list[Descriptor] = []
        self.progress, self.routed, self.expected_routed = 0, 0, 0
        self.routed_rows, self.mm = 0, 1

    async def begin(self) -> None:
        await start(self.dut)
        for part in (
            self.a.reads(("rd",), "rd_data_i"), self.a.writes_at("wr"), self.weights.writes(), self._watch(),
        ):  # fmt: skip
            cocotb.start_soon(part)
        for slot in range(2):
            await self.table(slot, np.rint(65535 * np.exp(-np.arange(256) * (0.5, 0.01)[slot])))

    async def _watch(self) -> None:
        """Progress comes back to the unit; counts queues that get their first token."""
        while True:
            self.dut.progress_i.value = progress({"cp": int(self.dut.progress_o.value), "mm": self.mm})
            await RisingEdge(self.dut.clk_i)
            self.routed += int(self.dut.routed_o.value)

    async def table(self, slot: int, entries: NDArray[Any]) -> None:
        """Write a router table as the I/O unit does; writes to other tables do not matter."""
        self.machine.memories.router.data[slot] = entries
        for table in (0, 3, 1, 2):
            for index, entry in enumerate(entries if table == 3 else self.dice.rng.permutation(256)):
                self.dut.t_we_i.value = 1
                self.dut.t_table_i.value = table
                self.dut.t_slot_i.value = slot
                self.dut.t_index_i.value = index
                self.dut.t_data_i.value = int(entry)
                await RisingEdge(self.dut.clk_i)
        self.dut.t_we_i.value = 0

    # ---- descriptors

    def add(self, kind: str, reads: NDArray[np.int64] | None, **fields: int) -> None:
        """Execute a descriptor on the simulator and queue it; `reads`: words that need what was written before."""
        waits = {"mm": (self.rng.randrange(2), 0)}
        if (reads is not None and self.unread[reads].any()) or self.rng.random() < 0.2:
            waits["cp"] = (self.progress + len(self.queue), 0)
            self.unread[:] = False
        d = Descriptor(kind, fields, waits)
        self.queue.append(d)
        # COPY_KV moves all rows of a row tile.
        executed = (
            d if kind != "COPY_KV" else Descriptor(kind, {**fields, "rows": ceil_div(d["rows"], R) * R})
        )
        writes = EXECUTE[kind](self.machine, 0, executed, 0, 0)
        self.machine.memories.apply(writes)
        if kind == "ROUTE":
            self.expected_routed += int((self.machine.memories.lengths.data > 0).sum())
            self.routed_rows = d["rows"]
        for write in writes:
            if write.memory is self.machine.memories.bank_a:
                self.unread[write.cells[0]] = True

    def place(self, tiles: int, words: int, count: int = 1) -> tuple[int, int, NDArray[np.int64]]:
        """Address, stride and words of a tensor outside what is reserved."""
        for _ in range(1000):
            stride = words + self.rng.randrange(3)
            size = (count * tiles - 1) * stride + words
            if size >= CONFIG.a_words:
                continue
            addr = self.rng.randrange(CONFIG.a_words - size)
            at = (addr + np.arange(count * tiles)[:, None] * stride + np.arange(words)).reshape(-1)
            if not self.reserved[at].any():
                return addr, stride, at
        raise AssertionError("no room; make the test smaller")

    def gate(self, values: NDArray[Any]) -> tuple[int, int, int]:
        """Logits [rows, experts] in bank A, which stay there; address, stride, wide."""
        rows, experts = values.shape
        wide = int(values.dtype == np.int16)
        tiles, words = ceil_div(rows, R), word_count(CONFIG, experts, wide)
        addr, stride, at = self.place(tiles, words)
        lanes = CONFIG.group if wide else D
        full = self.dice.rng.integers(-128, 128, (tiles * R, words * lanes)).astype(values.dtype)
        full[:rows, :experts] = values
        data = full.view(np.int8).reshape(tiles, R, words, D).swapaxes(1, 2).reshape(-1, R, D)
        for bank in (self.a.data, self.machine.memories.bank_a.data):
            bank[at] = data
        self.reserved[at] = True
        return addr, stride, wide

    def route(self, values: NDArray[Any], k: int, normalize: int, gate: tuple[int, int, int]) -> None:
        """`gate`: where the logits are, which must be there before anything runs."""
        addr, stride, wide = gate
        rows, experts = values.shape
        self.add(
            "ROUTE", None, addr=addr, stride=stride, wide=wide, rows=rows, experts=experts, k=k,
            normalize=normalize,
        )  # fmt: skip

    def move(self, expert: int, rows: int, k: int, scatter: int, chunks: int) -> None:
        tiles = ceil_div(rows, R)
        for _ in range(1000):
            s_addr, s_stride, source = self.place(tiles, chunks)
            o_addr, o_stride, target = self.place(tiles, chunks, k if scatter else 1)
            if not np.isin(source, target).any():
                break
        else:
            raise AssertionError("no room for source and target; make the test smaller")
        self.add(
            "MOVE_ROWS", source, queue=1 + expert, rows=rows, chunks=chunks, scatter=scatter, k=k,
            s_addr=s_addr, s_stride=s_stride, o_addr=o_addr, o_stride=o_stride, slot_stride=tiles * o_stride,
        )  # fmt: skip

    def copy(self) -> None:
        rng, values = self.rng, self.rng.randrange(2)
        rows, chunks = rng.randint(1, min(4 * D, CONFIG.max_keys)), rng.randint(1, 4)
        entries = ceil_div(chunks * D, C) * ceil_div(rows, D) if values else ceil_div(rows, C) * chunks
        addr, stride, at = self.place(ceil_div(rows, R), chunks)
        entry = rng.randrange(CONFIG.weight_entries - entries)
        self.add(
            "COPY_KV", at, addr=addr, stride=stride, entry=entry, chunks=chunks, rows=rows, values=values
        )

    # ---- a run

    async def run(self) -> int:
        """Give what is queued; the cycles until all of it is done. Then everything must be as in the simulator."""
        final, clock = self.progress + len(self.queue), self.dut.clk_i
        giver = cocotb.start_soon(self._give(self.queue))
        self.queue = []
        cycles = 0
        while int(self.dut.progress_o.value) != final:
            await RisingEdge(clock)
            cycles += 1
            assert cycles < 300_000, "it hangs"
            assert int(self.dut.progress_o.value) <= final
        await giver
        self.progress = final
        self._check_memories()
        assert not int(self.dut.busy_o.value)
        await self._check_gates()
        self.unread[:] = False
        self.reserved[:] = False
        return cycles

    async def abort(self, cycles: int) -> None:
        """Give what is queued, and reset after so many cycles; the simulator takes over what the banks hold."""
        giver = cocotb.start_soon(self._give(self.queue))
        self.queue = []
        await ClockCycles(self.dut.clk_i, cycles)
        giver.cancel()
        self.dut.desc_valid_i.value = 0
        await self.pulse("rst_i")
        memories = self.machine.memories
        memories.bank_a.data[:] = self.a.data
        memories.weights.data[:] = self.weights.data.reshape(memories.weights.data.shape)
        memories.lengths.data[:] = 0
        self.expected_routed, self.routed_rows = self.routed, 0
        self.unread[:] = False
        self.reserved[:] = False

    async def pulse(self, name: str) -> None:
        """Reset, or the start of a run: progress is 0."""
        signal = getattr(self.dut, name)
        signal.value = 1
        await RisingEdge(self.dut.clk_i)
        signal.value = 0
        await RisingEdge(self.dut.clk_i)
        assert not int(self.dut.progress_o.value)
        assert not int(self.dut.busy_o.value)
        self.progress = 0

    async def _give(self, descriptors: list[Descriptor]) -> None:
        for d in descriptors:
            await give(self.dut, d, self.rng.randint(0, self.gap))

    def _check_memories(self) -> None:
        memories = self.machine.memories
        assert np.array_equal(self.a.data, memories.bank_a.data)
        assert np.array_equal(self.weights.data.reshape(memories.weights.data.shape), memories.weights.data)
        lengths = _fields(int(self.dut.lengths_o.value), LENGTH_BITS, CONFIG.experts)
        assert np.array_equal(lengths, memories.lengths.data)
        assert self.routed == self.expected_routed

    async def _check_gates(self) -> None:
        """Gate weights and totals of every row tile, asked for in every cycle."""
        gates, totals = [], []
        for tile in range(ceil_div(self.routed_rows, R) + 1):
            self.dut.gate_en_i.value = 1
            self.dut.gate_tile_i.value = min(tile, CONFIG.max_keys // R - 1)
            await RisingEdge(self.dut.clk_i)
            if tile > 0:
                gates.append(_fields(int(self.dut.gate_o.value), GATE_BITS, R * SLOTS).reshape(R, SLOTS))
                totals.append(_fields(int(self.dut.total_o.value), TOTAL_BITS, R))
        self.dut.gate_en_i.value = 0
        if gates:
            rows, memories = self.routed_rows, self.machine.memories
            assert np.array_equal(np.concatenate(gates)[:rows], memories.gates.data[:rows])
            assert np.array_equal(np.concatenate(totals)[:rows], memories.totals.data[:rows])


def _fields(value: int, bits: int, count: int) -> NDArray[np.int64]:
    return np.array([value >> bits * i & (1 << bits) - 1 for i in range(count)], np.int64)


# ---- tests

STREAMS = [(1.0, 0), (1.0, 20), (0.5, 0), (0.1, 0), (0.5, 20)]
"""Probability of a grant, most cycles between descriptors: no stall, idle, back-pressure (twice), both."""


def _random_logits(bench: Bench, most: int) -> tuple[NDArray[Any], int]:
    """Logits and k."""
    rng = bench.rng
    rows, experts = rng.randint(1, most), rng.randint(1, CONFIG.experts)
    return logits(bench.dice, rows, experts, rng.randrange(2)), rng.randint(1, min(SLOTS, experts))


@cocotb.test()
@cocotb.parametrize(stream=STREAMS)
async def mixtures(dut: Any, stream: tuple[float, int]) -> None:
    """Several ROUTEs, each followed by moves of some experts, copies between them."""
    bench = Bench(dut, "mixtures", *stream)
    await bench.begin()
    for _ in range(6):
        routes = [_random_logits(bench, min(CONFIG.max_keys, 80)) for _ in range(bench.rng.randint(1, 3))]
        gates = [bench.gate(values) for values, _ in routes]
        for (values, k), gate in zip(routes, gates, strict=True):
            rows, experts = values.shape
            bench.route(values, k, bench.rng.randrange(2), gate)
            for _ in range(bench.rng.randrange(6)):
                if bench.rng.random() < 0.3:
                    bench.copy()
                move = (bench.rng.randrange(experts), rows, k, bench.rng.randrange(2))
                bench.move(*move, bench.rng.randint(1, 3))
        await bench.run()


@cocotb.test()
async def tables(dut: Any) -> None:
    """Any entries, distances up to those of int16's extremes."""
    bench = Bench(dut, "tables")
    await bench.begin()
    for entries in (np.full(256, 65535), None, None):
        for slot in range(2):
            table = bench.dice.rng.integers(0, 65536, 256) if entries is None else entries
            table[0] = 65535
            await bench.table(slot, table)
        for normalize in range(2):
            values = bench.dice.rng.integers(-(1 << 15), 1 << 15, (33, CONFIG.experts)).astype(np.int16)
            values[:5, 0], values[:5, 1:] = 32767, -32768
            values[5] = -32768
            bench.route(values, 1 + normalize, normalize, bench.gate(values))
            await bench.run()


def _adversarial() -> dict[str, tuple[NDArray[Any], int]]:
    """Logits and k by name."""
    most, experts = CONFIG.max_keys, CONFIG.experts
    favourite = np.zeros((most, min(experts, 8)), np.int8)
    favourite[:, -1] = 1
    extremes = np.where(np.arange(4 * experts).reshape(4, experts) % 3, -32768, 32767).astype(np.int16)
    rising = np.broadcast_to(np.arange(experts, dtype=np.int16), (2 * R + 1, experts)).copy()
    return {
        "all tokens to one expert": (favourite, 1),
        "equal logits": (np.full((min(most, 100), experts), -7, np.int8), SLOTS),
        "as many slots as experts": (np.array([[3, -1, 3, 2]] * (R + 1), np.int8), SLOTS),
        "one expert": (np.zeros((3 * R, 1), np.int16), 1),
        "one token": (np.arange(experts, dtype=np.int16)[None] - 300, 3),
        "extremes": (extremes, SLOTS),
        "every key the largest so far": (rising, SLOTS),
        "every key the smallest so far": (np.ascontiguousarray(rising[:, ::-1]), SLOTS),
    }


@cocotb.test()
@cocotb.parametrize(name=list(_adversarial()), grant=[1.0, 0.3])
async def adversarial(dut: Any, name: str, grant: float) -> None:
    """Every token there and back, for the experts that have tokens and one that may have none."""
    bench = Bench(dut, name, grant)
    await bench.begin()
    values, k = _adversarial()[name]
    rows, experts = values.shape
    for normalize in range(2):
        bench.route(values, k, normalize, bench.gate(values))
        chosen = set(np.flatnonzero(bench.machine.memories.lengths.data)[:4]) | {experts - 1, 0}
        for expert in sorted(chosen):
            bench.move(int(expert), rows, k, 0, 2)
            bench.move(int(expert), rows, k, 1, 1)
        await bench.run()


@cocotb.test()
async def resets(dut: Any) -> None:
    """A reset in the middle of anything leaves nothing of it behind; a new run counts from 0."""
    bench = Bench(dut, "resets", 0.7)
    await bench.begin()
    rng = bench.rng
    for _ in range(30):
        for _ in range(2):
            values, k = _random_logits(bench, 3 * R)
            bench.route(values, k, 1, bench.gate(values))
            for expert in np.flatnonzero(bench.machine.memories.lengths.data)[:3]:
                bench.move(int(expert), len(values), k, rng.randrange(2), rng.randint(1, 3))
            bench.copy()
        if rng.random() < 0.7:
            await bench.abort(rng.randrange(200))
        else:
            await bench.run()
            await bench.pulse("clear_i")


@cocotb.test()
async def waits(dut: Any) -> None:
    """Nothing moves before the waits are met; then a token takes `experts` + 1 cycles, and a word moved takes one."""
    bench = Bench(dut, "waits")
    await bench.begin()
    bench.mm = 0
    rows, experts = min(8 * R, CONFIG.max_keys), CONFIG.experts
    values = logits(bench.dice, rows, experts, 1)
    values[:, 0] = 32767
    bench.route(values, 1, 1, bench.gate(values))
    bench.queue = [Descriptor("ROUTE", bench.queue[0].fields, {"mm": (1, 0)})]
    running = cocotb.start_soon(bench.run())
    for _ in range(50):
        await RisingEdge(dut.clk_i)
        assert not int(dut.rd_req_o.value)
        assert not int(dut.busy_o.value)
    bench.mm = 1
    # One cycle more than the headers of route_unit and move_rows say: the bench sees progress a cycle late.
    words = word_count(CONFIG, experts, 1)
    assert await running - 50 == rows * (experts + 1) + rows // R + words + experts + 10
    for scatter in range(2):
        bench.move(0, rows, 1, scatter, 3)
        assert await bench.run() == rows * 3 + 10
    bench.move(1, rows, 1, 0, 3)
    assert await bench.run() == 4
