"""The simulator: a program and its weights, run on images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS, Descriptor, ProgramFile
from intaglio.hw.iss.check import check_program
from intaglio.hw.iss.errors import FaultError, IssError, blame
from intaglio.hw.iss.interleave import Interleaving
from intaglio.hw.iss.kernels import KERNELS
from intaglio.hw.iss.machine import Machine
from intaglio.hw.iss.memory import Memories
from intaglio.hw.iss.schedule import Schedule

Trace = Callable[[int, Descriptor, Memories], None]
"""Called when a descriptor has completed: its index, itself, the memories as they are then."""


class Simulator:
    """Executes `program` with the values of docs/accelerator.md.

    `weights`: contents of weights.bin. Raises IssError where descriptor fields or files break the contract; what
    only running shows, `run` raises. What is unpacked from `weights` is kept between runs; memories are not: every
    run starts with nothing written.
    """

    def __init__(self, config: AcceleratorConfig, program: ProgramFile, weights: bytes) -> None:
        check_program(config, program, len(weights))
        self.config, self.program, self.weights = config, program, weights
        self._cache: dict[tuple[int, str], Any] = {}

    def run(
        self,
        image: bytes,
        trace: Trace | None = None,
        order: Literal["program", "random"] = "program",
        seed: int = 0,
        task: int = 0,
    ) -> bytes:
        """The result, `program.result_bytes` bytes (0 where nothing is stored), of one image, for `task`.

        `order="program"` always goes on with the earliest descriptor that can, and completes each step at once.
        `order="random"` interleaves the units at random by `seed`, starts from memories full of noise, and detects
        races.
        """
        if len(image) != self.program.input_bytes:
            raise IssError(
                f"the image has {len(image)} bytes, not the {self.program.input_bytes} of the program."
            )
        if order not in ("program", "random"):
            raise ValueError(f"order must be program or random, not {order!r}.")
        if not 0 <= task < self.program.tasks:
            raise IssError(f"task must be in 0..{self.program.tasks - 1}, not {task}.")
        memories = Memories(self.config, self.program.output_bytes)
        machine = Machine(self.config, memories, self.weights, image, self._cache, task)
        schedule = Schedule(self.config, self.program)

        def finished(index: int) -> None:
            if trace:
                trace(index, self.program.descriptors[index], memories)

        if order == "random":
            Interleaving(machine, schedule, seed, finished).run()
        else:
            _run_in_order(machine, schedule, finished)
        return memories.output.data.tobytes()[: self.program.result_bytes]


def _run_in_order(machine: Machine, schedule: Schedule, finished: Callable[[int], None]) -> None:
    while not schedule.empty():
        unit, steps = _choose(schedule)
        head = schedule.head(unit)
        assert head is not None
        index, d = head
        low = schedule.step[unit]
        try:
            writes = KERNELS[d.kind](machine, index, d, low, low + steps)
        except FaultError as fault:
            raise blame(index, d.kind, fault) from None
        machine.memories.apply(writes)
        schedule.complete(unit, steps)
        if schedule.issue(unit, steps):
            finished(index)


def _choose(schedule: Schedule) -> tuple[str, int]:
    """The unit whose next descriptor is the first in the program that can go on, and how many steps it can."""
    options = []
    for unit in UNITS:
        head, steps = schedule.head(unit), schedule.ready(unit)
        if head and steps:
            options.append((head[0], unit, steps))
    if not options:
        raise schedule.deadlock()
    _, unit, steps = min(options)
    return unit, steps


def dump_to(folder: Path) -> Trace:
    """A trace that saves all memories after every descriptor: `<folder>/<index>-<KIND>.npz` (`Memories.dump`)."""
    folder.mkdir(parents=True, exist_ok=True)

    def save(index: int, d: Descriptor, memories: Memories) -> None:
        np.savez(folder / f"{index:05d}-{d.kind}.npz", **memories.dump())  # type: ignore[arg-type]

    return save
