"""norm_buffer against an array: whole and half channels, a read and a write of one channel, a held output."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from intaglio.accelerator.config import PRESETS

CONFIG = PRESETS[os.environ["PRESET"]]
BITS = CONFIG.axi_bits


@cocotb.test()
async def reads_and_writes(dut: Any) -> None:
    rng = random.Random(CONFIG.hash)
    cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
    dut.n_we_i.value = dut.rd_en_i.value = 0
    await RisingEdge(dut.clk_i)
    channels = [0, 1, 5, CONFIG.norm_channels - 1]
    memory = dict.fromkeys(channels, 0)
    expected = None
    for cycle in range(2000):
        # First all is written once, then reads and writes meet.
        fill = cycle < 2 * len(channels)
        write, read = fill or rng.random() < 0.5, not fill and rng.random() < 0.5
        half = cycle % 2 if fill else rng.randrange(2)
        channel, data = channels[cycle // 2] if fill else rng.choice(channels), rng.getrandbits(BITS)
        asked = rng.choice(channels)
        dut.n_we_i.value, dut.n_half_i.value, dut.rd_en_i.value = write, half, read
        dut.n_channel_i.value, dut.n_data_i.value, dut.rd_channel_i.value = channel, data, asked
        await RisingEdge(dut.clk_i)
        if expected is not None:
            assert int(dut.rd_data_o.value) == expected
        if read:
            expected = memory[asked]
        if write:
            lsb = 64 * half if BITS == 64 else 0
            memory[channel] = memory[channel] & ~(((1 << BITS) - 1) << lsb) | data << lsb
