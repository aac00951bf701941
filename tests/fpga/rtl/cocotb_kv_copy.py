"""COPY_KV against the layouts of keys and values in the weight buffer."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
import numpy as np
from bank import Bank, give, idle, progress, start
from cocotb.triggers import RisingEdge
from weight_port import WeightBuffer

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import Descriptor

CONFIG = PRESETS[os.environ["PRESET"]]
R, C, D = CONFIG.rows, CONFIG.cols, CONFIG.depth
WORDS, ENTRIES = 300, 300


class Bench:
    """The unit, bank A, and a weight buffer; `expected`: what it must hold, `open`: bytes that do not matter."""

    def __init__(self, dut: Any, rng: random.Random, grant: float) -> None:
        self.dut, self.rng = dut, rng
        self.a = Bank(dut, CONFIG, WORDS, rng, grant)
        self.port = WeightBuffer(dut, CONFIG, ENTRIES, rng)
        self.weights = self.port.data
        self.expected = self.weights.copy()
        self.open = np.zeros(self.weights.shape, bool)
        self.progress = 0

    async def begin(self) -> None:
        await start(self.dut)
        cocotb.start_soon(self.a.reads(("rd",), "rd_data_i"))
        cocotb.start_soon(self.port.writes())

    def copy(self, values: int) -> Descriptor:
        rng = self.rng
        while True:
            rows, chunks = rng.randint(1, 6 * D), rng.randint(1, 6)
            tiles, stride = -(-rows // R), chunks + rng.randrange(3)
            entries = -(-chunks * D // C) * -(-rows // D) if values else -(-rows // C) * chunks
            if tiles * stride < WORDS and entries < ENTRIES:
                break
        addr, entry = rng.randrange(WORDS - tiles * stride), rng.randrange(ENTRIES - entries)
        words = self.a.tensor(addr, stride, tiles, chunks)
        for token in range(tiles * R):
            for q in range(chunks):
                self._place(values, entry, chunks, rows, token, q, words[token // R, q, token % R])
        fields = {
            "addr": addr,
            "stride": stride,
            "entry": entry,
            "chunks": chunks,
            "values": values,
            "rows": rows,
        }
        self.progress += 1
        return Descriptor("COPY_KV", fields, {"mm": (self.progress, 0)})

    def _place(self, values: int, entry: int, chunks: int, rows: int, token: int, q: int, data: Any) -> None:
        n = q * D + np.arange(D)
        if values:
            at = (entry + n // C * -(-rows // D) + token // D, n % C, token % D)
        else:
            at = (entry + token // C * chunks + q, token % C, np.arange(D))
        self.expected[at] = data
        self.open[at] = token >= rows

    def check(self) -> None:
        assert np.array_equal(self.weights[~self.open], self.expected[~self.open])
        assert int(self.dut.progress_o.value) == self.progress
        self.expected[:] = self.weights
        self.open[:] = False


@cocotb.test()
@cocotb.parametrize(grant=[1.0, 0.5, 0.1], gap=[0, 5])
async def copies(dut: Any, grant: float, gap: int) -> None:
    rng = random.Random(f"{CONFIG.hash} {grant} {gap}")
    bench = Bench(dut, rng, grant)
    await bench.begin()
    dut.progress_i.value = progress({"mm": 1000})
    for _ in range(16):
        for _ in range(rng.randint(1, 3)):
            await give(dut, bench.copy(rng.randrange(2)), rng.randint(0, gap))
        await idle(dut)
        bench.check()


@cocotb.test()
async def waits(dut: Any) -> None:
    """Nothing moves before the waits are met; then a word moves in every cycle."""
    bench = Bench(dut, random.Random(2), 1.0)
    await bench.begin()
    before = bench.weights.copy()
    d = bench.copy(1)
    giver = cocotb.start_soon(give(dut, d))
    for _ in range(50):
        await RisingEdge(dut.clk_i)
        assert not int(dut.rd_req_o.value)
        assert not int(dut.busy_o.value)
    assert np.array_equal(bench.weights, before)
    dut.progress_i.value = progress({"mm": 1})
    cycles = 0
    while not giver.done():
        await RisingEdge(dut.clk_i)
        cycles += 1
    assert cycles <= -(-d["rows"] // R) * d["chunks"] + 4
    await idle(dut)
    bench.check()
