"""accel_regs against the register map, through cocotbext-axi's AXI4-Lite master."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import FORMAT_VERSION
from intaglio.accelerator.registers import COUNTER_BASE, COUNTERS, MAGIC, REGISTERS

CONFIG = PRESETS[os.environ["PRESET"]]
ADDRESS_BITS = 40
STALLS = {"none": (False, False), "idle": (True, False), "back-pressure": (False, True), "both": (True, True)}
START, RESET, ENABLE = 1, 2, 4
BUSY, DONE, ERROR = 1, 2, 4


class Bench:
    """The registers, a host, and counts of the pulses that they give."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.starts = self.resets = 0

    async def begin(self, stall: str = "none") -> None:
        dut = self.dut
        cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
        for name in ("reset_done", "busy", "done", "error", "error_code", "error_info", "counters"):
            getattr(dut, f"{name}_i").value = 0
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "axi"), dut.clk_i, dut.rst_i)
        idle, late = STALLS[stall]
        write, read = self.host.write_if, self.host.read_if
        for channel in [write.aw_channel, write.w_channel, read.ar_channel] * idle:
            channel.set_pause_generator(pauses(random.Random(2)))
        for channel in [write.b_channel, read.r_channel] * late:
            channel.set_pause_generator(pauses(random.Random(3)))
        dut.rst_i.value = 1
        for _ in range(3):
            await RisingEdge(dut.clk_i)
        dut.rst_i.value = 0
        cocotb.start_soon(self._count())

    async def _count(self) -> None:
        while True:
            await RisingEdge(self.dut.clk_i)
            self.starts += int(self.dut.start_o.value)
            self.resets += int(self.dut.soft_reset_o.value)

    async def read(self, name: str) -> int:
        return await self.at(REGISTERS[name][0])

    async def at(self, address: int) -> int:
        answer = await self.host.read(address, 4)
        assert answer.resp == AxiResp.OKAY
        return int.from_bytes(answer.data, "little")

    async def write(self, name: str, value: int) -> None:
        answer = await self.host.write(REGISTERS[name][0], value.to_bytes(4, "little"))
        assert answer.resp == AxiResp.OKAY

    async def pulse(self, name: str, **values: int) -> None:
        for key, value in values.items():
            getattr(self.dut, f"{key}_i").value = value
        getattr(self.dut, f"{name}_i").value = 1
        await RisingEdge(self.dut.clk_i)
        getattr(self.dut, f"{name}_i").value = 0


def pauses(rng: random.Random) -> Iterator[int]:
    """Pauses half of the time."""
    while True:
        yield rng.randrange(2)


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS))
async def keeps_what_is_written(dut: Any, stall: str) -> None:
    bench, rng = Bench(dut), random.Random(1)
    await bench.begin(stall)
    plain = [n for n, (_, access, _) in REGISTERS.items() if access == "rw" and n != "CONTROL"]
    values = {name: rng.getrandbits(32) for name in plain}
    for name, value in values.items():
        await bench.write(name, value)
    for name, value in values.items():
        assert await bench.read(name) == value, name
    assert int(dut.watchdog_o.value) == values["WATCHDOG"]
    assert int(dut.program_count_o.value) == values["PROGRAM_COUNT"]
    assert int(dut.task_o.value) == values["TASK"]
    for output in ("program", "weights", "input", "output"):
        address = values[f"{output.upper()}_LO"] | values[f"{output.upper()}_HI"] << 32
        assert int(getattr(dut, f"{output}_base_o").value) == address % (1 << ADDRESS_BITS)
    for name, value in {"MAGIC": MAGIC, "VERSION": FORMAT_VERSION, "CONFIG": CONFIG.hash}.items():
        await bench.write(name, 0)
        assert await bench.read(name) == value
    assert not bench.starts
    assert not bench.resets


@cocotb.test()
async def writes_single_bytes(dut: Any) -> None:
    bench = Bench(dut)
    await bench.begin()
    await bench.write("INPUT_LO", 0x11223344)
    await bench.host.write(REGISTERS["INPUT_LO"][0] + 1, b"\xaa\xbb")
    assert await bench.read("INPUT_LO") == 0x11BBAA44


@cocotb.test()
async def shows_counters_and_nothing_elsewhere(dut: Any) -> None:
    bench, rng = Bench(dut), random.Random(2)
    await bench.begin()
    values = [rng.getrandbits(32) for _ in COUNTERS]
    dut.counters_i.value = sum(value << 32 * i for i, value in enumerate(values))
    for i, value in enumerate(values):
        assert await bench.at(COUNTER_BASE + 4 * i) == value
    known = {offset for offset, _, _ in REGISTERS.values()} | {
        COUNTER_BASE + 4 * i for i in range(len(COUNTERS))
    }
    for address in [*sorted(set(range(0, 0x160, 4)) - known), 0xFFC]:
        await bench.host.write(address, b"\xff" * 4)
        assert await bench.at(address) == 0
    assert not bench.starts


@cocotb.test()
async def a_run_that_ends_well(dut: Any) -> None:
    bench = Bench(dut)
    await bench.begin()
    await bench.write("CONTROL", START | ENABLE)
    assert bench.starts == 1
    dut.busy_i.value = 1
    assert await bench.read("CONTROL") == ENABLE
    assert await bench.read("STATUS") == BUSY
    await bench.write("CONTROL", START | ENABLE)
    assert bench.starts == 1, "start is ignored while busy"
    assert not int(dut.irq_o.value)
    dut.busy_i.value = 0
    await bench.pulse("done")
    assert await bench.read("STATUS") == DONE
    assert await bench.read("INTERRUPT") == 1
    assert int(dut.irq_o.value)
    await bench.write("INTERRUPT", 1)
    assert await bench.read("INTERRUPT") == 0
    assert not int(dut.irq_o.value)
    assert await bench.read("STATUS") == DONE
    await bench.write("CONTROL", START)
    assert bench.starts == 2
    dut.busy_i.value = 1
    assert await bench.read("STATUS") == BUSY, "start clears done"
    dut.busy_i.value = 0
    await bench.pulse("done")
    assert await bench.read("INTERRUPT") == 1
    assert not int(dut.irq_o.value), "the interrupt is not enabled"


@cocotb.test()
async def only_a_reset_leaves_the_error_state(dut: Any) -> None:
    bench = Bench(dut)
    await bench.begin()
    await bench.write("WEIGHTS_LO", 0x1000)
    await bench.write("CONTROL", START | ENABLE)
    await bench.pulse("error", error_code=6, error_info=77)
    dut.error_code_i.value = 0
    dut.error_info_i.value = 0
    assert await bench.read("STATUS") == ERROR | 6 << 8
    assert await bench.read("ERROR_INFO") == 77
    assert int(dut.irq_o.value)
    await bench.write("CONTROL", START)
    assert bench.starts == 1
    await bench.write("CONTROL", RESET)
    assert bench.resets == 1
    assert await bench.read("STATUS") == BUSY | ERROR | 6 << 8
    await bench.write("CONTROL", START)
    assert bench.starts == 1
    await bench.pulse("reset_done")
    assert await bench.read("STATUS") == 0
    assert await bench.read("ERROR_INFO") == 0
    assert await bench.read("INTERRUPT") == 0
    assert await bench.read("WEIGHTS_LO") == 0x1000
    await bench.write("CONTROL", START)
    assert bench.starts == 2
