"""How busy the array is in long descriptors, and that waits hold it back: results are compared too."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, Timer
from cocotb_compute_core import CONFIG, attention, begin, execute, finish, gemm, memories, reset

from intaglio.accelerator.descriptors import Descriptor


@cocotb.test()
async def long_gemm(dut: Any) -> None:
    """Three products back to back: 99 % of the cycles issue a step."""
    await reset(dut)
    rng, m = random.Random(1), memories(np.random.default_rng(1))
    k, tiles = 8, 8
    program = [
        gemm(
            rng,
            k_steps=k,
            groups=tiles * CONFIG.tile_groups,
            group=0,
            a_stride=k,
            entry=0,
            rows=12 * CONFIG.rows,
            residual=0,
            o_bank=bank,
            wide=0,
            o_wide=0,
            table=table,
            zero=3,
            o_addr=(CONFIG.x_words, 0)[bank],
            a_addr=0,
        )
        for bank, table in ((0, 1), (1, 0), (0, 0))
    ]
    program = [
        Descriptor(d.kind, {**d.fields, "o_stride": tiles * CONFIG.tile_groups // 2}, d.waits)
        for d in program
    ]
    counters = await execute(dut, m, program)
    dut._log.info("GEMM %s", counters)
    assert counters["steps"] == 3 * 12 * k * tiles
    assert counters["span"] <= counters["steps"] / 0.99


@cocotb.test()
async def attention_of_deit_tiny(dut: Any) -> None:
    """197 tokens, 3 heads of 64 channels: within 5 % of the array steps it needs, start and end included."""
    if CONFIG.macs < 1024:
        return
    await reset(dut)
    rng, m = random.Random(2), memories(np.random.default_rng(2))
    program = [
        attention(rng, heads=3, keys=197, rows=197, qk_steps=64 // CONFIG.depth, v_words=64 // CONFIG.depth)
    ]
    counters = await execute(dut, m, program)
    dut._log.info("ATTENTION %s", counters)
    d = program[0]
    row_tiles, k_tiles, v_tiles = -(-197 // CONFIG.rows), -(-197 // CONFIG.cols), -(-64 // CONFIG.cols)
    steps = 3 * row_tiles * (k_tiles * d["qk_steps"] + 2 * v_tiles * -(-197 // CONFIG.depth))
    assert counters["steps"] == steps
    assert counters["span"] <= 1.05 * steps


@cocotb.test()
async def waits_hold_back(dut: Any) -> None:
    """Row tiles and heads start one by one, as another unit's progress allows, and the cause is counted."""
    await reset(dut)
    rng, m = random.Random(3), memories(np.random.default_rng(3))
    k = 4
    product = gemm(
        rng, k_steps=k, groups=CONFIG.tile_groups, a_stride=k, entry=0, rows=3 * CONFIG.rows, a_addr=0
    )
    heads = attention(rng, heads=3, keys=11, rows=CONFIG.rows, qk_steps=1, v_words=1)
    program = [
        Descriptor("GEMM", product.fields, {"vu": (2, 3), "io": (1, 0)}),
        Descriptor("ATTENTION", heads.fields, {"cp": (5, 2), "mm": (3, 0)}),
    ]
    await begin(dut, m, program)

    async def check(dm: int, io: int, cp: int, vu: int, steps: int) -> None:
        dut.progress_i.value = dm | io << 32 | cp << 64 | vu << 128
        await ClockCycles(dut.clk_i, 300)
        await Timer(1, "ns")
        assert int(dut.steps_o.value) == steps

    head = -(-11 // CONFIG.cols) + 2 * -(-CONFIG.depth // CONFIG.cols) * -(-11 // CONFIG.depth)
    await ClockCycles(dut.clk_i, 4 * CONFIG.param_groups + 512 * CONFIG.table_slots)
    await check(9, 0, 9, 9, 0)
    await check(0, 1, 0, 1, 0)
    await check(0, 1, 0, 4, k)
    await check(0, 1, 0, 5, 2 * k)
    await check(0, 1, 5, 8, 3 * k + head)
    await check(0, 1, 7, 8, 3 * k + 2 * head)
    await check(0, 1, 9, 8, 3 * k + 3 * head)
    counters = await finish(dut, m, program)
    dut._log.info("waits %s", counters)
    dm, io, cp, mm, vu, _, _ = counters["stalls"]
    assert dm == 0
    assert min(mm, io - 200, cp - 400, vu - 500) > 0
