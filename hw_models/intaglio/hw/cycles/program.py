"""What the model must know of every kind of descriptor: rows, products, progress, steps of its check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor

CHECK_STEPS: Mapping[str, int] = {
    "LOAD_WEIGHTS": 1,
    "LOAD_PARAMS": 1,
    "LOAD_NORM": 1,
    "LOAD_TABLE": 1,
    "LOAD_ROWS": 1,
    "LOAD_IMAGE": 4,
    "STORE": 1,
    "COPY_KV": 4,
    "GEMM": 6,
    "ATTENTION": 10,
    "LAYERNORM": 3,
}
"""descriptor_check.sv: steps of four cycles, by kind; GEMM has one more with a residual."""


def check_steps(d: Descriptor) -> int:
    """Steps that the sequencer's check of a descriptor takes."""
    return CHECK_STEPS[d.kind] + (1 if d.kind == "GEMM" and d["residual"] else 0)


@dataclass(frozen=True)
class Job:
    """A descriptor as its unit sees it: position in the program and in the unit's queue."""

    index: int
    place: int
    d: Descriptor
    rows: int
    waits: tuple[tuple[int, int, int], ...]
    """Unit, base, step."""

    def tiles(self, config: AcceleratorConfig) -> int:
        """Row tiles."""
        return -(-self.rows // config.rows)


def rows_of(d: Descriptor) -> int:
    """Rows that a descriptor works on."""
    return d["rows"]


def jobs(descriptors: Sequence[Descriptor]) -> list[list[Job]]:
    """Descriptors by unit, in order."""
    found: list[list[Job]] = [[] for _ in UNITS]
    for index, d in enumerate(descriptors):
        unit = UNITS.index(BY_NAME[d.kind].unit)
        waits = tuple(
            (UNITS.index(name), base, step) for name, (base, step) in d.waits.items() if base or step
        )
        found[unit].append(Job(index, len(found[unit]), d, rows_of(d), waits))
    return found


def macs(d: Descriptor, rows: int, config: AcceleratorConfig) -> int:
    """Products of valid rows, keys and channels, each counted once, as `simulate` reports them."""
    if d.kind == "GEMM":
        return rows * d["groups"] * config.group * d["k_steps"] * config.depth
    if d.kind == "ATTENTION":
        return d["heads"] * rows * d["keys"] * (d["qk_steps"] + d["v_words"]) * config.depth
    return 0
