"""scratchpad against an array: priorities, byte enables, a read and a write of one word."""

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
BYTES = CONFIG.word_bytes
WORDS, READERS, WRITERS = 40, 4, 3


def _pack(values: list[int], bits: int) -> int:
    return sum(value << bits * i for i, value in enumerate(values))


@cocotb.test()
@cocotb.parametrize(load=[0.1, 0.5, 1.0])
async def contention(dut: Any, load: float) -> None:
    rng = random.Random(f"{CONFIG.hash} {load}")
    cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
    dut.rd_req_i.value = dut.wr_req_i.value = 0
    await RisingEdge(dut.clk_i)
    memory = np.zeros((WORDS, BYTES), np.uint8)
    known = np.zeros((WORDS, BYTES), bool)
    word: Any = None
    for _ in range(3000):
        reads = [rng.random() < load for _ in range(READERS)]
        writes = [rng.random() < load for _ in range(WRITERS)]
        # Few addresses: reads and writes must meet.
        rd_addr = [rng.randrange(8) * 5 for _ in range(READERS)]
        wr_addr = [rng.randrange(8) * 5 for _ in range(WRITERS)]
        data = [rng.randbytes(BYTES) for _ in range(WRITERS)]
        be = [rng.choice((rng.getrandbits(BYTES), (1 << BYTES) - 1)) for _ in range(WRITERS)]
        dut.rd_req_i.value, dut.wr_req_i.value = (
            _pack(list(map(int, reads)), 1),
            _pack(list(map(int, writes)), 1),
        )
        dut.rd_addr_i.value, dut.wr_addr_i.value = _pack(rd_addr, 16), _pack(wr_addr, 16)
        dut.wr_data_i.value = _pack([int.from_bytes(d, "little") for d in data], 8 * BYTES)
        dut.wr_be_i.value = _pack(be, BYTES)
        await RisingEdge(dut.clk_i)
        if word is not None:
            got = np.frombuffer(int(dut.rd_data_o.value).to_bytes(BYTES, "little"), np.uint8)
            assert np.array_equal(got[word[1]], word[0][word[1]])
        assert int(dut.rd_gnt_o.value) == (1 << reads.index(True) if any(reads) else 0)
        assert int(dut.wr_gnt_o.value) == (1 << writes.index(True) if any(writes) else 0)
        if any(reads):
            at = rd_addr[reads.index(True)]
            word = memory[at].copy(), known[at].copy()
        if any(writes):
            first = writes.index(True)
            mask = np.array([be[first] >> i & 1 for i in range(BYTES)], bool)
            memory[wr_addr[first]][mask] = np.frombuffer(data[first], np.uint8)[mask]
            known[wr_addr[first]] |= mask
