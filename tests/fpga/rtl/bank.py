"""What test benches of units that use scratchpads share: a bank as Python sees it, descriptors, a start."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor, encode

UNITS = ("dm", "io", "cp", "mm", "vu")
LENGTH_BITS = 11

# Of the tests so far: a test that ends takes its clock along.
_clocks: list[Any] = []


class Bank:
    """Words of R x D bytes. Grants come with probability `grant`; data lasts one cycle, then it is noise."""

    def __init__(
        self, dut: Any, config: AcceleratorConfig, words: int, rng: random.Random, grant: float
    ) -> None:
        self.dut, self.rng, self.grant = dut, rng, grant
        self.data = np.frombuffer(rng.randbytes(words * config.word_bytes), np.int8).copy()
        self.data = self.data.reshape(words, config.rows, config.depth)
        self.bits = 8 * config.word_bytes
        self.writes = 0

    def tensor(self, addr: int, stride: int, tiles: int, words: int) -> NDArray[np.int8]:
        """A copy of the words of a tensor: [tiles, words, R, D]."""
        at = addr + np.arange(tiles)[:, None] * stride + np.arange(words)
        return self.data[at]

    async def reads(self, ports: tuple[str, ...], data: str) -> None:
        """Serve read ports, the first one first; `data` names the input that they share."""
        handles = [(getattr(self.dut, f"{p}_req_o"), getattr(self.dut, f"{p}_addr_o")) for p in ports]
        grants = [getattr(self.dut, f"{p}_gnt_i") for p in ports]
        output = getattr(self.dut, data)
        allowed = self._offer(grants)
        while True:
            await RisingEdge(self.dut.clk_i)
            output.value = self.rng.getrandbits(self.bits)
            if allowed is not None and int(handles[allowed][0].value):
                word = self.data[int(handles[allowed][1].value)]
                output.value = int.from_bytes(word.tobytes(), "little")
            allowed = self._offer(grants)

    async def writes_at(self, port: str) -> None:
        """Serve a write port."""
        req, addr, data, be = (
            getattr(self.dut, f"{port}_{name}_o") for name in ("req", "addr", "data", "be")
        )
        grant = getattr(self.dut, f"{port}_gnt_i")
        allowed = self._offer([grant])
        while True:
            await RisingEdge(self.dut.clk_i)
            if allowed is not None and int(req.value):
                size = self.bits // 8
                word = np.frombuffer(int(data.value).to_bytes(size, "little"), np.int8)
                mask = np.array([int(be.value) >> i & 1 for i in range(size)], bool)
                self.data[int(addr.value)].reshape(-1)[mask] = word[mask]
                self.writes += 1
            allowed = self._offer([grant])

    def _offer(self, grants: list[Any]) -> int | None:
        """One of the ports is granted the next cycle, or none; whether it asks is not known yet."""
        allowed = self.rng.randrange(len(grants)) if self.rng.random() < self.grant else None
        for i, grant in enumerate(grants):
            grant.value = int(i == allowed)
        return allowed


async def start(dut: Any) -> None:
    """Clock, once, and reset."""
    if not _clocks or _clocks[-1].done():
        _clocks.append(cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start()))
    dut.desc_valid_i.value = 0
    dut.progress_i.value = 0
    dut.clear_i.value = 0
    dut.rst_i.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk_i)
    dut.rst_i.value = 0


async def give(dut: Any, descriptor: Descriptor, gap: int = 0) -> None:
    """Offer a descriptor until the unit takes it, after `gap` cycles."""
    for _ in range(gap):
        await RisingEdge(dut.clk_i)
    dut.desc_i.value = int.from_bytes(encode(descriptor, 0), "little")
    dut.desc_valid_i.value = 1
    await RisingEdge(dut.clk_i)
    while not int(dut.desc_ready_o.value):
        await RisingEdge(dut.clk_i)
    dut.desc_valid_i.value = 0
    dut.desc_i.value = 0


async def idle(dut: Any, limit: int = 100_000) -> int:
    """Wait until the unit is not busy; returns the cycles that took."""
    await RisingEdge(dut.clk_i)
    for cycle in range(limit):
        await RisingEdge(dut.clk_i)
        if not int(dut.busy_o.value):
            return cycle + 1
    raise AssertionError(f"busy for more than {limit} cycles")


def lengths(values: Sequence[int]) -> int:
    """The packed input `lengths_i`."""
    return sum(value << LENGTH_BITS * i for i, value in enumerate(values))


def progress(values: Mapping[str, int]) -> int:
    """The packed input `progress_i`."""
    return sum(values.get(unit, 0) << 32 * i for i, unit in enumerate(UNITS))
