"""GEMM with a queue, and COMBINE, alone and among other descriptors; results, progress, waits and time."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, Timer
from cocotb_compute_core import (
    CONFIG,
    SEED,
    attention,
    begin,
    chained,
    execute,
    finish,
    gemm,
    independent,
    memories,
    placed,
    reset,
    result,
)

from intaglio.accelerator.descriptors import Descriptor

R = CONFIG.rows
LENGTHS = (0, 1, R - 1, R, R + 1, 4 * R)


def queued(rng: random.Random, waits: int | None = None, **fields: int) -> Descriptor:
    """A GEMM with the queue of any expert."""
    return gemm(rng, waits, **({"queue": rng.randint(1, CONFIG.experts), "rows": 4 * R} | fields))


def combine(rng: random.Random, waits: int | None = None, **fields: int) -> Descriptor:
    groups, wide, residual = rng.randint(1, 2 * CONFIG.tile_groups + 1), rng.randint(0, 1), rng.randint(0, 1)
    f = {
        "rows": rng.randint(1, 4 * R),
        "groups": groups,
        "k": rng.randint(1, 4),
        "zero": rng.randint(-32768, 32767) if wide else rng.randint(-128, 127),
        "wide": wide,
        "multiplier": rng.randrange(1 << 25, 1 << 26),
        # Products reach 2^47: some results saturate, some become small.
        "shift": rng.randint(10, 22) if wide else rng.randint(18, 30),
        "y_zero": rng.randint(-128, 127),
        **result(rng, residual, rng.randint(0, 1) if residual else wide),
    } | fields
    words, tiles = -(-f["groups"] // 2), -(-f["rows"] // R)
    strides = rng.choice([(words, tiles * words), (f["k"] * words, words)])
    f |= dict(zip(("a_stride", "slot_stride"), strides, strict=True))
    f.setdefault("a_addr", rng.randrange(CONFIG.a_words // 2 - tiles * f["k"] * words))
    return Descriptor("COMBINE", placed(rng, f), {} if waits is None else {"mm": (waits, 0)})


@cocotb.test()
async def random_programs(dut: Any) -> None:
    await reset(dut)
    for case in range(int(os.environ.get("CASES", "8"))):
        rng = random.Random(f"{SEED} {case}")
        m = memories(np.random.default_rng(SEED * 1000 + case))
        makers = [[queued], [combine], [gemm, queued, attention, combine], [attention, combine]][
            case // 2 % 4
        ]
        program = independent(rng, 12, makers) if case % 2 else chained(rng, m, 10, makers)
        await execute(dut, m, program, gap=[0, 1, 30][case % 3])


@cocotb.test()
async def queues_of_every_length(dut: Any) -> None:
    """Back to back; every second program has an empty queue between all the others."""
    await reset(dut)
    for case in range(4):
        rng, m = random.Random(case), memories(np.random.default_rng(case))
        m.lengths[: len(LENGTHS)] = rng.sample(LENGTHS, len(LENGTHS))
        empty = 1 + int(np.argmin(m.lengths))
        program = [
            queued(
                rng,
                queue=queue,
                groups=1 + case,
                group=0,
                entry=0,
                k_steps=1,
                a_stride=1,
                o_bank=0,
                residual=0,
            )
            for e in range(len(LENGTHS))
            for queue in ([1 + e, empty, empty] if case % 2 else [1 + e])
        ]
        space = CONFIG.a_words // 2
        program = [
            Descriptor(d.kind, {**d.fields, "o_addr": space + i % 6 * (space // 6)})
            for i, d in enumerate(program)
        ]
        await execute(dut, m, program)


@cocotb.test()
async def an_empty_queue_counts_in_turn(dut: Any) -> None:
    """What waits for the row tiles of a GEMM is not woken by an empty one behind it."""
    await reset(dut)
    rng, m = random.Random(5), memories(np.random.default_rng(5))
    m.lengths[:] = 0
    shape = {
        "groups": CONFIG.tile_groups,
        "group": 0,
        "k_steps": 1,
        "entry": 0,
        "residual": 0,
        "wide": 0,
        "table": 0,
    }
    shape |= {"o_wide": 0, "o_bank": 0, "rows": 4 * R}
    words = CONFIG.tile_groups // 2
    first = gemm(rng, a_stride=1, a_addr=0, **shape)
    empty = queued(rng, a_stride=1, a_addr=0, **shape)
    last = gemm(rng, 4, a_stride=words, a_addr=first["o_addr"], **shape)
    last = Descriptor("GEMM", {**last.fields, "o_addr": CONFIG.a_words // 4, "o_stride": words}, last.waits)
    first = Descriptor("GEMM", {**first.fields, "o_stride": words})
    await execute(dut, m, [first, empty, empty, empty, last])


@cocotb.test()
async def extremes(dut: Any) -> None:
    """The largest weights, results, multipliers and shifts."""
    await reset(dut)
    for case in range(8):
        rng, m = random.Random(case), memories(np.random.default_rng(case))
        m.a[:] = [-128, 127][case % 2]
        m.gates[:] = 32767
        m.totals[:] = [32767, (1 << 21) - 1][case // 4]
        y_zero = [127, -128][case % 2] if case & 2 else rng.randint(-128, 127)
        program = [
            combine(rng, k=k, y_zero=y_zero, multiplier=multiplier, shift=shift, o_bank=1)
            for k, multiplier, shift in (
                (4, (1 << 26) - 1, 1),
                (4, (1 << 26) - 1, 48),
                (1, 0, 48),
                (4, 1 << 25, 33),
            )
        ]
        space = CONFIG.x_words // 2
        program = [
            Descriptor(
                d.kind, {**d.fields, "o_addr": space + i * (space // 4), "residual": 0, "o_wide": d["wide"]}
            )
            for i, d in enumerate(program)
        ]
        await execute(dut, m, program)


@cocotb.test()
async def waits_hold_back(dut: Any) -> None:
    """A GEMM with a queue waits once, and takes its length then; COMBINE waits before every row tile."""
    await reset(dut)
    rng, m = random.Random(3), memories(np.random.default_rng(3))
    m.lengths[0] = 3 * R
    k, slots = 4, 2
    product = queued(rng, queue=1, k_steps=k, groups=CONFIG.tile_groups, a_stride=k, entry=0, a_addr=0)
    mean = combine(rng, rows=3 * R, k=slots, groups=CONFIG.tile_groups)
    program = [
        Descriptor("GEMM", product.fields, {"cp": (5, 9), "io": (1, 9)}),
        Descriptor("COMBINE", mean.fields, {"cp": (6, 0), "vu": (1, 2), "mm": (1, 0)}),
    ]
    await begin(dut, m, program)
    dut.routed_i.value = 5
    await ClockCycles(dut.clk_i, 4 * CONFIG.param_groups + 512 * CONFIG.table_slots)
    for io, cp, vu, steps in (
        (9, 4, 9, 0),
        (0, 5, 0, 0),
        (1, 5, 0, 3 * k),
        (1, 5, 9, 3 * k),
        (1, 6, 1, 3 * k + 2 * slots),
        (1, 6, 2, 3 * k + 2 * slots),
        (1, 6, 3, 3 * k + 4 * slots),
        (1, 6, 5, 3 * k + 6 * slots),
    ):
        dut.progress_i.value = io << 32 | cp << 64 | vu << 128
        await ClockCycles(dut.clk_i, 200)
        await Timer(1, "ns")
        assert int(dut.steps_o.value) == steps
    counters = await finish(dut, m, program)
    dut.routed_i.value = 0
    dut._log.info("waits %s", counters)
    _, io, cp, _, vu, _, _ = counters["stalls"]
    assert min(io, cp - 250, vu - 300) > 0


@cocotb.test()
async def totals_do_not_overtake_results(dut: Any) -> None:
    """Short row tiles behind a full accumulator FIFO: divisions of later tiles would be done before results are."""
    await reset(dut)
    rng, m = random.Random(7), memories(np.random.default_rng(7))
    narrow = {"residual": 0, "wide": 0, "o_wide": 0, "o_bank": 0, "table": 0}
    groups = 8 * CONFIG.tile_groups
    flood = gemm(rng, k_steps=1, a_stride=1, groups=groups, group=0, entry=0, rows=4 * R, **narrow)
    half = CONFIG.x_words // 2
    for other in (attention(rng, heads=2, keys=CONFIG.cols, rows=2 * R, qk_steps=1, v_words=2), flood):
        means = [
            combine(rng, rows=8 * R, k=1, groups=1, o_bank=1, residual=0, wide=0, o_wide=0) for _ in range(2)
        ]
        means = [
            Descriptor(d.kind, {**d.fields, "o_stride": 1, "o_addr": half + i * (half // 2)})
            for i, d in enumerate(means)
        ]
        await execute(dut, m, [flood, other, *means])
        await execute(dut, m, [means[0], other, means[1]])


@cocotb.test()
async def time_of_combine(dut: Any) -> None:
    """Per slot of a column tile: a cycle per word of it and 2 steps. Divisions are made meanwhile."""
    await reset(dut)
    rng, m = random.Random(4), memories(np.random.default_rng(4))
    tiles, columns, k = 9, 6, 2
    program = [
        combine(
            rng, rows=tiles * R - 1, groups=columns * CONFIG.tile_groups, k=k, residual=0, wide=0, o_wide=0
        )
    ]
    counters = await execute(dut, m, program)
    dut._log.info("COMBINE %s", counters)
    assert counters["steps"] == tiles * columns * k * 2
    assert counters["actives"] == [0, 0, tiles * columns * k * (CONFIG.cols // CONFIG.depth + 2)]


@cocotb.test()
async def time_of_empty_queues(dut: Any) -> None:
    """A step and the planner's 5 cycles each."""
    await reset(dut)
    rng, m = random.Random(6), memories(np.random.default_rng(6))
    m.lengths[:] = 0
    count = 20
    counters = await execute(dut, m, [queued(rng) for _ in range(count)])
    dut._log.info("empty %s", counters)
    assert counters["steps"] == count
    assert counters["span"] <= 5 * count
