"""Runs in the simulator, for test_faults: what goes wrong ends in a status code; a clean start after a reset is exact.

Every wait has a limit in cycles and every test one in simulated time: a hang is a failure.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import cocotb
import numpy as np

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import BYTES, HEADER, checksum
from intaglio.hw.iss import Simulator
from intaglio.hw.iss.random_program import random_program
from intaglio.hw.iss.routing import RoutingRecord, rows
from intaglio.simulation.cocotb_bench import (
    BUSY,
    DONE,
    ERROR,
    INTERRUPT_ENABLE,
    RESET,
    START,
    Bench,
    Outcome,
    open_bench,
)
from intaglio.simulation.frame import MINIMUM_BEATS, Job
from intaglio.simulation.memory import contents

CONFIG = PRESETS[os.environ["INTAGLIO_PRESET"]]
SEED = {"tiny": 84, "ecp5": 23}[os.environ["INTAGLIO_PRESET"]]
SCALE = int(os.environ.get("INTAGLIO_FAULTS", "1"))
"""How many times the usual number of random faults."""

WATCHDOG = 3000
LIMIT = 200_000
"""Cycles: many times those of the undisturbed run."""


@cache
def _job() -> tuple[Job, bytes]:
    """A program of all kinds of descriptors that the configuration has, with tasks and spilled words; its result."""
    program, weights, image = random_program(CONFIG, SEED, size=6)
    job = Job(CONFIG, program, weights, [image])
    return job, Simulator(CONFIG, program, weights).run(image)


class Victim:
    """The accelerator with the program loaded, and what may be asked of it."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.dut, self.host = bench, bench.dut, bench.host
        self.job, self.expected = _job()
        self.layout = self.job.placed()
        self.code = self.job.program.pack()[HEADER.size :]
        self.count = len(self.job.program.descriptors)
        self.before = contents(self.layout, self.code, self.job.weights, self.job.images)

    @classmethod
    async def open(cls) -> Victim:
        """Out of reset, memory loaded, registers set."""
        victim = cls(await open_bench())
        victim.dut.stall.value = 0
        await victim.bench.reset()
        await victim.restore()
        return victim

    async def restore(self) -> None:
        """Memory and registers as they were."""
        await self.bench.memory.write(0, self.before.tobytes())
        await self.setup()

    async def setup(self, *, program: int | None = None, count: int | None = None, task: int = 0) -> None:
        where = self.layout.program if program is None else program
        total = self.count if count is None else count
        await self.bench.setup(where, total, self.layout.weights, WATCHDOG, task)

    async def start(self) -> None:
        """Forget the result and start."""
        output = self.layout.outputs[0]
        await self.bench.memory.write(output, bytes(self.layout.size - output))
        await self.bench.start(self.layout.inputs[0], output)

    async def run(self) -> Outcome:
        await self.start()
        return await self.bench.finish(LIMIT)

    async def exact(self) -> None:
        """The run under way ends well, with every bit right, and wrote nothing else."""
        outcome = await self.bench.finish(LIMIT)
        assert outcome.status == 0, outcome
        after = await self.bench.memory.read(0, self.layout.size)
        output = self.layout.outputs[0]
        assert after[output : output + len(self.expected)] == self.expected
        assert after[:output] == self.before[:output].tobytes()

    async def clean(self) -> None:
        await self.start()
        await self.exact()

    async def recover(self) -> None:
        """After an error: a reset, and a run as if nothing had been."""
        await self.bench.reset()
        await self.clean()

    async def length(self) -> int:
        """Cycles of the undisturbed run."""
        outcome = await self.run()
        assert outcome.status == 0
        return outcome.counters["cycles"]

    async def put(self, index: int, words: list[int]) -> None:
        """Another descriptor in memory."""
        await self.bench.memory.write(self.layout.program + index * BYTES, struct.pack("<32I", *words))

    def words(self, index: int) -> list[int]:
        return list(struct.unpack_from("<32I", self.code, index * BYTES))


def _rng(number: int) -> np.random.Generator:
    return np.random.default_rng([SEED, number])


def _times(rng: np.random.Generator, count: int, end: int) -> Iterator[int]:
    """Cycles before `end`, few of them close to the start."""
    for number in range(count * SCALE):
        yield int(rng.integers(1, 40 if number % 4 == 0 else end))


_test = cocotb.test(timeout_time=400 * SCALE, timeout_unit="ms")


@_test
async def undisturbed(_: Any) -> None:
    victim = await Victim.open()
    for _again in range(2):
        await victim.clean()


@_test
async def read_error(_: Any) -> None:
    """Any burst: weights, constants, image or program."""
    victim = await Victim.open()
    before = int(victim.dut.reads.value)
    await victim.clean()
    bursts = int(victim.dut.reads.value) - before
    chosen = _rng(1).choice(bursts, min(bursts, 12 * SCALE), replace=False)
    for burst in {0, bursts - 1, *map(int, chosen)}:
        victim.dut.fault_read.value = int(victim.dut.reads.value) + burst
        assert (await victim.run()).status == 6
        victim.dut.fault_read.value = 0xFFFF_FFFF
        await victim.recover()


@_test
async def write_error(_: Any) -> None:
    victim = await Victim.open()
    before = int(victim.dut.writes.value)
    await victim.clean()
    bursts = int(victim.dut.writes.value) - before
    chosen = _rng(2).choice(bursts, min(bursts, 6 * SCALE), replace=False)
    for burst in {0, bursts - 1, *map(int, chosen)}:
        victim.dut.fault_write.value = int(victim.dut.writes.value) + burst
        assert (await victim.run()).status == 7
        victim.dut.fault_write.value = 0xFFFF_FFFF
        await victim.recover()


@_test
async def memory_pauses(_: Any) -> None:
    """A memory that stands still for less than the watchdog's time costs time, and nothing else."""
    victim = await Victim.open()
    rng = _rng(3)
    for when in _times(rng, 8, await victim.length()):
        await victim.start()
        await victim.bench.cycles(when)
        victim.dut.stall.value = 1
        await victim.bench.cycles(int(rng.integers(1, WATCHDOG - 500)))
        victim.dut.stall.value = 0
        await victim.exact()


@_test
async def memory_stops(_: Any) -> None:
    """For ever: the watchdog; the reset waits until what is in flight has come home."""
    victim = await Victim.open()
    for when in _times(_rng(4), 8, await victim.length() // 2):
        await victim.start()
        await victim.bench.cycles(when)
        victim.dut.stall.value = 1
        outcome = await victim.bench.finish(LIMIT)
        assert outcome.status == 8
        await victim.host.write("CONTROL", RESET | INTERRUPT_ENABLE)
        await victim.bench.cycles(1000)
        assert await victim.host.read("STATUS") & BUSY
        victim.dut.stall.value = 0
        await victim.recover()


@_test
async def flipped_bit(_: Any) -> None:
    """Every bit of some words of descriptors, some bits of the rest: the checksum finds it, and nothing later runs."""
    victim = await Victim.open()
    for number, (index, word, bit) in enumerate(_flips(victim.count)):
        words = victim.words(index)
        words[word] ^= 1 << bit
        await victim.put(index, words)
        outcome = await victim.run()
        assert (outcome.status, outcome.info) == (3, max(index - 1, 0)), (index, word, bit)
        await victim.put(index, victim.words(index))
        await (victim.recover() if number % 32 == 0 else victim.bench.reset())
    await victim.clean()


def _flips(count: int) -> Iterator[tuple[int, int, int]]:
    """Descriptor, word, bit."""
    rng = _rng(5)
    yield from ((0, word, bit) for word in (0, 9, 31) for bit in range(32))
    for _ in range(4 * SCALE):
        index = int(rng.integers(0, count))
        yield from ((index, word, int(rng.integers(0, 32))) for word in range(32))


@_test
async def forged_header(_: Any) -> None:
    """With a right checksum, version and index are checked by themselves, and an opcode that does not exist."""
    victim = await Victim.open()
    index = victim.count // 2
    for bit in range(32):
        words = victim.words(index)
        words[0] ^= 1 << bit
        if bit < 8:
            words[0] = words[0] & ~0xFF | 0x80 | bit
        await victim.put(index, _signed(words))
        outcome = await victim.run()
        assert (outcome.status, outcome.info) == (1 if bit < 8 else 2 if bit < 16 else 4, index - 1)
        await victim.put(index, victim.words(index))
        await victim.bench.reset()
    await victim.clean()


@_test
async def forged_field(_: Any) -> None:
    """A descriptor with other fields and a right checksum says something else: any end will do; then all is well.

    It may also say something that takes very long: what is not over in time must yield to a reset.
    """
    victim = await Victim.open()
    rng = _rng(6)
    seen: dict[int, int] = {}
    for _again in range(40 * SCALE):
        index = int(rng.integers(0, victim.count))
        words = victim.words(index)
        for _bit in range(int(rng.integers(1, 4))):
            words[int(rng.integers(1, 20))] ^= 1 << int(rng.integers(0, 32))
        await victim.put(index, _signed(words))
        status = await _any_end(victim)
        seen[status] = seen.get(status, 0) + 1
        await victim.bench.reset()
        await victim.restore()
        await victim.clean()
    assert set(seen) <= {-1, 0, 5, 6, 7, 8}
    cocotb.log.info("forged fields: %s", seen)


async def _any_end(victim: Victim) -> int:
    try:
        return (await victim.run()).status
    except TimeoutError:
        return -1


def _signed(words: list[int]) -> list[int]:
    return [*words[:31], checksum(words[:31])]


@_test
async def task_too_large(_: Any) -> None:
    """Found at the first load that has tasks; the register keeps what the host wrote."""
    victim = await Victim.open()
    program = victim.job.program
    first = next(index for index, d in enumerate(program.descriptors) if d["tasks"])
    for task in (program.tasks, 255, 256, 1 << 31):
        await victim.setup(task=task)
        outcome = await victim.run()
        assert (outcome.status, outcome.info) == (9, max(first - 1, 0))
        await victim.bench.reset()
        assert await victim.host.read("TASK") == task
        await victim.setup()
        await victim.clean()


@_test
async def load_of_an_expert(_: Any) -> None:
    """From beyond the memory: an error of the bus if a token chose the expert, else nothing."""
    victim = await Victim.open()
    job, record = victim.job, RoutingRecord()
    Simulator(CONFIG, job.program, job.weights).run(job.images[0], record)
    chosen = rows(job.program.descriptors, record.routings)
    loads = [i for i, d in enumerate(job.program.descriptors) if d["queue"] and d.kind.startswith("LOAD")]
    assert {bool(chosen[index]) for index in loads} == ({True, False} if CONFIG.experts else set())
    for index in loads:
        words = victim.words(index)
        words[8] = 0xFFFF_FFC0
        await victim.put(index, _signed(words))
        outcome = await victim.run()
        assert outcome.status == (6 if chosen[index] else 0), index
        await victim.put(index, victim.words(index))
        await victim.recover()


@_test
async def count_too_large(_: Any) -> None:
    """What follows the program in memory is no descriptor; what follows the memory is an error of the bus."""
    victim = await Victim.open()
    for more in (1, 2, 40, 100_000):
        await victim.setup(count=victim.count + more)
        outcome = await victim.run()
        assert outcome.status in (3, 6)
        assert more > 40 or (outcome.status, outcome.info) == (3, victim.count - 1)
        await victim.bench.reset()
    end = MINIMUM_BEATS * CONFIG.depth - len(victim.code)
    await victim.bench.memory.write(end, victim.code)
    await victim.setup(program=end, count=victim.count + 1)
    assert (await victim.run()).status == 6
    await victim.bench.reset()
    await victim.setup(program=end)
    await victim.clean()


@_test
async def wrong_address(_: Any) -> None:
    """Registers that point to no memory."""
    victim = await Victim.open()
    for name, status in (("PROGRAM", 6), ("WEIGHTS", 6), ("INPUT", 6), ("OUTPUT", 7)):
        await victim.start()
        await victim.bench.finish(LIMIT)
        await victim.host.address(name, 0xFF_0000_0000)
        await victim.host.write("CONTROL", START | INTERRUPT_ENABLE)
        assert (await victim.bench.finish(LIMIT)).status == status, name
        await victim.bench.reset()
        await victim.setup()
        await victim.clean()


@_test
async def truncated_program(_: Any) -> None:
    """Descriptors that were never loaded."""
    victim = await Victim.open()
    for index in (0, victim.count // 3, victim.count - 1):
        await victim.put(index, [0] * 32)
        assert (await victim.run()).status == 3
        await victim.put(index, victim.words(index))
        await victim.recover()


@_test
async def empty_program(_: Any) -> None:
    victim = await Victim.open()
    await victim.setup(count=0)
    assert (await victim.run()).status == 0
    await victim.setup()
    await victim.clean()


@_test
async def reset_in_mid_frame(_: Any) -> None:
    """At any cycle, with or without a second one, also together with a start, which it beats."""
    victim = await Victim.open()
    for number, when in enumerate(_times(_rng(7), 24, await victim.length())):
        await victim.start()
        await victim.bench.cycles(when)
        if number % 3 == 1:
            await victim.host.write("CONTROL", RESET | START | INTERRUPT_ENABLE)
        if number % 3 == 2:
            await victim.bench.reset()
        await victim.recover()


@_test
async def reset_with_slow_memory(_: Any) -> None:
    """Much in flight: the memory stands still around the reset."""
    victim = await Victim.open()
    rng = _rng(8)
    for when in _times(rng, 8, await victim.length()):
        await victim.start()
        await victim.bench.cycles(when)
        victim.dut.stall.value = 1
        await victim.bench.cycles(int(rng.integers(1, 60)))
        await victim.host.write("CONTROL", RESET | INTERRUPT_ENABLE)
        await victim.bench.cycles(int(rng.integers(1, 200)))
        victim.dut.stall.value = 0
        await victim.recover()


@_test
async def start_while_busy(_: Any) -> None:
    """Is ignored: one run, one interrupt, one result, counters not cleared."""
    victim = await Victim.open()
    length = await victim.length()
    for when in _times(_rng(9), 6, length - 100):
        await victim.start()
        await victim.bench.cycles(when)
        await victim.host.write("CONTROL", START | INTERRUPT_ENABLE)
        assert (await victim.host.counters())["cycles"] >= when
        await victim.exact()
        assert await victim.host.read("STATUS") == DONE


@_test
async def start_after_error(_: Any) -> None:
    """Is refused until the reset."""
    victim = await Victim.open()
    index = victim.count // 2
    await victim.put(index, [*victim.words(index)[:31], 0])
    outcome = await victim.run()
    assert (outcome.status, outcome.info) == (3, index - 1)
    await victim.put(index, victim.words(index))
    for _again in range(2):
        await victim.host.write("CONTROL", START | INTERRUPT_ENABLE)
        await victim.bench.cycles(1000)
        assert await victim.host.read("STATUS") == ERROR | 3 << 8
        assert await victim.host.counters() == outcome.counters
        assert not int(victim.dut.irq.value)
    await victim.recover()
