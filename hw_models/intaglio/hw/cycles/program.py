"""What the model must know of every kind of descriptor: rows, products, progress, steps of its check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor
from intaglio.errors import InputError

BLOCK = 64
"""Bytes: what a task adds to an offset is in units of them."""

CHECK_STEPS: Mapping[str, int] = {
    "LOAD_WEIGHTS": 1,
    "LOAD_PARAMS": 1,
    "LOAD_NORM": 1,
    "LOAD_TABLE": 1,
    "LOAD_ROWS": 1,
    "LOAD_IMAGE": 4,
    "STORE": 1,
    "COPY_KV": 4,
    "ROUTE": 1,
    "MOVE_ROWS": 3,
    "GEMM": 6,
    "ATTENTION": 10,
    "COMBINE": 3,
    "LAYERNORM": 3,
}
"""descriptor_check.sv: steps of four cycles, by kind; one more for a residual, and for a block of several tasks."""


def check_steps(d: Descriptor) -> int:
    """Steps that the sequencer's check of a descriptor takes."""
    return CHECK_STEPS[d.kind] + (1 if d["residual"] or d["tasks"] else 0)


@dataclass(frozen=True)
class Job:
    """A descriptor as its unit sees it: position in the program and in the unit's queue."""

    index: int
    place: int
    d: Descriptor
    rows: int
    waits: tuple[tuple[int, int, int], ...]
    """Unit, base, step."""

    @property
    def skipped(self) -> bool:
        """Whether it does nothing, as no token chose its expert."""
        return self.d["queue"] > 0 and not self.rows

    def tiles(self, config: AcceleratorConfig) -> int:
        """Row tiles."""
        return -(-self.rows // config.rows)


Tokens = Sequence[int]
"""What a ROUTE does: how many tokens choose each expert."""


def rows_of(d: Descriptor, tokens: Tokens | None) -> int:
    """Rows that a descriptor works on; `tokens`: of the last ROUTE. Raises InputError if they are missing."""
    if not d["queue"]:
        return d["rows"]
    if tokens is None:
        raise InputError(
            f"the rows of a {d.kind} depend on how many tokens choose expert {d['queue'] - 1}: "
            "the cycle model needs a routing."
        )
    return tokens[d["queue"] - 1]


def jobs(descriptors: Sequence[Descriptor], routing: Sequence[Tokens], task: int = 0) -> list[list[Job]]:
    """Descriptors by unit, in order; `routing`: of every ROUTE. Blocks of several tasks are those of `task`.

    Raises InputError if there is no such task, or if the routing is missing.
    """
    tasks = min((d["tasks"] for d in descriptors if d["tasks"]), default=1)
    if not 0 <= task < tasks:
        raise InputError(f"the task must be in 0..{tasks - 1}, not {task}.")
    found: list[list[Job]] = [[] for _ in UNITS]
    tokens, following = None, iter(routing)
    for index, plain in enumerate(descriptors):
        d = _of_task(plain, task)
        if d.kind == "ROUTE":
            tokens = next(following, None)
        unit = UNITS.index(BY_NAME[d.kind].unit)
        waits = tuple(
            (UNITS.index(name), base, step) for name, (base, step) in d.waits.items() if base or step
        )
        found[unit].append(Job(index, len(found[unit]), d, rows_of(d, tokens), waits))
    return found


def _of_task(d: Descriptor, task: int) -> Descriptor:
    """A load as its unit sees it: the sequencer has chosen the block."""
    if not d["tasks"]:
        return d
    return replace(d, fields={**d.fields, "offset": d["offset"] + task * d["select"] * BLOCK})


def macs(d: Descriptor, rows: int, config: AcceleratorConfig) -> int:
    """Products of valid rows, keys and channels, each counted once, as `simulate` reports them."""
    if d.kind == "GEMM":
        return rows * d["groups"] * config.group * d["k_steps"] * config.depth
    if d.kind == "ATTENTION":
        return d["heads"] * rows * d["keys"] * (d["qk_steps"] + d["v_words"]) * config.depth
    return 0
