"""What the test benches of the AXI engines share: start, commands, and rules that hold for every burst."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from intaglio.accelerator.config import PRESETS, AcceleratorConfig

CONFIGS = {"tiny": PRESETS["tiny"], "single": AcceleratorConfig(burst=4, outstanding=1)}
"""Engines with beats of 8 bytes and the usual sizes, and with 16 bytes and one short burst at a time."""

MEMORY = 1 << 16
"""Bytes of memory that commands address."""

STALLS = {"none": (False, False), "idle": (True, False), "back-pressure": (False, True), "both": (True, True)}
"""(the bus pauses, the stream pauses)"""


async def start(dut: Any) -> None:
    """Clock, idle inputs, reset."""
    cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
    dut.stop_i.value = 0
    dut.cmd_valid_i.value = 0
    dut.cmd_addr_i.value = 0
    dut.cmd_beats_i.value = 0
    await reset(dut)


async def reset(dut: Any) -> None:
    """Three cycles of reset."""
    dut.rst_i.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk_i)
    dut.rst_i.value = 0


async def command(dut: Any, addr: int, beats: int) -> None:
    """Hand over a command."""
    dut.cmd_addr_i.value = addr
    dut.cmd_beats_i.value = beats
    dut.cmd_valid_i.value = 1
    await RisingEdge(dut.clk_i)
    while not int(dut.cmd_ready_o.value):
        await RisingEdge(dut.clk_i)
    dut.cmd_valid_i.value = 0


async def idle(dut: Any, limit: int = 5000) -> None:
    """Wait until nothing is in flight."""
    for _ in range(limit):
        await RisingEdge(dut.clk_i)
        if int(dut.idle_o.value):
            return
    raise AssertionError(f"not idle after {limit} cycles")


def pauses(rng: random.Random, often: float = 0.5) -> Iterator[int]:
    """Pauses of random length."""
    while True:
        yield from [int(rng.random() < often)] * rng.randint(1, 4)


def commands(rng: random.Random, config: AcceleratorConfig, count: int) -> list[tuple[int, int]]:
    """(address, beats): short ones, whole bursts, and ones that meet 4 KiB boundaries."""
    made = []
    for _ in range(count):
        beats = rng.choice(
            [1, 2, config.burst - 1, config.burst, config.burst + 1, rng.randint(1, 5 * config.burst)]
        )
        boundary = 4096 * rng.randint(1, 14) - rng.randint(0, beats) * config.depth
        addr = max(0, rng.choice([boundary, rng.randrange(MEMORY // 2)]))
        made.append((addr // config.depth * config.depth, beats))
    return made


class Bursts:
    """Watches an address channel (`ar`, `aw`): every burst keeps the rules; `issued`: (address, beats) of all."""

    def __init__(self, dut: Any, config: AcceleratorConfig, channel: str, end: tuple[str, ...]) -> None:
        self.dut, self.config, self.end = dut, config, [getattr(dut, name) for name in end]
        names = ("addr", "len", "valid", "ready")
        self.addr, self.len, self.valid, self.ready = (getattr(dut, f"axi_{channel}{name}") for name in names)
        self.issued: list[tuple[int, int]] = []
        self.flying = 0

    async def watch(self) -> None:
        held: tuple[int, int] | None = None
        while True:
            await RisingEdge(self.dut.clk_i)
            ended = all(int(signal.value) for signal in self.end)
            if int(self.valid.value):
                addr, beats = int(self.addr.value), int(self.len.value) + 1
                assert held in (None, (addr, beats)), "a request that waits must not change"
                held = (addr, beats)
                assert beats <= self.config.burst
                assert addr % self.config.depth == 0
                assert addr % 4096 + beats * self.config.depth <= 4096
                if int(self.ready.value):
                    held = None
                    self.issued.append((addr, beats))
                    self.flying += 1
            else:
                assert held is None, "a request was taken back"
            self.flying -= ended
            assert self.flying <= self.config.outstanding
