"""axi_memory with engines at its ports: contents, time, faults."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from intaglio.accelerator.config import PRESETS

CONFIG = PRESETS[os.environ["PRESET"]]
D = CONFIG.depth
PORTS, WORDS, LATENCY = 3, 8192, 100
RATE = 1.5
"""Beats per cycle that all ports share."""

NEVER = 0xFFFFFFFF
MEMORY = bytearray().join(
    bytes.fromhex(line)[::-1] for line in Path(os.environ["MEMORY"]).read_text().split()
)
"""What the memory holds: tests follow each other without loading it again."""


class Bench:
    """Engines that take all that comes; per port what came, and when bursts were asked for and beats arrived."""

    def __init__(self, dut: Any) -> None:
        self.dut, self.cycle = dut, 0
        self.got = [bytearray() for _ in range(PORTS)]
        self.requests: list[list[int]] = [[] for _ in range(PORTS)]
        self.beats: list[list[int]] = [[] for _ in range(PORTS)]
        self.errors = [0] * PORTS
        self.wr_errors = self.wr_done = 0
        self.to_send = bytearray()

    async def begin(self) -> None:
        dut = self.dut
        cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
        for name in ("cmd_valid", "wr_cmd_valid", "wr_valid", "stall", "dump"):
            getattr(dut, f"{name}_i").value = 0
        dut.fault_read_i.value = NEVER
        dut.fault_write_i.value = NEVER
        dut.ready_i.value = (1 << PORTS) - 1
        dut.rst_i.value = 1
        for _ in range(3):
            await RisingEdge(dut.clk_i)
        dut.rst_i.value = 0
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        dut, sending = self.dut, False
        while True:
            await RisingEdge(dut.clk_i)
            self.cycle += 1
            valid, requests, beats, errors = (
                int(getattr(dut, name).value) for name in ("valid_o", "requests_o", "beats_o", "error_o")
            )
            data = int(dut.data_o.value) if valid else 0
            for p in range(PORTS):
                if valid >> p & 1:
                    self.got[p] += ((data >> 8 * D * p) % (1 << 8 * D)).to_bytes(D, "little")
                if requests >> p & 1:
                    self.requests[p].append(self.cycle)
                if beats >> p & 1:
                    self.beats[p].append(self.cycle)
                self.errors[p] += errors >> p & 1
            self.wr_errors += int(dut.wr_error_o.value)
            self.wr_done += int(dut.wr_done_o.value)
            if sending and int(dut.wr_ready_o.value):
                del self.to_send[:D]
            sending = bool(self.to_send)
            dut.wr_valid_i.value = int(sending)
            dut.wr_data_i.value = int.from_bytes(self.to_send[:D], "little")

    async def command(self, ports: int, addr: int, beats: int) -> None:
        """Hand a command to the read ports in the mask, at once."""
        dut = self.dut
        assert int(dut.cmd_ready_o.value) & ports == ports
        dut.cmd_addr_i.value = addr
        dut.cmd_beats_i.value = beats
        dut.cmd_valid_i.value = ports
        await RisingEdge(dut.clk_i)
        dut.cmd_valid_i.value = 0
        await RisingEdge(dut.clk_i)

    async def write(self, addr: int, data: bytes) -> None:
        dut, done = self.dut, self.wr_done
        self.to_send += data
        MEMORY[addr : addr + len(data)] = data
        dut.cmd_addr_i.value = addr
        dut.cmd_beats_i.value = len(data) // D
        dut.wr_cmd_valid_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.wr_cmd_valid_i.value = 0
        while self.wr_done == done:
            await RisingEdge(dut.clk_i)

    async def receive(self, beats: int, ports: range = range(PORTS), limit: int = 20_000) -> None:
        for _ in range(limit):
            await RisingEdge(self.dut.clk_i)
            if all(len(self.got[p]) >= beats * D for p in ports):
                return
        raise AssertionError(f"{[len(got) // D for got in self.got]} of {beats} beats after {limit} cycles")


@cocotb.test()
async def contents_and_latency(dut: Any) -> None:
    bench = Bench(dut)
    await bench.begin()
    await bench.command(0b001, 0, 1)
    await bench.receive(1, range(1))
    assert bench.beats[0][0] - bench.requests[0][0] == LATENCY + 1
    assert bytes(bench.got[0]) == MEMORY[:D]
    data = random.Random(1).randbytes(45 * D)
    await bench.write(4096 - 8 * D, data)
    bench.got[0].clear()
    await bench.command(0b111, 4096 - 10 * D, 50)
    await bench.receive(50)
    at = 4096 - 10 * D
    for p in range(PORTS):
        assert bytes(bench.got[p]) == MEMORY[at : at + 50 * D]
    assert not any(bench.errors)
    assert not bench.wr_errors
    # Beats from 4 before what was written to 1 after.
    dut.dump_from_i.value = 4096 // D - 12
    dut.dump_to_i.value = 4096 // D + 37
    dut.dump_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.dump_i.value = 0
    await RisingEdge(dut.clk_i)
    at = 4096 - 12 * D
    expected = MEMORY[at : at + 50 * D]
    lines = [line for line in Path(os.environ["DUMP"]).read_text().split() if not line.startswith(("@", "/"))]
    assert b"".join(bytes.fromhex(line)[::-1] for line in lines) == expected


@cocotb.test()
async def one_port_runs_at_full_rate(dut: Any) -> None:
    """At least 95 % of a beat per cycle, with the latency, from the first command to the last beat."""
    bench = Bench(dut)
    await bench.begin()
    beats = 4000
    begin = bench.cycle
    await bench.command(0b001, 0, beats)
    await bench.receive(beats, range(1))
    assert bytes(bench.got[0]) == MEMORY[: beats * D]
    assert beats >= 0.95 * (bench.cycle - begin)


@cocotb.test()
async def ports_share_the_bandwidth(dut: Any) -> None:
    """All ports together get at least 95 % of what there is, never more, and each the same."""
    bench = Bench(dut)
    await bench.begin()
    beats = 1500
    begin = bench.cycle
    await bench.command(0b111, 0, beats)
    while min(len(times) for times in bench.beats) < 2:
        await RisingEdge(dut.clk_i)
    while max(len(times) for times in bench.beats) < beats:
        await RisingEdge(dut.clk_i)
        counts = [len(times) for times in bench.beats]
        assert max(counts) - min(counts) <= 2
    await bench.receive(beats)
    assert PORTS * beats >= 0.9 * RATE * (bench.cycle - begin)
    times = sorted(time for port in bench.beats for time in port)
    span = times[-1] - times[0] + 1
    assert 0.95 * RATE * span <= PORTS * beats <= RATE * span + 3


@cocotb.test()
async def faults(dut: Any) -> None:
    bench = Bench(dut)
    await bench.begin()
    dut.fault_read_i.value = 3
    await bench.command(0b001, 0, 3 * CONFIG.burst)
    await bench.receive(3 * CONFIG.burst, range(1))
    assert bench.errors == [0, 0, 0]
    await bench.command(0b010, 0, 3 * CONFIG.burst)
    await bench.receive(3 * CONFIG.burst, range(1, 2))
    assert bench.errors == [0, CONFIG.burst, 0]
    await bench.command(0b100, (WORDS - 3) * D, 5)
    await bench.receive(5, range(2, 3))
    assert bench.errors == [0, CONFIG.burst, 2], "the last two beats lie beyond the memory"
    dut.fault_write_i.value = 1
    await bench.write(0, bytes(D))
    assert bench.wr_errors == 0
    await bench.write(0, bytes(D))
    assert bench.wr_errors == 1
    await bench.write(0, bytes(D))
    assert bench.wr_errors == 1


@cocotb.test()
async def a_stall_freezes_all(dut: Any) -> None:
    bench = Bench(dut)
    await bench.begin()
    await bench.command(0b111, 0, 200)
    await bench.receive(50)
    dut.stall_i.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk_i)
    counts = [len(times) for times in bench.beats]
    for _ in range(200):
        await RisingEdge(dut.clk_i)
    assert [len(times) for times in bench.beats] == counts
    dut.stall_i.value = 0
    await bench.receive(200)
    assert all(bytes(got) == MEMORY[: 200 * D] for got in bench.got)
