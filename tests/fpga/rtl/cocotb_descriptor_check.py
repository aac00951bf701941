"""descriptor_check against its model, on descriptors at the edge of what is legal."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any, NamedTuple

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from descriptor_model import Model, random_descriptor

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, KINDS, ROUTED, UNITS, Descriptor, encode

ODD = AcceleratorConfig(
    rows=2, cols=24, depth=8, weight_entries=500, a_words=1000, x_words=300, param_groups=100, norm_channels=5000,
    table_slots=2, max_keys=72, weight_ports=1, multiplier="generic",
)  # fmt: skip
CONFIG = {**PRESETS, "odd": ODD}[os.environ["PRESET"]]
COUNT = 3000


async def start(dut: Any) -> None:
    cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
    dut.start_i.value = 0
    dut.checksum_ok_i.value = 1
    dut.clear_i.value = 0
    dut.task_i.value = 0
    dut.rst_i.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk_i)
    dut.rst_i.value = 0


class Found(NamedTuple):
    """Error code, units, and what is added to the offset."""

    code: int
    unit: int
    block: int


async def check(dut: Any, data: bytes, index: int = 0) -> Found:
    """One check."""
    dut.desc_i.value = int.from_bytes(data, "little")
    dut.index_i.value = index
    dut.start_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.start_i.value = 0
    for _ in range(60):
        await RisingEdge(dut.clk_i)
        if int(dut.done_o.value):
            return Found(*(int(getattr(dut, f"{name}_o").value) for name in Found._fields))
    raise AssertionError("not done after 60 cycles")


async def clear(dut: Any) -> None:
    """A program begins."""
    dut.clear_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.clear_i.value = 0


@cocotb.test()
async def edges(dut: Any) -> None:
    rng, seen = random.Random(1), Counter()
    await start(dut)
    route = None
    for _ in range(COUNT):
        if rng.random() < 0.01:
            await clear(dut)
            route = None
        d = random_descriptor(CONFIG, rng, route)
        model, task = Model(CONFIG, d, route), rng.choice([0, 0, 0, 1, 2, 254, 255, 256, 1 << 31])
        dut.task_i.value = task
        found = await check(dut, encode(d, 0))
        code = model.code(task)
        assert found.code == code, (d, route)
        assert found.unit == 1 << UNITS.index(BY_NAME[d.kind].unit)
        assert code or found.block == model.block(task), d
        seen[d.kind, code] += 1
        route = d if d.kind == "ROUTE" and not code else route
    kinds = [kind.name for kind in KINDS]
    assert all(seen[name, 5] > 5 for name in kinds), seen
    assert all(seen[name, 0] > 5 for name in kinds if CONFIG.experts or name not in ROUTED), seen
    assert seen["LOAD_WEIGHTS", 9] > 5
    assert seen["LOAD_PARAMS", 9] > 5


@cocotb.test()
async def other_errors(dut: Any) -> None:
    """The first that applies: checksum, version, order, opcode, addresses."""
    await start(dut)
    good = encode(Descriptor("LOAD_TABLE", {}), 0x12345)
    assert (await check(dut, good, 0x2345))[0] == 0
    assert (await check(dut, good, 0x2346))[0] == 4
    opcodes = {kind.opcode for kind in KINDS}
    for opcode in range(256):
        code = (await check(dut, bytes([opcode]) + encode(Descriptor("LOAD_TABLE", {}), 0)[1:])).code
        assert (code == 1) == (opcode not in opcodes), opcode
    assert (await check(dut, b"\xff\x01\x01" + good[3:]))[0] == 4
    assert (await check(dut, b"\xff\x02\x01" + good[3:]))[0] == 2
    dut.checksum_ok_i.value = 0
    assert (await check(dut, b"\xff\x02\x01" + good[3:]))[0] == 3
