"""What the model must know of every kind of descriptor: rows, products, progress, steps of its check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor
from intaglio.errors import InputError

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


def jobs(descriptors: Sequence[Descriptor], routing: Sequence[Tokens]) -> list[list[Job]]:
    """Descriptors by unit, in order; `routing`: of every ROUTE. Raises InputError for a kind without a model."""
    found: list[list[Job]] = [[] for _ in UNITS]
    tokens, following = None, iter(routing)
    for index, d in enumerate(descriptors):
        if d.kind not in CHECK_STEPS:
            raise InputError(f"descriptor {index}: the cycle model does not know {d.kind} yet.")
        if d.kind == "ROUTE":
            tokens = next(following, None)
        unit = UNITS.index(BY_NAME[d.kind].unit)
        waits = tuple(
            (UNITS.index(name), base, step) for name, (base, step) in d.waits.items() if base or step
        )
        found[unit].append(Job(index, len(found[unit]), d, rows_of(d, tokens), waits))
    return found


def macs(d: Descriptor, rows: int, config: AcceleratorConfig) -> int:
    """Products of valid rows, keys and channels, each counted once, as `simulate` reports them."""
    if d.kind == "GEMM":
        return rows * d["groups"] * config.group * d["k_steps"] * config.depth
    if d.kind == "ATTENTION":
        return d["heads"] * rows * d["keys"] * (d["qk_steps"] + d["v_words"]) * config.depth
    return 0
