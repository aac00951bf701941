"""axi_read_engine against a memory of cocotbext-axi."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from axi_engine import CONFIGS, MEMORY, STALLS, Bursts, command, commands, idle, pauses, reset, start
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamRead, AxiReadBus

CONFIG = CONFIGS[os.environ["PRESET"]]
D = CONFIG.depth


class Ram(AxiRamRead):
    """A memory with one bad word."""

    bad: int | None = None

    async def _read(self, address: int, length: int) -> bytes:
        if self.bad is not None and address <= self.bad < address + length:
            raise ValueError("bad word")
        return bytes(await super()._read(address, length))


class Bench:
    """The engine, a memory of random bytes, and what the stream has brought."""

    def __init__(self, dut: Any, seed: int, stall: str) -> None:
        self.dut, self.rng = dut, random.Random(seed)
        self.data = self.rng.randbytes(MEMORY)
        self.bus_pauses, self.stream_pauses = STALLS[stall]
        self.got = bytearray()
        self.errors = 0
        self.taking = True

    async def begin(self) -> None:
        dut = self.dut
        self.ram = Ram(AxiReadBus.from_prefix(dut, "axi"), dut.clk_i, dut.rst_i, size=MEMORY)
        self.ram.write(0, self.data)
        if self.bus_pauses:
            self.ram.ar_channel.set_pause_generator(pauses(self.rng))
            self.ram.r_channel.set_pause_generator(pauses(self.rng))
        dut.ready_i.value = 0
        await start(dut)
        self.bursts = Bursts(dut, CONFIG, "ar", ("axi_rvalid", "axi_rready", "axi_rlast"))
        cocotb.start_soon(self.bursts.watch())
        cocotb.start_soon(self._take())

    async def _take(self) -> None:
        dut, pause = self.dut, pauses(self.rng, 0.6)
        while True:
            await RisingEdge(dut.clk_i)
            if int(dut.valid_o.value) and int(dut.ready_i.value):
                self.got += int(dut.data_o.value).to_bytes(D, "little")
            assert int(dut.axi_rready.value), "data must never wait"
            self.errors += int(dut.error_o.value)
            dut.ready_i.value = int(self.taking and not (self.stream_pauses and next(pause)))

    async def receive(self, size: int, limit: int = 20_000) -> None:
        for _ in range(limit):
            await RisingEdge(self.dut.clk_i)
            if len(self.got) >= size:
                return
        raise AssertionError(f"{len(self.got)} of {size} bytes after {limit} cycles")

    def expected(self, made: list[tuple[int, int]]) -> bytes:
        return b"".join(self.data[addr : addr + beats * D] for addr, beats in made)


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS))
async def commands_in_order(dut: Any, stall: str) -> None:
    bench = Bench(dut, seed=len(stall), stall=stall)
    await bench.begin()
    made = commands(bench.rng, CONFIG, 12)
    for addr, beats in made:
        await command(dut, addr, beats)
    expected = bench.expected(made)
    await bench.receive(len(expected))
    for _ in range(20):
        await RisingEdge(dut.clk_i)
    assert bytes(bench.got) == expected
    assert not bench.errors
    assert int(dut.idle_o.value)


@cocotb.test()
async def requests_only_what_it_can_hold(dut: Any) -> None:
    """Nobody takes the data: all bursts in flight end nevertheless, and later the data is there."""
    bench = Bench(dut, seed=5, stall="none")
    await bench.begin()
    bench.taking = False
    capacity = CONFIG.outstanding * CONFIG.burst
    made = [(0, capacity), (4096, 3)]
    for addr, beats in made:
        await command(dut, addr, beats)
    for _ in range(6 * capacity):
        await RisingEdge(dut.clk_i)
    assert int(dut.idle_o.value)
    assert sum(beats for _, beats in bench.bursts.issued) <= capacity + 1
    bench.taking = True
    expected = bench.expected(made)
    await bench.receive(len(expected))
    assert bytes(bench.got) == expected


@cocotb.test()
async def stops_and_drains(dut: Any) -> None:
    """Stopped in the middle with data that nobody takes: bursts in flight come home, no new ones; reset; again."""
    bench = Bench(dut, seed=6, stall="idle")
    await bench.begin()
    for cycles in (7, 40, 90):
        bench.taking = False
        for addr in (0, 8192):
            await command(dut, addr, 6 * CONFIG.burst)
        for _ in range(cycles):
            await RisingEdge(dut.clk_i)
        dut.stop_i.value = 1
        for _ in range(2):
            await RisingEdge(dut.clk_i)
        await idle(dut)
        issued = len(bench.bursts.issued)
        for _ in range(50):
            await RisingEdge(dut.clk_i)
        assert int(dut.idle_o.value)
        assert len(bench.bursts.issued) == issued
        await reset(dut)
        dut.stop_i.value = 0
        await RisingEdge(dut.clk_i)
        assert not int(dut.valid_o.value)
        bench.got.clear()
        bench.taking = True
        await command(dut, 4096 - D, 9)
        await bench.receive(9 * D)
        assert bytes(bench.got) == bench.expected([(4096 - D, 9)])


@cocotb.test()
async def reports_errors(dut: Any) -> None:
    bench = Bench(dut, seed=7, stall="none")
    await bench.begin()
    bench.ram.bad = 100 * D
    await command(dut, 0, 90)
    await bench.receive(90 * D)
    assert not bench.errors
    await command(dut, 90 * D, 20)
    await bench.receive(110 * D)
    assert bench.errors
