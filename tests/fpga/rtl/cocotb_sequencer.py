"""sequencer between a read engine of Python and units of Python."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor, decode, encode
from intaglio.hw.iss.random_program import random_program

CONFIG = PRESETS[os.environ["PRESET"]]
D = CONFIG.depth
BASE = 0xAB_0000_0080
STALLS = {"none": (0.0, 0.0), "idle": (0.6, 0.0), "back-pressure": (0.0, 0.8), "both": (0.5, 0.7)}
TABLE = Descriptor("LOAD_TABLE", {})


class Bench:
    """The sequencer; `got`: what each unit has taken."""

    def __init__(self, dut: Any, stall: str = "none") -> None:
        self.dut, self.rng = dut, random.Random(len(stall))
        self.silent, self.busy = STALLS[stall]
        self.memory = b""
        self.queue: deque[bytes] = deque()
        self.got: list[list[bytes]] = [[] for _ in UNITS]
        self.takes = [True] * 5

    async def begin(self) -> None:
        dut = self.dut
        cocotb.start_soon(Clock(dut.clk_i, 2, "ns").start())
        for name in ("start", "cmd_ready", "valid", "data", "desc_ready"):
            getattr(dut, f"{name}_i").value = 0
        dut.program_base_i.value = BASE
        dut.task_i.value = 0
        await self.reset()
        cocotb.start_soon(self._run())

    async def reset(self) -> None:
        self.dut.rst_i.value = 1
        for _ in range(3):
            await RisingEdge(self.dut.clk_i)
        self.queue.clear()
        self.got = [[] for _ in UNITS]
        self.dut.rst_i.value = 0
        await RisingEdge(self.dut.clk_i)

    async def _run(self) -> None:
        dut, rng, ready, shown, takes = self.dut, self.rng, False, False, 0
        while True:
            await RisingEdge(dut.clk_i)
            if int(dut.rst_i.value):
                shown = ready = False
            if ready and int(dut.cmd_valid_o.value):
                addr, beats = int(dut.cmd_addr_o.value) - BASE, int(dut.cmd_beats_o.value)
                assert addr + beats * D <= len(self.memory)
                self.queue.extend(self.memory[addr + i * D : addr + (i + 1) * D] for i in range(beats))
            if shown and int(dut.ready_o.value):
                self.queue.popleft()
                shown = False
            taken = takes & int(dut.desc_valid_o.value)
            if taken:
                descs = int(dut.desc_o.value)
                for u in range(5):
                    if taken >> u & 1:
                        self.got[u].append(((descs >> 1024 * u) % (1 << 1024)).to_bytes(128, "little"))
            shown = bool(self.queue) and (shown or rng.random() >= self.silent)
            ready = rng.random() >= self.silent
            takes = sum(int(self.takes[u] and rng.random() >= self.busy) << u for u in range(5))
            dut.cmd_ready_i.value = int(ready)
            dut.valid_i.value = int(shown)
            dut.data_i.value = int.from_bytes(self.queue[0] if shown else rng.randbytes(D), "little")
            dut.desc_ready_i.value = takes

    async def start(self, program: Sequence[bytes]) -> None:
        self.memory = b"".join(program)
        self.dut.program_count_i.value = len(program)
        self.dut.start_i.value = 1
        await RisingEdge(self.dut.clk_i)
        self.dut.start_i.value = 0
        await RisingEdge(self.dut.clk_i)

    async def cycles(self, count: int) -> None:
        for _ in range(count):
            await RisingEdge(self.dut.clk_i)

    async def finish(self, limit: int = 60_000) -> int:
        """Wait until all is taken; returns cycles."""
        dut = self.dut
        for cycle in range(limit):
            await RisingEdge(dut.clk_i)
            assert not int(dut.error_o.value), int(dut.error_code_o.value)
            if int(dut.all_dispatched_o.value) and int(dut.fifos_empty_o.value):
                return cycle
        raise AssertionError(f"not finished after {limit} cycles")


def program_of(*descriptors: Descriptor) -> list[bytes]:
    return [encode(d, i) for i, d in enumerate(descriptors)]


def seen(data: bytes, unit: str, task: int = 0) -> bytes:
    """A descriptor as its unit gets it: with the task's offset; 0 behind the last field of all the unit's kinds."""
    fields = [entry for kind in BY_NAME.values() if kind.unit == unit for entry in kind.fields]
    size = 4 * max(entry.word + (2 if entry.width > 32 else 1) for entry in fields)
    d = decode(data)
    if d["tasks"]:
        offset = (d["offset"] + task * d["select"] * 64) % (1 << 32)
        data = data[:32] + offset.to_bytes(4, "little") + data[36:]
    return data[:size] + bytes(128 - size)


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS))
async def every_unit_gets_its_own_in_order(dut: Any, stall: str) -> None:
    """Two legal programs, one after the other."""
    bench = Bench(dut, stall)
    await bench.begin()
    for seed in (1, 2):
        file = random_program(CONFIG, seed, size=3)[0]
        descriptors = file.descriptors
        program = program_of(*descriptors)
        task = file.tasks - 1
        dut.task_i.value = task
        bench.got = [[] for _ in UNITS]
        await bench.start(program)
        assert not int(dut.all_dispatched_o.value)
        await bench.finish()
        for u, unit in enumerate(UNITS):
            units = [BY_NAME[d.kind].unit for d in descriptors]
            assert bench.got[u] == [
                seen(data, unit, task) for data, its in zip(program, units, strict=True) if its == unit
            ]
        assert int(dut.last_index_o.value) == len(program) - 1


@cocotb.test()
async def a_unit_may_lag_by_eight(dut: Any) -> None:
    """Eight descriptors of a unit that takes none do not hold up the others; many more do."""
    bench = Bench(dut)
    await bench.begin()
    bench.takes[UNITS.index("io")] = False
    norm = Descriptor("LOAD_WEIGHTS", {"entries": 1})
    await bench.start(program_of(*[TABLE] * 8, norm, *[TABLE] * 8, norm))
    await bench.cycles(1500)
    assert len(bench.got[0]) == 1
    assert not int(dut.all_dispatched_o.value)
    assert not int(dut.fifos_empty_o.value)
    assert 8 <= int(dut.last_index_o.value) <= 12
    bench.takes[UNITS.index("io")] = True
    await bench.finish()
    assert [len(got) for got in bench.got] == [2, 16, 0, 0, 0]


@cocotb.test()
async def no_descriptors(dut: Any) -> None:
    bench = Bench(dut)
    await bench.begin()
    await bench.start([])
    assert await bench.finish() == 0


@cocotb.test()
async def every_task_has_its_block(dut: Any) -> None:
    """Offsets of loads that have tasks, and of no others; a task too many is an error."""
    bench = Bench(dut)
    await bench.begin()
    rng, tasks = bench.rng, 5
    loads = []
    for _ in range(12):
        select = rng.getrandbits(rng.randint(1, 22))
        fields = {"offset": 64 * rng.getrandbits(20), "tasks": rng.choice([0, tasks]), "select": select}
        kind, count = rng.choice([("LOAD_WEIGHTS", "entries"), ("LOAD_PARAMS", "groups")])
        loads.append(Descriptor(kind, {**fields, count: rng.randint(1, 9)}))
        loads.append(TABLE)
    program = program_of(*loads)
    for task in range(tasks):
        dut.task_i.value = task
        bench.got = [[] for _ in UNITS]
        await bench.start(program)
        await bench.finish()
        for unit in ("dm", "io"):
            mine = [data for d, data in zip(loads, program, strict=True) if BY_NAME[d.kind].unit == unit]
            assert bench.got[UNITS.index(unit)] == [seen(data, unit, task) for data in mine]
    dut.task_i.value = tasks
    await bench.start(program)
    await bench.cycles(600)
    assert int(dut.error_code_o.value) == 9
    await bench.reset()


@cocotb.test()
async def stops_at_the_first_error(dut: Any) -> None:
    bench = Bench(dut)
    await bench.begin()
    good = program_of(*[TABLE] * 6)
    wrong = {
        1: encode(TABLE, 3).replace(b"\x12", b"\x77", 1),
        2: encode(TABLE, 3).replace(b"\x01", b"\x02", 1),
        3: encode(TABLE, 3)[:-1] + b"\x00",
        4: encode(TABLE, 2),
        5: encode(Descriptor("LOAD_TABLE", {"offset": 8}), 3),
    }
    for code, data in wrong.items():
        if code in (1, 2):
            words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, 124, 4)]
            data = data[:124] + (~sum(words) & 0xFFFFFFFF).to_bytes(4, "little")
        await bench.start([*good[:3], data, *good[4:]])
        await bench.cycles(600)
        assert int(dut.error_o.value), code
        assert int(dut.error_code_o.value) == code
        assert int(dut.last_index_o.value) == 2
        assert bench.got[UNITS.index("io")] == [seen(data, "io") for data in good[:3]]
        await bench.start(good)
        await bench.cycles(300)
        assert int(dut.error_o.value), "nothing but a reset leaves this state"
        await bench.reset()
        assert not int(dut.error_o.value)
        await bench.start(good)
        await bench.finish()
        await bench.reset()


@cocotb.test()
async def every_bit_is_checked(dut: Any) -> None:
    """A flipped bit anywhere is noticed."""
    bench = Bench(dut)
    await bench.begin()
    good = bytearray(encode(TABLE, 0))
    for bit in bench.rng.sample(range(1024), 40):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        await bench.start([bytes(bad)])
        await bench.cycles(80)
        assert int(dut.error_code_o.value) == 3, bit
        await bench.reset()


@cocotb.test()
async def dispatch_is_fast(dut: Any) -> None:
    """At most 64 cycles a descriptor."""
    bench = Bench(dut)
    await bench.begin()
    attention = Descriptor(
        "ATTENTION",
        {"heads": 1, "qk_steps": 1, "keys": 8, "rows": 4, "v_words": 1, "score_shift": 1, "shift": 1},
    )
    await bench.start(program_of(*[attention] * 20))
    assert await bench.finish() <= 20 * 64
