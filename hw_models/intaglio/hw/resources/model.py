"""DSP, BRAM, URAM, LUT and FF of a configuration on a family of devices."""

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

FAMILIES = ("ultrascale+", "7-series", "ecp5")
"""Families as boards call them; `intaglio synthesize` knows the same."""


@dataclass(frozen=True)
class Resources:
    """Amounts of a device, counted as `intaglio synthesize --flow yosys` counts them; a RAMB18 is half a `bram36`."""

    dsp: int
    bram36: float
    uram: int
    lut: int
    ff: int


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


@cache
def bounds() -> dict[str, Any]:
    """Measured errors against Yosys: the largest of each resource by family, relative, and every configuration's.

    `bounds`: of the model; `unseen`: of fits that had not seen the configuration (LUT, FF).
    """
    return dict(json.loads(Path(__file__).with_name("validation.json").read_text(encoding="utf-8")))
