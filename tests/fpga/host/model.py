"""The accelerator as its host sees it: registers, memory, time. What it computes is a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from intaglio.accelerator import descriptors, registers
from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import ProgramFile

BASE = 0x8_1000_0000
"""Memory lies above 4 GiB, so that the high halves of addresses matter."""

Compute = Callable[[ProgramFile, bytes, bytes], bytes]
"""Program, weights, image -> result."""

REG = {name: offset for name, (offset, _, _) in registers.REGISTERS.items()}
TICK = 1e-6
"""Seconds that one register access takes."""


@dataclass
class Model:
    """Decodes the program that it finds in memory, and takes `duration` seconds per run.

    `fault`: (error code, descriptor index) of every run. `hang`: a run never ends, but for the watchdog.
    `stuck`: nor does a reset. `log`: every register access and every copy, in order. `images`, `tasks`: of every run.
    """

    config: AcceleratorConfig
    program: ProgramFile
    compute: Compute
    duration: float = 1e-3
    fault: tuple[int, int] | None = None
    hang: bool = False
    stuck: bool = False
    time: float = 0.0
    memory: bytearray = field(default_factory=lambda: bytearray(1 << 16))
    log: list[tuple[object, ...]] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = dict.fromkeys(REG.values(), 0)
        self.values[REG["MAGIC"]] = registers.MAGIC
        self.values[REG["VERSION"]] = descriptors.FORMAT_VERSION
        self.values[REG["CONFIG"]] = self.config.hash
        self.counters = dict.fromkeys(registers.COUNTERS, 0)
        self.used = 0
        self.end: float | None = None
        self.outcome: tuple[int, int, bytes] = (0, 0, b"")

    # --- what a bus does ---

    def read(self, offset: int) -> int:
        self._pass(TICK)
        index = (offset - registers.COUNTER_BASE) // 4
        value = list(self.counters.values())[index] if index >= 0 else self.values[offset]
        self.log.append(("read", offset))
        return value

    def write(self, offset: int, value: int) -> None:
        self._pass(TICK)
        self.log.append(("write", offset, value))
        assert 0 <= value < 1 << 32
        if offset == REG["CONTROL"]:
            self._control(value)
        elif offset == REG["INTERRUPT"]:
            self.values[offset] &= ~value
        else:
            assert registers_writable(offset), f"register {offset:#x} is read-only"
            self.values[offset] = value

    def allocate(self, size: int, alignment: int) -> int:
        start = -(-self.used // alignment) * alignment
        self.used = start + size
        assert self.used <= len(self.memory)
        self.log.append(("allocate", size, alignment))
        return BASE + start

    def store(self, address: int, data: bytes) -> None:
        assert address >= BASE
        assert address + len(data) <= BASE + len(self.memory)
        self.memory[address - BASE : address - BASE + len(data)] = data
        self.log.append(("store", address, data))

    def load(self, address: int, size: int) -> bytes:
        self.log.append(("load", address, size))
        return self._bytes(address, size)

    def wait(self, seconds: float, interrupt: bool) -> None:
        """`interrupt`: until the line is high; else a moment."""
        if not interrupt:
            self._pass(min(seconds, 50e-6))
        elif not self.values[REG["INTERRUPT"]]:
            left = seconds if self.end is None else min(seconds, self.end - self.time)
            self._pass(left)

    # --- what the accelerator does ---

    def _bytes(self, address: int, size: int) -> bytes:
        return bytes(self.memory[address - BASE : address - BASE + size])

    def _pass(self, seconds: float) -> None:
        self.time += seconds
        if self.end is not None and self.time >= self.end:
            self._finish()

    def _control(self, value: int) -> None:
        if value & 2:
            self.values[REG["STATUS"]] = 1 if self.stuck else 0
            self.end = None
        self.values[REG["CONTROL"]] = value & 4
        if value & 1:
            assert not self.values[REG["STATUS"]] & 5, "started while busy or stopped by an error"
            self.values[REG["STATUS"]] = 1
            self._run()

    def _run(self) -> None:
        self.outcome = self._execute()
        watchdog = self.values[REG["WATCHDOG"]]
        if not self.hang:
            self.end = self.time + self.duration
        elif watchdog:
            self.outcome = (8, 0, b"")
            self.end = self.time + watchdog / (self.config.clock_mhz * 1e6)

    def _execute(self) -> tuple[int, int, bytes]:
        """Error code, descriptor index, result."""
        if self.fault is not None:
            return (*self.fault, b"")
        loaded = []
        address = self._address("PROGRAM_LO", 128)
        for index in range(self.values[REG["PROGRAM_COUNT"]]):
            data = self._bytes(address + index * descriptors.BYTES, descriptors.BYTES)
            try:
                loaded.append(descriptors.decode(data))
            except ValueError as error:
                return (3 if "checksum" in str(error) else 1, index, b"")
        program = ProgramFile(
            self.config.hash,
            self.program.input_bytes,
            self.program.output_bytes,
            self.program.weight_bytes,
            loaded,
        )
        task = self.values[REG["TASK"]]
        several = [index for index, d in enumerate(loaded) if 0 < d["tasks"] <= task]
        if several:
            return (9, several[0], b"")
        weights = self._bytes(self._address("WEIGHTS_LO", 4096), program.weight_bytes)
        image = self._bytes(self._address("INPUT_LO", 64), program.input_bytes)
        self.images.append(image)
        self.tasks.append(task)
        return 0, 0, self.compute(program, weights, image)

    def _address(self, name: str, alignment: int) -> int:
        address = self.values[REG[name]] | self.values[REG[name] + 4] << 32
        assert address % alignment == 0, f"{name} is not aligned to {alignment}"
        return address

    def _finish(self) -> None:
        code, index, result = self.outcome
        self.end = None
        self.values[REG["STATUS"]] = code << 8 | 4 if code else 2
        self.values[REG["ERROR_INFO"]] = index
        self.values[REG["INTERRUPT"]] |= self.values[REG["CONTROL"]] >> 2
        address = self._address("OUTPUT_LO", 64) - BASE
        self.memory[address : address + len(result)] = result
        self.counters = {name: number + 1 for number, name in enumerate(registers.COUNTERS)}
        self.counters["cycles"] = round(self.duration * self.config.clock_mhz * 1e6)


def registers_writable(offset: int) -> bool:
    """Whether the register map says so."""
    return next(mode for at, mode, _ in registers.REGISTERS.values() if at == offset) != "r"
