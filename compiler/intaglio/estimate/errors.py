"""How wrong the models may be, as it was measured."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import intaglio.hw.cycles
from intaglio.hw.energy import calibrate
from intaglio.simulation.frame import MemoryModel

VALIDATION = Path(intaglio.hw.cycles.__file__).parent / "validation.json"


@cache
def cycle_bounds() -> dict[str, Any]:
    """The cycle model against the RTL: the largest error of a whole model, in percent, and of how many it is."""
    found = json.loads(VALIDATION.read_text(encoding="utf-8"))
    models, kinds = found["models"], found["kinds"]
    return {
        "max_percent": max(abs(model["error_percent"]) for model in models),
        "models": len(models),
        "max_descriptor_cycles": max(kind["max_cycles"] for kind in kinds),
        "descriptors": sum(kind["descriptors"] for kind in kinds),
        "memories": list(found["memories"].values()),
        "measured_by": "intaglio validate-model, against the RTL in Verilator",
    }


def beyond(memory: MemoryModel) -> str | None:
    """A sentence for a memory that is slower than those with which the cycle model was compared."""
    slowest = min(known["bytes_per_cycle"] for known in cycle_bounds()["memories"])
    if memory.bytes_per_cycle >= slowest:
        return None
    return (
        f"The cycle model was compared with the RTL at {slowest:g} bytes per cycle and more; "
        f"at {memory.bytes_per_cycle:g} single descriptors may be off by much more."
    )


def energy_bounds() -> dict[str, Any]:
    """The energy model: leave-one-out error of its calibration, relative, and what the band holds."""
    return {"leave_one_out_percent": 100 * calibrate.load().error, "band_percent": 90}
