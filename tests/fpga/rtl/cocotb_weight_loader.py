"""weight_loader between read engines of Python and a weight buffer of Python."""

from __future__ import annotations

import os
import random
from collections import deque
from typing import Any

import cocotb
import numpy as np
from bank import give, idle, lengths, progress, start
from cocotb.triggers import RisingEdge

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import Descriptor

CONFIG = PRESETS[os.environ["PRESET"]]
C, D, P = CONFIG.cols, CONFIG.depth, CONFIG.weight_ports
PORT_COLS = C // P
ENTRIES = 64
BASE = 0x12_3456_7000
STALLS = {"none": (0.0, 0.0), "idle": (0.5, 0.0), "back-pressure": (0.0, 0.5), "both": (0.4, 0.4)}
LATENCY = 40


class Bench:
    """The unit, memory from BASE on, and the weight buffer; `expected`: what it must hold after every block."""

    def __init__(self, dut: Any, seed: int, stall: str) -> None:
        self.dut, self.rng = dut, random.Random(seed)
        self.silent, self.busy = STALLS[stall]
        self.memory = self.rng.randbytes(1 << 16)
        self.weights = np.zeros((ENTRIES, C, D), np.uint8)
        self.expected = [self.weights.copy()]
        self.lengths = [self.rng.choice([0, 0, 1, 2, 1024]) for _ in range(CONFIG.experts)]
        self.asked = 0
        self.commands: list[list[tuple[int, int]]] = [[] for _ in range(P)]
        self.queues: list[deque[tuple[int, bytes]]] = [deque() for _ in range(P)]
        self.open = [0] * P
        self.writes = self.cycle = 0
        self.overlap = False
        self.first = self.last = 0

    async def begin(self) -> None:
        dut = self.dut
        dut.weights_base_i.value = BASE
        dut.lengths_i.value = lengths(self.lengths)
        for name in ("cmd_ready", "valid", "data", "dm_ready"):
            getattr(dut, f"{name}_i").value = 0
        await start(dut)
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        dut, rng = self.dut, self.rng
        shown, ready, writable = [False] * P, [False] * P, False
        while True:
            await RisingEdge(dut.clk_i)
            self.cycle += 1
            self._commands(ready)
            taken = int(dut.ready_o.value)
            for p in range(P):
                if shown[p] and taken >> p & 1:
                    self.queues[p].popleft()
                    shown[p] = False
                    self.open[p] -= 1
            if writable:
                self._write()
            for p in range(P):
                queue = self.queues[p]
                shown[p] = shown[p] or (
                    bool(queue) and queue[0][0] <= self.cycle and rng.random() >= self.silent
                )
                ready[p] = len(self.queues[p]) < 300 and rng.random() >= self.silent
            writable = rng.random() >= self.busy
            dut.dm_ready_i.value = int(writable)
            dut.cmd_ready_i.value = sum(ready[p] << p for p in range(P))
            dut.valid_i.value = sum(shown[p] << p for p in range(P))
            data = [self.queues[p][0][1] if shown[p] else rng.randbytes(D) for p in range(P)]
            dut.data_i.value = int.from_bytes(b"".join(data), "little")

    def _commands(self, ready: list[bool]) -> None:
        valid = int(self.dut.cmd_valid_o.value)
        for p in range(P):
            if ready[p] and valid >> p & 1:
                addr = (int(self.dut.cmd_addr_o.value) >> 40 * p) % (1 << 40) - BASE
                beats = (int(self.dut.cmd_beats_o.value) >> 24 * p) % (1 << 24)
                self.overlap |= bool(self.queues[p])
                self.commands[p].append((addr, beats))
                for i in range(beats):
                    data = self.memory[addr + i * D : addr + (i + 1) * D]
                    self.queues[p].append((self.cycle + LATENCY, data))
                self.open[p] += beats

    def _write(self) -> None:
        dut = self.dut
        enables = int(dut.dm_we_o.value)
        if not enables:
            return
        entries, cols, data = (int(getattr(dut, f"dm_{n}_o").value) for n in ("entry", "col", "data"))
        for p in range(P):
            if enables >> p & 1:
                col = (cols >> 8 * p) % 256
                assert col < PORT_COLS
                beat = (data >> 8 * D * p) % (1 << 8 * D)
                self.weights[(entries >> 16 * p) % 65536, p * PORT_COLS + col] = list(
                    beat.to_bytes(D, "little")
                )
                self.writes += 1
                self.first = self.first or self.cycle
                self.last = self.cycle

    def block(self, entries: int | None = None, queue: int = 0) -> Descriptor:
        """A random block; nothing of it must be asked for if the queue is empty."""
        rng = self.rng
        count = entries or rng.randint(1, 6)
        entry = rng.randrange(ENTRIES - count)
        offset = 64 * rng.randrange((len(self.memory) - count * C * D) // 64)
        data = np.frombuffer(self.memory, np.uint8)[offset : offset + count * C * D]
        after = self.expected[-1].copy()
        after[entry : entry + count] = (
            data.reshape(P, count, PORT_COLS, D).transpose(1, 0, 2, 3).reshape(count, C, D)
        )
        skipped = queue and not self.lengths[queue - 1]
        self.expected.append(self.expected[-1] if skipped else after)
        self.asked += not skipped
        return Descriptor(
            "LOAD_WEIGHTS", {"offset": offset, "entry": entry, "entries": count, "queue": queue}
        )

    def any_block(self) -> Descriptor:
        """A block of any expert, or of none."""
        return self.block(queue=self.rng.choice([0, self.rng.randint(1, CONFIG.experts)]))


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS))
async def blocks(dut: Any, stall: str) -> None:
    bench = Bench(dut, seed=len(stall), stall=stall)
    await bench.begin()
    for _ in range(3):
        await give(dut, bench.any_block(), gap=bench.rng.randrange(3))
        await idle(dut)
        assert int(dut.progress_o.value) == len(bench.expected) - 1
        assert (bench.weights == bench.expected[-1]).all()
    # Many at once: entries may be written by two blocks, in order as far as one port is concerned.
    for _ in range(20):
        await give(dut, bench.any_block())
    await idle(dut)
    assert int(dut.progress_o.value) == 23
    assert (bench.weights == bench.expected[-1]).all()
    assert [len(commands) for commands in bench.commands] == [bench.asked] * P


@cocotb.test()
async def progress_means_complete(dut: Any) -> None:
    """At every cycle: blocks that are counted have been written, and those before them."""
    bench = Bench(dut, seed=9, stall="both")
    bench.lengths[:2] = 0, 1
    await bench.begin()
    blocks = []
    for entry in range(0, 48, 3):
        block = bench.block(3, queue=bench.rng.choice([0, 1, 1, 2]))
        blocks.append(Descriptor("LOAD_WEIGHTS", {**block.fields, "entry": entry}))

    async def watch() -> None:
        seen = 0
        while seen < len(blocks):
            await RisingEdge(dut.clk_i)
            count = int(dut.progress_o.value)
            assert count in (seen, seen + 1)
            if count > seen:
                fields = blocks[seen].fields
                data = np.frombuffer(bench.memory, np.uint8)[fields["offset"] :][: 3 * C * D]
                data = data.reshape(P, 3, PORT_COLS, D).transpose(1, 0, 2, 3).reshape(3, C, D)
                data = np.zeros_like(data) if fields["queue"] == 1 else data
                assert (bench.weights[fields["entry"] : fields["entry"] + 3] == data).all()
            seen = count

    watcher = cocotb.start_soon(watch())
    for block in blocks:
        await give(dut, block)
    await watcher
    await idle(dut)


@cocotb.test()
async def waits(dut: Any) -> None:
    """Nothing is asked for before the waits are met; a new run begins at 0."""
    bench = Bench(dut, seed=10, stall="none")
    await bench.begin()
    block = bench.block()
    given = cocotb.start_soon(give(dut, Descriptor(block.kind, block.fields, {"mm": (2, 9), "cp": (1, 0)})))
    for values in ({}, {"mm": 2}, {"mm": 1, "cp": 7}):
        dut.progress_i.value = progress(values)
        for _ in range(20):
            await RisingEdge(dut.clk_i)
        assert not bench.commands[0]
    dut.progress_i.value = progress({"mm": 2, "cp": 1})
    await given
    await idle(dut)
    assert int(dut.progress_o.value) == 1
    dut.clear_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.clear_i.value = 0
    await RisingEdge(dut.clk_i)
    assert int(dut.progress_o.value) == 0


@cocotb.test()
async def lengths_after_the_waits(dut: Any) -> None:
    """What the lengths are before the waits are met does not matter."""
    bench = Bench(dut, seed=12, stall="none")
    bench.lengths[:] = [0] * CONFIG.experts
    await bench.begin()
    for count, length in enumerate((0, 3, 0, 1), 1):
        block = bench.block(queue=2)
        given = cocotb.start_soon(give(dut, Descriptor(block.kind, block.fields, {"cp": (count, 0)})))
        dut.lengths_i.value = lengths([1, 0 if length else 9])
        for _ in range(20):
            await RisingEdge(dut.clk_i)
        before = len(bench.commands[0])
        dut.lengths_i.value = lengths([0, length])
        dut.progress_i.value = progress({"cp": count})
        await given
        await idle(dut)
        assert int(dut.progress_o.value) == count
        assert len(bench.commands[0]) - before == (length > 0)


@cocotb.test()
async def a_beat_per_port_and_cycle(dut: Any) -> None:
    """Blocks follow each other without a gap once the first data is there, as the next ones are already asked for."""
    bench = Bench(dut, seed=11, stall="none")
    await bench.begin()
    count, entries = 8, max(2, 32 // PORT_COLS)
    for _ in range(count):
        await give(dut, bench.block(entries))
    await idle(dut)
    beats = count * entries * PORT_COLS
    assert bench.overlap
    assert bench.writes == beats * P
    assert bench.last - bench.first <= beats + 2 * P
