"""weight_buffer against an array of bytes."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from intaglio.accelerator.config import PRESETS

CONFIG = PRESETS[os.environ["PRESET"]]
R, C, D, P = CONFIG.rows, CONFIG.cols, CONFIG.depth, CONFIG.weight_ports
PORT_COLS = C // P
ENTRIES = 24
"""Few, so that reads meet writes."""


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    rng = random.Random(1)
    memory = np.zeros((CONFIG.weight_entries, C, D), np.uint8)
    known = np.zeros(memory.shape, bool)
    entries = [*range(ENTRIES - 1), CONFIG.weight_entries - 1]
    shown: tuple[np.ndarray, np.ndarray] | None = None
    for name in ("dm_we_i", "cp_we_i", "rd_en_i", "cp_be_i"):
        getattr(dut, name).value = 0
    cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
    await RisingEdge(dut.clk_i)
    for cycle in range(1500):
        copies = rng.random() < (0.1 if cycle < 750 else 0.5)
        ports = [
            (rng.random() < 0.7, rng.choice(entries), rng.randrange(PORT_COLS), rng.randbytes(D))
            for _ in range(P)
        ]
        cp_entry, cp_data, be = rng.choice(entries), rng.randbytes(C * D), rng.getrandbits(C * D // R)
        reads, rd_entry = rng.random() < 0.7, rng.choice(entries)
        dut.cp_we_i.value = int(copies)
        dut.cp_entry_i.value = cp_entry
        dut.cp_data_i.value = int.from_bytes(cp_data, "little")
        dut.cp_be_i.value = be
        dut.dm_we_i.value = sum(int(we) << p for p, (we, _, _, _) in enumerate(ports))
        dut.dm_entry_i.value = sum(entry << 16 * p for p, (_, entry, _, _) in enumerate(ports))
        dut.dm_col_i.value = sum(col << 8 * p for p, (_, _, col, _) in enumerate(ports))
        dut.dm_data_i.value = int.from_bytes(b"".join(data for _, _, _, data in ports), "little")
        dut.rd_en_i.value = int(reads)
        dut.rd_entry_i.value = rd_entry
        await RisingEdge(dut.clk_i)
        # Outputs as they were before this edge: what was read last.
        assert int(dut.dm_ready_o.value) == int(not copies)
        if shown is not None:
            value, valid = shown
            data = np.frombuffer(int(dut.rd_data_o.value).to_bytes(C * D, "little"), np.uint8).reshape(C, D)
            assert (data[valid] == value[valid]).all(), cycle
        if reads:
            shown = memory[rd_entry].copy(), known[rd_entry].copy()
        if copies:
            mask = (
                np.array([be >> i & 1 for i in range(C * D // R)], bool).reshape(C, D // R).repeat(R, axis=1)
            )
            memory[cp_entry][mask] = np.frombuffer(cp_data, np.uint8).reshape(C, D)[mask]
            known[cp_entry][mask] = True
        else:
            for p, (we, entry, col, data) in enumerate(ports):
                if we:
                    memory[entry, p * PORT_COLS + col] = np.frombuffer(data, np.uint8)
                    known[entry, p * PORT_COLS + col] = True
