"""Multipliers of a configuration, by the modules that hold them, and the DSP blocks that they take."""

from __future__ import annotations

from typing import NamedTuple

from intaglio.accelerator.config import AcceleratorConfig


class Blocks(NamedTuple):
    """DSP blocks of a family: of a result's lane, of a row's LayerNorm, of a zero point's product, of the checks."""

    lane: int
    norm: int
    zero_point: int
    check: int


BLOCKS = {
    "ultrascale+": Blocks(4, 10, 1, 1),
    "7-series": Blocks(4, 10, 1, 1),
    "ecp5": Blocks(8, 10, 2, 4),
}
"""A product of more bits than a block multiplies takes several: 18 x 18 on an ECP5, 25 or 27 x 18 on the others."""


def multipliers(c: AcceleratorConfig, family: str) -> int:
    """DSP blocks of the accelerator. A DSP48E2 of the packed array makes two products."""
    blocks = BLOCKS[family]
    array = c.macs if c.multiplier == "generic" else c.macs // 2
    return (
        array
        + blocks.lane * c.lanes
        + blocks.norm * c.rows
        + blocks.zero_point * (c.rows + c.group)
        + blocks.check
    )
