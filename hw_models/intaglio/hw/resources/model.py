"""DSP, BRAM, URAM, LUT and FF of a configuration on a family of devices, and what a board lacks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.errors import InputError
from intaglio.hw.resources.fabric import fabric
from intaglio.hw.resources.memories import mapped, memories
from intaglio.hw.resources.multipliers import multipliers
from intaglio.target import FpgaTarget

FAMILIES = ("ultrascale+", "7-series", "ecp5")
"""Families as boards call them; `intaglio synthesize` knows the same."""

BOARD = {"dsp": "dsps", "bram36": "bram36", "uram": "urams", "lut": "luts", "ff": "ffs"}
"""Names in a board's file."""


@dataclass(frozen=True)
class Resources:
    """Amounts of a device, counted as `intaglio synthesize --flow yosys` counts them; a RAMB18 is half a `bram36`."""

    dsp: int
    bram36: float
    uram: int
    lut: int
    ff: int


@dataclass(frozen=True)
class Excess:
    """One resource of which a board has too little: name as in Resources."""

    name: str
    used: float
    available: int

    @property
    def by(self) -> float:
        return self.used - self.available

    def __str__(self) -> str:
        return f"{self.name}: {self.used:,g} of {self.available:,} ({self.by:,g} too many)"


def estimate_resources(config: AcceleratorConfig, family: str, *, uram: bool = False) -> Resources:
    """What Yosys would count for `config` on `family` ("ultrascale+", "7-series", "ecp5"); `uram`: it has UltraRAM.

    DSP and BRAM come from the structure, LUT and FF from fitted coefficients; `bounds` says how well.
    Raises InputError for a family that is not known, or that lacks the configuration's multipliers.
    """
    _check(config, family)
    held = [(memory, mapped(memory, family, uram)) for memory in memories(config)]
    logic, ff = fabric(config, family, held)
    bram = sum(memory.number * cells.bram36 for memory, cells in held)
    ultra = sum(memory.number * cells.uram for memory, cells in held)
    lutram = sum(memory.number * cells.lut for memory, cells in held)
    return Resources(multipliers(config, family), bram, ultra, logic + lutram, ff)


def _check(config: AcceleratorConfig, family: str) -> None:
    if family not in FAMILIES:
        raise InputError(
            f"resources: the family {family!r} is not known to Yosys; known are {', '.join(FAMILIES)}."
        )
    if config.multiplier == "dsp48e2" and family != "ultrascale+":
        raise InputError(
            f"resources: multiplier 'dsp48e2' exists on ultrascale+ only, not on {family}; set it to 'generic'."
        )


def fits(config: AcceleratorConfig, target: FpgaTarget) -> list[Excess]:
    """What the board of `target` has too little of for `config`; empty if it fits. Unknown amounts count as enough."""
    board = target.board
    used = estimate_resources(config, board.family, uram=bool(board.urams))
    amounts = {name: (getattr(used, name), getattr(board, key)) for name, key in BOARD.items()}
    return [Excess(name, n, have) for name, (n, have) in amounts.items() if have is not None and n > have]


@cache
def bounds() -> dict[str, Any]:
    """Measured errors of the model against Yosys: largest relative error of each resource, and the configurations."""
    return dict(json.loads(Path(__file__).with_name("validation.json").read_text(encoding="utf-8")))
