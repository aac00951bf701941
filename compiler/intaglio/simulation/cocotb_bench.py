"""The cocotb side of the whole accelerator: registers, memory through the back door, runs with a time limit.

Python wakes only for the host's transfers and at the end of runs; everything that happens per cycle is SystemVerilog.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, First, RisingEdge, Timer

from intaglio.accelerator.registers import COUNTER_BASE, COUNTERS, REGISTERS
from intaglio.simulation.memory import read_hex, write_hex

NS_PER_CYCLE = 10
START, RESET, INTERRUPT_ENABLE = 1, 2, 4
BUSY, DONE, ERROR = 1, 2, 4


class Host:
    """Register access through the test bench's AXI4-Lite host."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut

    async def transfer(self, address: int, write: bool, value: int = 0) -> int:
        """One transfer at a byte address; what was read."""
        self.dut.host_addr.value = address
        self.dut.host_write.value = int(write)
        self.dut.host_wdata.value = value
        self.dut.host_req.value = 1
        await RisingEdge(self.dut.host_ack)
        result = int(self.dut.host_rdata.value)
        self.dut.host_req.value = 0
        await FallingEdge(self.dut.host_ack)
        return result

    async def write(self, name: str, value: int) -> None:
        await self.transfer(REGISTERS[name][0], True, value)

    async def read(self, name: str) -> int:
        return await self.transfer(REGISTERS[name][0], False)

    async def address(self, name: str, value: int) -> None:
        await self.write(f"{name}_LO", value & 0xFFFFFFFF)
        await self.write(f"{name}_HI", value >> 32)

    async def counters(self) -> dict[str, int]:
        pairs = [(name, COUNTER_BASE + 4 * i) for i, name in enumerate(COUNTERS)]
        return {name: await self.transfer(offset, False) for name, offset in pairs}


class Memory:
    """The simulated external memory from behind: no AXI, no time but one cycle. Addresses are multiples of a beat."""

    def __init__(self, dut: Any, folder: Path, beat: int) -> None:
        self.dut, self.folder, self.beat = dut, folder, beat

    async def write(self, address: int, data: bytes) -> None:
        """Put `data` at a byte address; the rest of its last beat becomes 0."""
        padded = np.zeros(-(-len(data) // self.beat) * self.beat, np.uint8)
        padded[: len(data)] = np.frombuffer(data, np.uint8)
        write_hex(padded, self.folder / "load.hex", self.beat, address)
        await self._request(self.dut.load, self.dut.loaded)

    async def load(self, path: Path) -> None:
        """Put what a file of `write_hex` holds where it says."""
        (self.folder / "load.hex").unlink(missing_ok=True)
        (self.folder / "load.hex").symlink_to(path)
        await self._request(self.dut.load, self.dut.loaded)

    async def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a byte address."""
        self.dut.dump_from.value = address // self.beat
        self.dut.dump_to.value = (address + max(size, 1) - 1) // self.beat
        await self._request(self.dut.dump, self.dut.dumped)
        return read_hex(self.folder / "dump.hex", self.beat)[:size]

    async def _request(self, ask: Any, answer: Any) -> None:
        ask.value = 1
        await RisingEdge(answer)
        ask.value = 0
        await FallingEdge(answer)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `status`: the error code, 0 if it finished; `begin`: the cycle of its start."""

    status: int
    info: int
    counters: dict[str, int]
    begin: int


class Bench:
    """The accelerator under test. `frame.run_module` sets the environment that this reads."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.host = Host(dut)
        self.folder = Path(os.environ["INTAGLIO_BENCH"])
        self.memory = Memory(dut, self.folder, int(os.environ["INTAGLIO_BEAT"]))

    async def ready(self) -> None:
        """Wait for the end of the reset."""
        if not int(self.dut.ready.value):
            await RisingEdge(self.dut.ready)

    async def cycles(self, count: int) -> None:
        await Timer(count * NS_PER_CYCLE, "ns")

    async def setup(self, program: int, count: int, weights: int, watchdog: int, task: int = 0) -> None:
        """What stays the same from run to run."""
        await self.host.write("TASK", task)
        await self.host.address("PROGRAM", program)
        await self.host.write("PROGRAM_COUNT", count)
        await self.host.address("WEIGHTS", weights)
        await self.host.write("WATCHDOG", watchdog)
        await self.host.write("CONTROL", INTERRUPT_ENABLE)

    async def run(self, image: int, output: int, limit: int) -> Outcome:
        """One run from start to interrupt. Raises TimeoutError after `limit` cycles."""
        begin = await self.start(image, output)
        return await self.finish(limit, begin)

    async def start(self, image: int, output: int) -> int:
        """Start a run; the cycle of the start."""
        await self.host.address("INPUT", image)
        await self.host.address("OUTPUT", output)
        begin = int(self.dut.cycle.value)
        await self.host.write("CONTROL", START | INTERRUPT_ENABLE)
        return begin

    async def finish(self, limit: int, begin: int = 0) -> Outcome:
        """Wait for the interrupt and clear it. Raises TimeoutError after `limit` cycles."""
        await self.interrupt(limit)
        if not int(self.dut.irq.value):
            raise TimeoutError(
                f"no interrupt in {limit} cycles; STATUS reads {await self.host.read('STATUS'):#x}."
            )
        status = await self.host.read("STATUS")
        counters = await self.host.counters()
        info = await self.host.read("ERROR_INFO")
        await self.host.write("INTERRUPT", 1)
        return Outcome(code(status), info, counters, begin)

    async def interrupt(self, limit: int) -> None:
        """Wait until the interrupt is high, at most `limit` cycles."""
        if not int(self.dut.irq.value):
            await First(RisingEdge(self.dut.irq), Timer(limit * NS_PER_CYCLE, "ns"))

    async def reset(self, limit: int = 10_000) -> None:
        """A soft reset to its end. Raises TimeoutError if it is not over after `limit` cycles."""
        await self.host.write("CONTROL", RESET | INTERRUPT_ENABLE)
        end = int(self.dut.cycle.value) + limit
        while (status := await self.host.read("STATUS")) & BUSY:
            if int(self.dut.cycle.value) > end:
                raise TimeoutError(f"no end of the reset in {limit} cycles; STATUS reads {status:#x}.")
        if status:
            raise AssertionError(f"STATUS reads {status:#x} after a soft reset, not 0.")


def code(status: int) -> int:
    """The error code of a run that is over. Raises AssertionError if STATUS says anything but done or error."""
    if status & BUSY or (status & DONE != 0) == (status & ERROR != 0):
        raise AssertionError(f"STATUS reads {status:#x} at the interrupt.")
    return status >> 8 & 0xFF


async def open_bench() -> Bench:
    """The bench, out of reset."""
    bench = Bench(cocotb.top)
    await bench.ready()
    return bench
