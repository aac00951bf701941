"""Runs in the simulator, for test_host_rtl: the generated driver on a bus that is the test bench."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge, resume
from cocotb.utils import get_sim_time

from intaglio.simulation.cocotb_bench import NS_PER_CYCLE, Bench, open_bench

FOLDER = Path(os.environ["INTAGLIO_HOST"])
"""Holds the driver, the artifact `build`, `images.npy` and the reference's `logits.npy`."""

FIRST = 1 << 14
"""Where the buffers begin."""


def _driver() -> Any:
    """The generated file as a module."""
    spec = importlib.util.spec_from_file_location("intaglio_pynq", FOLDER / "intaglio_pynq.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["intaglio_pynq"] = module
    spec.loader.exec_module(module)
    return module


DRIVER = _driver()


class BenchBuffer(DRIVER.Buffer):  # type: ignore[misc, name-defined]
    """A part of the simulated memory, reached through the back door."""

    def __init__(self, bench: Bench, address: int) -> None:
        self.address = address
        self.write_at, self.read_at = resume(bench.memory.write), resume(bench.memory.read)

    def write(self, data: bytes) -> None:
        self.write_at(self.address, data)

    def read(self, size: int) -> bytes:
        return bytes(self.read_at(self.address, size))


class BenchBus(DRIVER.Bus):  # type: ignore[misc, name-defined]
    """Registers through AXI4-Lite; seconds are simulated ones."""

    def __init__(self, bench: Bench, interrupt: bool) -> None:
        self.bench, self.interrupt, self.free = bench, interrupt, FIRST
        self.transfer = resume(bench.host.transfer)
        self.pause, self.until = resume(bench.cycles), resume(bench.interrupt)
        self.polls = 0

    def read(self, offset: int) -> int:
        return int(self.transfer(offset, False))

    def write(self, offset: int, value: int) -> None:
        self.transfer(offset, True, value)

    def allocate(self, size: int, alignment: int) -> BenchBuffer:
        address = -(-self.free // alignment) * alignment
        self.free = -(-(address + size) // 64) * 64
        return BenchBuffer(self.bench, address)

    def now(self) -> float:
        return float(get_sim_time("sec"))

    def wait(self, seconds: float) -> None:
        self.polls += 1
        cycles = max(1, round(seconds * 1e9 / NS_PER_CYCLE))
        if self.interrupt:
            self.until(cycles)
        else:
            self.pause(min(cycles, 5000))


async def _open(*, interrupt: bool, **options: Any) -> Any:
    """The driver with the model loaded."""
    bench = await open_bench()
    bench.dut.stall.value = 0
    bus = BenchBus(bench, interrupt)
    return await bridge(DRIVER.Accelerator)(bus, FOLDER / "build", **options)


async def _run(accelerator: Any, images: Any) -> Any:
    return await bridge(accelerator.run)(images)


async def _failure(accelerator: Any, images: Any) -> str:
    """The sentence with which a run fails."""
    try:
        await _run(accelerator, images)
    except DRIVER.AcceleratorError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


IMAGES = np.load(FOLDER / "images.npy")
LOGITS = np.load(FOLDER / "logits.npy")
_test = cocotb.test(timeout_time=20, timeout_unit="ms")


@_test
async def interrupt(_: Any) -> None:
    """Two images, waiting for the interrupt: the reference's logits, and counters of the second run."""
    accelerator = await _open(interrupt=True)
    assert np.array_equal(await _run(accelerator, IMAGES[:2]), LOGITS[:2])
    counters = await bridge(accelerator.counters)()
    assert list(counters) == list(DRIVER.COUNTERS)
    assert counters["write_beats_io"] * accelerator.bus.bench.memory.beat == accelerator.program.output_bytes
    assert 0 < counters["mac_steps"] < counters["cycles"]
    milliseconds = await bridge(accelerator.milliseconds)()
    assert milliseconds == counters["cycles"] / (DRIVER.CLOCK_MHZ * 1e3)
    assert accelerator.bus.polls == 2


@_test
async def polling(_: Any) -> None:
    """The same without the interrupt, which then stays low."""
    accelerator = await _open(interrupt=False)
    best = await bridge(accelerator.classify)(IMAGES[:1], 3)
    order = np.argsort(-LOGITS[0].reshape(-1).astype(np.int64), kind="stable")[:3]
    assert [number for number, _value in best[0]] == order.tolist()
    assert not int(accelerator.bus.bench.dut.irq.value)
    assert accelerator.bus.polls > 1


@_test
async def corrupted_program(_: Any) -> None:
    """A damaged descriptor ends the run with its sentence, and the driver is ready for the next one."""
    accelerator = await _open(interrupt=True)
    program, index = accelerator.program.descriptors, 5
    damaged = bytearray(program)
    damaged[index * DRIVER.DESCRIPTOR_BYTES + 40] ^= 0x10
    address = accelerator._program.address
    await accelerator.bus.bench.memory.write(address, bytes(damaged))
    assert await _failure(accelerator, IMAGES[:1]) == (
        "RunError: the accelerator stopped with error 3, descriptor checksum wrong, at descriptor 4."
    )
    await accelerator.bus.bench.memory.write(address, program)
    assert np.array_equal(await _run(accelerator, IMAGES[1:2]), LOGITS[1:2])


@_test
async def bus_error(_: Any) -> None:
    """An error of the external memory in mid-frame."""
    accelerator = await _open(interrupt=False)
    dut = accelerator.bus.bench.dut
    dut.fault_write.value = int(dut.writes.value)
    found = await _failure(accelerator, IMAGES[:1])
    count = accelerator.program.count
    assert found == (
        "RunError: the accelerator stopped with error 7, external memory answered a write with an error, "
        f"at descriptor {count - 1}."
    )
    dut.fault_write.value = 0xFFFF_FFFF
    assert np.array_equal(await _run(accelerator, IMAGES[:1]), LOGITS[:1])


@_test
async def watchdog(_: Any) -> None:
    """A memory that stands still: the watchdog stops the run, and the reset waits for the memory."""
    accelerator = await _open(interrupt=True, watchdog=2000, timeout=1e-3)
    dut = accelerator.bus.bench.dut
    dut.stall.value = 1
    found = await _failure(accelerator, IMAGES[:1])
    assert found == "RunTimeoutError: the accelerator did not leave its reset: STATUS reads 0x805."
    dut.stall.value = 0
    accelerator.timeout = 1.0
    await bridge(accelerator.reset)()
    assert np.array_equal(await _run(accelerator, IMAGES[:1]), LOGITS[:1])


@_test
async def timeout(_: Any) -> None:
    """An image that takes longer than the host has patience: stopped, and the next one is exact."""
    accelerator = await _open(interrupt=True, timeout=50e-6)
    found = await _failure(accelerator, IMAGES[:1])
    assert found == "RunTimeoutError: the accelerator did not finish in 5e-05 s: STATUS reads 0x1."
    accelerator.timeout = 1.0
    assert np.array_equal(await _run(accelerator, IMAGES[:1]), LOGITS[:1])
