"""axi_write_engine against a memory of cocotbext-axi."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from axi_engine import CONFIGS, MEMORY, STALLS, Bursts, command, commands, idle, pauses, reset, start
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamWrite, AxiWriteBus

CONFIG = CONFIGS[os.environ["PRESET"]]
D = CONFIG.depth


class Ram(AxiRamWrite):
    """A memory with one bad word."""

    bad: int | None = None

    async def _write(self, address: int, data: bytes) -> None:
        if self.bad is not None and address <= self.bad < address + len(data):
            raise ValueError("bad word")
        await super()._write(address, data)


class Bench:
    """The engine, a memory, and bytes on their way into the stream."""

    def __init__(self, dut: Any, seed: int, stall: str) -> None:
        self.dut, self.rng = dut, random.Random(seed)
        self.bus_pauses, self.stream_pauses = STALLS[stall]
        self.data = self.rng.randbytes(MEMORY)
        self.expected = bytearray(self.data)
        self.to_send = bytearray()
        self.errors = self.done = 0

    async def begin(self) -> None:
        dut = self.dut
        self.ram = Ram(AxiWriteBus.from_prefix(dut, "axi"), dut.clk_i, dut.rst_i, size=MEMORY)
        self.ram.write(0, self.data)
        if self.bus_pauses:
            for channel in (self.ram.aw_channel, self.ram.w_channel, self.ram.b_channel):
                channel.set_pause_generator(pauses(self.rng))
        dut.valid_i.value = 0
        await start(dut)
        self.bursts = Bursts(dut, CONFIG, "aw", ("axi_bvalid", "axi_bready"))
        cocotb.start_soon(self.bursts.watch())
        cocotb.start_soon(self._send())
        cocotb.start_soon(self._watch())

    async def _send(self) -> None:
        dut, pause = self.dut, pauses(self.rng, 0.6)
        offered = b""
        while True:
            await RisingEdge(dut.clk_i)
            if offered and int(dut.ready_o.value):
                offered = b""
            if not offered and self.to_send and not (self.stream_pauses and next(pause)):
                offered = bytes(self.to_send[:D])
                del self.to_send[:D]
            dut.valid_i.value = int(bool(offered))
            dut.data_i.value = int.from_bytes(offered or self.rng.randbytes(D), "little")

    async def _watch(self) -> None:
        dut, open_burst = self.dut, False
        while True:
            await RisingEdge(dut.clk_i)
            self.errors += int(dut.error_o.value)
            self.done += int(dut.done_o.value)
            assert not open_burst or int(dut.axi_wvalid.value), (
                "the bus must not wait for data within a burst"
            )
            if int(dut.axi_wvalid.value):
                open_burst = not (int(dut.axi_wready.value) and int(dut.axi_wlast.value))

    def send(self, addr: int, beats: int) -> None:
        data = self.rng.randbytes(beats * D)
        self.expected[addr : addr + len(data)] = data
        self.to_send += data

    async def finish(self, done: int, limit: int = 20_000) -> None:
        for _ in range(limit):
            await RisingEdge(self.dut.clk_i)
            if self.done == done:
                return
        raise AssertionError(f"{self.done} of {done} commands done after {limit} cycles")

    def stored(self) -> bytes:
        return bytes(self.ram.read(0, MEMORY))


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS))
async def commands_in_order(dut: Any, stall: str) -> None:
    bench = Bench(dut, seed=len(stall), stall=stall)
    await bench.begin()
    made = commands(bench.rng, CONFIG, 12)
    for number, (addr, beats) in enumerate(made, 1):
        bench.send(addr, beats)
        await command(dut, addr, beats)
        if number % 3 == 0:
            await bench.finish(number)
            assert bench.stored() == bytes(bench.expected), "done means that memory has it"
    assert not bench.errors
    await RisingEdge(dut.clk_i)
    assert int(dut.idle_o.value)


@cocotb.test()
async def stops_between_bursts(dut: Any) -> None:
    """The source ends within a burst: that burst is never requested, and the engine comes to rest."""
    bench = Bench(dut, seed=6, stall="idle")
    await bench.begin()
    for cycles in (10, 45, 100):
        beats = 3 * CONFIG.burst - 1
        bench.send(0, beats)
        await command(dut, 0, beats + 1)
        for _ in range(cycles):
            await RisingEdge(dut.clk_i)
        dut.stop_i.value = 1
        for _ in range(2):
            await RisingEdge(dut.clk_i)
        await idle(dut)
        issued = list(bench.bursts.issued)
        for _ in range(50):
            await RisingEdge(dut.clk_i)
        assert int(dut.idle_o.value)
        assert bench.bursts.issued == issued
        written = sum(size for _, size in issued) * D
        assert written <= 2 * CONFIG.burst * D
        assert bench.stored()[:written] == bytes(bench.expected[:written])
        bench.to_send.clear()
        await RisingEdge(dut.clk_i)
        bench.done = 0
        dut.valid_i.value = 0
        await reset(dut)
        dut.stop_i.value = 0
        await RisingEdge(dut.clk_i)
        bench.bursts.issued.clear()
        bench.send(4096 - D, 9)
        await command(dut, 4096 - D, 9)
        await bench.finish(1)
        bench.bursts.issued.clear()
        bench.done = 0
        assert bench.stored()[4096 - D : 4096 + 8 * D] == bytes(bench.expected[4096 - D : 4096 + 8 * D])


@cocotb.test()
async def reports_errors(dut: Any) -> None:
    bench = Bench(dut, seed=7, stall="none")
    await bench.begin()
    bench.ram.bad = 100 * D
    bench.send(0, 90)
    await command(dut, 0, 90)
    await bench.finish(1)
    assert not bench.errors
    bench.send(90 * D, 20)
    await command(dut, 90 * D, 20)
    await bench.finish(2)
    assert bench.errors
