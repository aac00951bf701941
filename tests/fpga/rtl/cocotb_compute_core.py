"""Runs programs of GEMM and ATTENTION on the compute core and compares all of both banks with the model."""

from __future__ import annotations

import copy
import os
import random
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, Timer
from core_model import Memories

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor, encode

CONFIG = AcceleratorConfig.model_validate_json(os.environ["CONFIG"])
SEED = int(os.environ.get("SEED", "1"))


def memories(rng: np.random.Generator) -> Memories:
    c = CONFIG
    slots = c.table_slots
    exponential = rng.integers(0, 1 << 15, (slots, 256))
    exponential[:, 0] = 32767
    return Memories(
        c,
        a=rng.integers(-128, 128, (c.a_words, c.rows, c.depth), np.int8),
        x=rng.integers(-128, 128, (c.x_words, c.rows, c.depth), np.int8),
        weights=rng.integers(-128, 128, (c.weight_entries, c.cols, c.depth), np.int8),
        bias=rng.integers(-(1 << 20), 1 << 20, (c.param_groups, c.group)),
        multiplier=rng.integers(0, 1 << 26, (c.param_groups, c.group)),
        shift=rng.choice(
            [1, 2, 17, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 50, 61, 62], (c.param_groups, c.group)
        ),
        activation=rng.integers(-32768, 32768, (slots, 256)),
        exponential=exponential,
        lengths=rng.integers(0, 4 * c.rows + 1, max(c.experts, 1)),
        gates=rng.integers(0, 1 << 15, (c.max_keys, 4)),
        totals=rng.integers(32767, 1 << 21, c.max_keys),
    )


def gemm(rng: random.Random, waits: int | None = None, **fields: int) -> Descriptor:
    c = CONFIG
    k, groups = rng.randint(1, 5), rng.randint(1, 2 * c.tile_groups + 1)
    if -(-groups // c.tile_groups) * k > c.weight_entries:
        groups = 1
    wide = rng.randint(0, 1)
    table = 0 if wide else rng.randint(0, 1)
    residual = rng.randint(0, 1)
    f = {
        "k_steps": k,
        "groups": groups,
        "group": rng.randrange(c.param_groups - groups),
        "a_stride": k,
        "entry": rng.randrange(c.weight_entries - -(-groups // c.tile_groups) * k + 1),
        "rows": rng.randint(1, 4 * c.rows),
        "zero": rng.randint(-32768, 32767) if wide else rng.randint(-128, 127),
        "wide": wide,
        "table": table,
        "slot": rng.randrange(c.table_slots),
        **result(rng, residual, rng.randint(0, 1) if residual or table else wide),
    } | fields
    tiles = -(-f["rows"] // c.rows)
    f.setdefault("a_addr", rng.randrange(c.a_words // 2 - tiles * f["a_stride"] - f["k_steps"]))
    return Descriptor("GEMM", placed(rng, f), {} if waits is None else {"mm": (waits, 0)})


def result(rng: random.Random, residual: int, o_wide: int) -> dict[str, int]:
    """Fields of the residual and of the width and bank of the result."""
    return {
        "residual": residual,
        "r_wide": rng.randint(0, 1),
        "o_wide": o_wide,
        "o_bank": rng.randint(0, 1),
        "add_a": rng.randint(1 - (1 << 26), (1 << 26) - 1),
        "add_b": rng.randint(1 - (1 << 26), (1 << 26) - 1),
        "add_offset": rng.randint(-(1 << 43), 1 << 43),
        "add_shift": rng.choice([1, 20, 24, 26, 28, 30, 32, 34, 36, 44]),
        "add_zero": rng.randint(-32768, 32767) if o_wide and rng.randint(0, 1) else rng.randint(-128, 127),
    }


def placed(rng: random.Random, f: dict[str, int]) -> dict[str, int]:
    """The fields with addresses of result and residual: results in upper halves, often in place of the residual."""
    c = CONFIG
    words = f["groups"] if f["o_wide"] else -(-f["groups"] // 2)
    r_words = f["groups"] if f["r_wide"] else -(-f["groups"] // 2)
    tiles = -(-f["rows"] // c.rows)
    f |= {"o_stride": words + rng.randint(0, 2), "r_stride": r_words + rng.randint(0, 2)}
    half = (c.x_words if f["o_bank"] else c.a_words) // 2
    f.setdefault("o_addr", half + rng.randrange(half - tiles * f["o_stride"] - words))
    f["r_addr"] = rng.randrange(c.x_words // 2 - tiles * f["r_stride"] - r_words)
    if f["residual"] and f["o_bank"] and rng.randint(0, 1):
        # In place: as LayerNorm's residual stream is used.
        f |= {"r_wide": f["o_wide"], "r_addr": f["o_addr"], "r_stride": f["o_stride"]}
    return f


def attention(rng: random.Random, waits: int | None = None, **fields: int) -> Descriptor:
    c = CONFIG
    f = {
        "heads": rng.randint(1, 4),
        "keys": rng.randint(1, min(3 * c.cols, c.max_keys)),
        "rows": rng.randint(1, 3 * c.rows),
        "qk_steps": rng.randint(1, 3),
        "v_words": rng.randint(1, 3),
    } | fields
    k_entries = -(-f["keys"] // c.cols) * f["qk_steps"]
    v_entries = -(-f["v_words"] * c.depth // c.cols) * -(-f["keys"] // c.depth)
    tiles = -(-f["rows"] // c.rows)
    f |= {
        "q_stride": f["heads"] * f["qk_steps"],
        "o_stride": f["heads"] * f["v_words"],
        "slot": rng.randrange(c.table_slots),
        "entry": rng.randint(0, 3),
        "v_entry": k_entries,
        "entry_step": k_entries + v_entries,
        "score_multiplier": rng.randrange(1 << 16, 1 << 17),
        "score_shift": rng.randint(27, 32),
        "score_zero": rng.randint(-30, 30),
        "multiplier": rng.randrange(1 << 25, 1 << 26),
        "shift": rng.randint(24, 27),
        "zero": rng.randint(-100, 100),
        "q_zero": rng.randint(-128, 127),
        "k_zero": rng.randint(-128, 127),
        "v_zero": rng.randint(-128, 127),
        "score_bias": rng.randint(-(1 << 20), 1 << 20),
    }
    assert f["entry"] + 2 * f["entry_step"] <= c.weight_entries
    f["q_addr"] = rng.randrange(c.a_words // 2 - tiles * f["q_stride"])
    f["o_addr"] = c.a_words // 2 + rng.randrange(c.a_words // 2 - tiles * f["o_stride"])
    return Descriptor("ATTENTION", f, {} if waits is None else {"mm": (waits, 0)})


def _hex(path: str, rows: np.ndarray) -> None:
    data = np.ascontiguousarray(rows.reshape(len(rows), -1)).view(np.uint8)
    Path(path).write_text("\n".join(bytes(row[::-1]).hex() for row in data) + "\n")


def _read(path: str, like: np.ndarray) -> np.ndarray:
    lines = [line for line in Path(path).read_text().split() if not line.startswith(("//", "@"))]
    return (
        np.array([list(bytes.fromhex(line)[::-1]) for line in lines], np.uint8)
        .view(np.int8)
        .reshape(like.shape)
    )


def _router(m: Memories) -> list[int]:
    """Totals and gates of every row tile, as one number each."""
    words = []
    for first in range(0, CONFIG.max_keys, CONFIG.rows):
        word = 0
        for t in reversed(range(first, first + CONFIG.rows)):
            word = word << 21 | int(m.totals[t])
        for t in reversed(range(first, first + CONFIG.rows)):
            for gate in m.gates[t][::-1]:
                word = word << 15 | int(gate)
        words.append(word)
    return words


async def reset(dut: Any) -> None:
    cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
    for name in ("load_i", "dump_i", "start_i", "descs_i", "gap_i", "progress_i", "routed_i"):
        getattr(dut, name).value = 0
    dut.rst_i.value = 1
    await ClockCycles(dut.clk_i, 5)
    dut.rst_i.value = 0


async def execute(dut: Any, m: Memories, program: list[Descriptor], gap: int = 0) -> dict[str, Any]:
    """Run a program; asserts that the banks are what the model says; returns counters."""
    await begin(dut, m, program, gap)
    return await finish(dut, m, program)


async def begin(dut: Any, m: Memories, program: list[Descriptor], gap: int = 0) -> None:
    params = m.bias & 0xFFFFFFFF | m.multiplier << 32 | m.shift << 58
    for path, data in (
        ("a.hex", m.a),
        ("x.hex", m.x),
        ("w.hex", m.weights),
        ("d.hex", np.stack([np.frombuffer(encode(d, i), np.uint8) for i, d in enumerate(program)])),
        ("p.hex", params.astype(np.uint64).view(np.uint8).reshape(4 * CONFIG.param_groups, -1)),
        ("t.hex", np.concatenate([m.activation, m.exponential]).astype(np.int16).reshape(-1, 1)),
    ):
        _hex(path, data)
    Path("l.hex").write_text("".join(f"{length:x}\n" for length in m.lengths))
    Path("g.hex").write_text("".join(f"{word:x}\n" for word in _router(m)))
    dut.start_i.value = 0
    await ClockCycles(dut.clk_i, 2)
    dut.load_i.value = 1
    dut.descs_i.value = len(program)
    dut.gap_i.value = gap
    dut.start_i.value = 1
    await ClockCycles(dut.clk_i, 2)
    dut.load_i.value = 0


async def finish(dut: Any, m: Memories, program: list[Descriptor]) -> dict[str, Any]:
    expected = copy.deepcopy(m)
    for d in program:
        expected.run(d)
    if not int(dut.done_o.value):
        await RisingEdge(dut.done_o)
    await Timer(1, "ns")
    counters = {
        "steps": int(dut.steps_o.value),
        "span": int(dut.span_o.value),
        "idles": int(dut.idles_o.value),
        "stalls": [int(dut.stalls_o.value) >> 32 * i & 0xFFFFFFFF for i in range(7)],
        "actives": [int(dut.actives_o.value) >> 32 * i & 0xFFFFFFFF for i in range(3)],
    }
    await ClockCycles(dut.clk_i, 2)
    assert int(dut.progress_o.value) == expected.row_tiles
    dut.dump_i.value = 1
    await ClockCycles(dut.clk_i, 2)
    dut.dump_i.value = 0
    for bank, path in ((expected.a, "a_out.hex"), (expected.x, "x_out.hex")):
        got = _read(path, bank)
        wrong = np.argwhere(got != bank)
        assert not len(wrong), (
            f"{path}: {len(wrong)} bytes differ, first (word, row, byte) {wrong[0]}: {got[tuple(wrong[0])]}, not "
            f"{bank[tuple(wrong[0])]}; program {[(d.kind, dict(d.fields)) for d in program][:3]}"
        )
    return counters


def independent(rng: random.Random, count: int, makers: list[Any]) -> list[Descriptor]:
    """Descriptors without waits: none reads what another writes, and no two write the same words."""
    program: list[Descriptor] = []
    taken: list[tuple[int, int, int]] = []
    while len(program) < count:
        d = rng.choice(makers)(rng)
        size = -(-d["rows"] // CONFIG.rows) * d["o_stride"] + d["groups"]
        span = (d["o_bank"], d["o_addr"], d["o_addr"] + size)
        if all(span[0] != b or span[2] <= lo or hi <= span[1] for b, lo, hi in taken):
            program.append(d)
            taken.append(span)
        elif rng.random() < 0.02:
            break
    return program


def chained(rng: random.Random, m: Memories, count: int, makers: list[Any]) -> list[Descriptor]:
    """Descriptors that wait for all before them, and may read what those wrote."""
    program: list[Descriptor] = []
    done = 0
    for _ in range(count):
        program.append(rng.choice(makers)(rng, done))
        d = program[-1]
        start = CONFIG.a_words // 2 + rng.randrange(CONFIG.a_words // 4)
        tiles = -(-d["rows"] // CONFIG.rows)
        reads = range(start, start + (d["k"] or 1) * max(tiles * d["a_stride"], d["slot_stride"]))
        writes = range(d["o_addr"], d["o_addr"] + tiles * d["o_stride"])
        # Of what a descriptor writes itself it may read nothing: rows would have to wait for others.
        if (
            d.kind != "ATTENTION"
            and rng.random() < 0.5
            and reads.stop <= CONFIG.a_words
            and (reads.stop <= writes.start or writes.stop <= reads.start)
        ):
            program[-1] = Descriptor(d.kind, {**d.fields, "a_addr": start}, d.waits)
        done += m.progress(program[-1])
    return program


@cocotb.test()
async def random_programs(dut: Any) -> None:
    """All flags of both kinds, back to back and one after the other, with and without pauses between descriptors."""
    await reset(dut)
    for case in range(int(os.environ.get("CASES", "6"))):
        rng = random.Random(f"{SEED} {case}")
        m = memories(np.random.default_rng(SEED * 1000 + case))
        if case == 1:
            m.weights[:] = -128
            m.a[:] = -128
        makers = [[gemm], [attention], [gemm, attention]][case % 3]
        chain = [gemm, gemm, attention]
        program = independent(rng, 12, makers) if case % 2 else chained(rng, m, 8, chain)
        await execute(dut, m, program, gap=[0, 1, 30][case % 3])
