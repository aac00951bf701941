"""Progress: what a unit's counter says, in which waits are counted (docs/accelerator.md)."""

from __future__ import annotations

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor


def growth(descriptor: Descriptor, config: AcceleratorConfig) -> int:
    """By how much a descriptor lets its unit's progress counter grow."""
    tiles = -(-descriptor["rows"] // config.rows)
    match descriptor.kind:
        case "GEMM" if descriptor["queue"]:
            return 1
        case "GEMM" | "COMBINE" | "LAYERNORM":
            return tiles
        case "ATTENTION":
            return descriptor["heads"] * tiles
        case "LOAD_IMAGE":
            return -(-descriptor["grid_h"] * descriptor["grid_w"] // config.rows)
        case _:
            return 1
