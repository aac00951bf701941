"""layernorm_unit against the integer reference: random shapes and values, refused grants, waits, throughput."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
import numpy as np
from bank import Bank, give, idle, progress, start
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import Descriptor
from intaglio.ops.layernorm import reference

CONFIG = PRESETS[os.environ["PRESET"]]
R, D, G = CONFIG.rows, CONFIG.depth, CONFIG.group
A_WORDS, X_WORDS = 160, 320


class Bench:
    """The unit with its banks and constants, and the model's bank A."""

    def __init__(self, dut: Any, rng: random.Random, grant: float) -> None:
        self.dut, self.rng = dut, rng
        self.x = Bank(dut, CONFIG, X_WORDS, rng, grant)
        self.a = Bank(dut, CONFIG, A_WORDS, rng, grant)
        count = CONFIG.norm_channels
        self.gain = np.array([rng.getrandbits(rng.choice((8, 17, 26))) for _ in range(count)], np.int64)
        self.gain *= np.array([rng.choice((-1, 1)) for _ in range(count)])
        sizes = np.array([rng.choice((4, 30, 36, 61)) for _ in range(count)])
        self.offset = np.array([rng.randint(-(1 << int(s)), 1 << int(s)) for s in sizes], np.int64)
        self.expected = self.a.data.copy()
        self.granted: list[int] = []

    async def begin(self) -> None:
        await start(self.dut)
        cocotb.start_soon(self.x.reads(("s_rd", "n_rd"), "x_rd_data_i"))
        cocotb.start_soon(self.a.writes_at("wr"))
        cocotb.start_soon(self._constants())

    async def _constants(self) -> None:
        while True:
            await RisingEdge(self.dut.clk_i)
            if int(self.dut.norm_en_o.value):
                channel = int(self.dut.norm_channel_o.value)
                gain, offset = int(self.gain[channel]), int(self.offset[channel])
                self.dut.norm_data_i.value = gain & 0xFFFFFFFF | (offset & (1 << 64) - 1) << 64

    def layernorm(self, channels: int, rows: int, wide: int, **waits: tuple[int, int]) -> Descriptor:
        """A descriptor at random places, with values of X to match; its result goes to `expected`."""
        rng = self.rng
        tiles, words = -(-rows // R), -(-channels // (G if wide else D))
        x_stride = words + rng.randrange(3)
        x_addr = rng.randrange(X_WORDS - tiles * x_stride + 1)
        o_words = -(-channels // D)
        o_stride = o_words + rng.randrange(3)
        o_addr = rng.randrange(A_WORDS - tiles * o_stride + 1)
        x = self._values(tiles * R, words * (G if wide else D), wide)
        words_at = x_addr + np.arange(tiles)[:, None] * x_stride + np.arange(words)
        raw = x.astype("<i2" if wide else "i1").view(np.int8).reshape(tiles, R, words, D)
        self.x.data[words_at] = raw.transpose(0, 2, 1, 3)
        channel = rng.randrange(CONFIG.norm_channels - channels + 1)
        eps = rng.choice((0, 1, rng.getrandbits(20), rng.getrandbits(45), 1 << 61))
        # Half of the time results of gains of one of the sizes lie within int8.
        shift, zero = rng.choice((rng.randint(1, 44), rng.choice((23, 32, 41)))), rng.randint(-128, 127)
        attrs = {"eps": eps, "shift": shift, "zero_point": zero, "dtype": "int8", "mean": "exact"}
        at = slice(channel, channel + channels)
        y = np.zeros((tiles * R, o_words * D), np.int8)
        y[:, :channels] = reference([x[:, :channels], self.gain[at], self.offset[at]], attrs)
        for token in range(rows):
            place = o_addr + token // R * o_stride
            self.expected[place : place + o_words, token % R] = y[token].reshape(o_words, D)
        fields = {
            "x_addr": x_addr, "x_stride": x_stride, "o_addr": o_addr, "o_stride": o_stride, "channels": channels,
            "rows": rows, "channel": channel, "x_wide": wide, "eps": eps, "shift": shift, "zero": zero,
        }  # fmt: skip
        return Descriptor("LAYERNORM", fields, waits)

    def _values(self, rows: int, columns: int, wide: int) -> NDArray[np.int64]:
        """Rows of all kinds: wide and narrow spreads, constants, extremes."""
        low, high = (-32768, 32767) if wide else (-128, 127)
        x = np.zeros((rows, columns), np.int64)
        for row in range(rows):
            kind = self.rng.randrange(5)
            spread = {0: high, 1: 3, 2: 0, 3: high // 50}.get(kind, 0)
            centre = self.rng.randint(low, high)
            noise = [self.rng.randint(-spread, spread) for _ in range(columns)]
            x[row] = np.clip(centre + np.array(noise), low, high)
            if kind == 4:
                x[row] = self.rng.choice((low, high))
                x[row, self.rng.randrange(columns)] = low
        return x


def _channels(rng: random.Random) -> int:
    most = min(CONFIG.norm_channels, 24 * D)
    return rng.choice((1, 2, D - 1, D, D + 1, 3 * D + 1, rng.randint(1, most), rng.randint(1, 6 * D)))


@cocotb.test()
@cocotb.parametrize(grant=[1.0, 0.5, 0.15], gap=[0, 60])
async def values(dut: Any, grant: float, gap: int) -> None:
    rng = random.Random(f"{CONFIG.hash} {grant} {gap}")
    bench = Bench(dut, rng, grant)
    await bench.begin()
    tiles = 0
    # Tensors of X that may not be overwritten while they are read: each descriptor is waited for.
    for _ in range(25):
        channels, wide = _channels(rng), rng.randrange(2)
        rows = rng.randint(1, 3 * R)
        await give(dut, bench.layernorm(channels, rows, wide), rng.randint(0, gap))
        await idle(dut)
        tiles += -(-rows // R)
        assert np.array_equal(bench.a.data, bench.expected)
        assert int(dut.progress_o.value) == tiles


@cocotb.test()
@cocotb.parametrize(grant=[1.0, 0.3])
async def back_to_back(dut: Any, grant: float) -> None:
    """Several descriptors are in flight: each takes another third of X, so that none disturbs another."""
    rng = random.Random(f"{CONFIG.hash} {grant}")
    bench = Bench(dut, rng, grant)
    await bench.begin()
    tiles = 0
    for turn in range(4):
        descriptors = []
        taken: list[range] = []
        while len(descriptors) < 5:
            channels, rows, wide = rng.choice((1, 3, D, 2 * D + 3)), rng.randint(1, 2 * R), rng.randrange(2)
            saved, before = bench.x.data.copy(), bench.expected.copy()
            d = bench.layernorm(channels, rows, wide)
            words = range(d["x_addr"], d["x_addr"] + d["x_stride"] * -(-rows // R))
            if any(set(words) & set(other) for other in taken):
                bench.x.data[:], bench.expected[:] = saved, before
                continue
            taken.append(words)
            descriptors.append(d)
            tiles += -(-rows // R)
        for d in descriptors:
            await give(dut, d)
        await idle(dut)
        assert np.array_equal(bench.a.data, bench.expected), turn
        assert int(dut.progress_o.value) == tiles
    dut.clear_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.clear_i.value = 0
    await RisingEdge(dut.clk_i)
    await RisingEdge(dut.clk_i)
    assert int(dut.progress_o.value) == 0


@cocotb.test()
async def reset(dut: Any) -> None:
    """A reset at any time forgets all that was in flight."""
    rng = random.Random(5)
    bench = Bench(dut, rng, 0.7)
    await bench.begin()
    for turn in range(12):
        giver = cocotb.start_soon(give(dut, bench.layernorm(rng.randint(1, 40), 3 * R, turn % 2)))
        for _ in range(rng.randint(1, 300)):
            await RisingEdge(dut.clk_i)
        giver.cancel()
        dut.desc_valid_i.value = 0
        dut.rst_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.rst_i.value = 0
        await RisingEdge(dut.clk_i)
        await RisingEdge(dut.clk_i)
        assert not int(dut.busy_o.value)
        bench.expected[:] = bench.a.data
        await give(dut, bench.layernorm(rng.randint(1, 40), rng.randint(1, 2 * R), turn // 2 % 2))
        await idle(dut)
        assert np.array_equal(bench.a.data, bench.expected), turn


@cocotb.test()
async def waits(dut: Any) -> None:
    """No word of a row tile is read before what the row tile waits for."""
    rng = random.Random(7)
    bench = Bench(dut, rng, 1.0)
    await bench.begin()
    d = bench.layernorm(2 * D, 3 * R, 1, mm=(1, 2), dm=(3, 0))
    reached = {"mm": 0, "dm": 0}

    async def watch() -> None:
        while True:
            await RisingEdge(dut.clk_i)
            if int(dut.s_rd_req_o.value) and int(dut.s_rd_gnt_i.value):
                tile = (int(dut.s_rd_addr_o.value) - d["x_addr"]) // d["x_stride"]
                assert reached["mm"] >= 1 + 2 * tile, (tile, reached)
                assert reached["dm"] >= 3, reached

    watcher = cocotb.start_soon(watch())
    giver = cocotb.start_soon(give(dut, d))
    for unit, value in (("mm", 1), ("dm", 2), ("dm", 3), ("mm", 2), ("mm", 3), ("mm", 4), ("mm", 5)):
        for _ in range(300):
            await RisingEdge(dut.clk_i)
        before = int(dut.progress_o.value)
        assert before == (0 if reached["dm"] < 3 else (reached["mm"] + 1) // 2)
        reached[unit] = value
        dut.progress_i.value = progress(reached)
    await giver
    await idle(dut)
    watcher.cancel()
    assert int(dut.progress_o.value) == 3
    assert np.array_equal(bench.a.data, bench.expected)


@cocotb.test()
async def throughput(dut: Any) -> None:
    """One channel per cycle, whatever the row tiles."""
    rng = random.Random(3)
    bench = Bench(dut, rng, 1.0)
    await bench.begin()
    channels, tiles = 128, 8
    cocotb.start_soon(give(dut, bench.layernorm(channels, tiles * R, 0)))
    while not int(dut.busy_o.value):
        await RisingEdge(dut.clk_i)
    cycles = await idle(dut)
    dut._log.info("%d channels, %d row tiles: %d cycles", channels, tiles, cycles)
    expected = (tiles + 1) * channels + 140
    assert cycles <= expected, (cycles, expected)
    assert np.array_equal(bench.a.data, bench.expected)
