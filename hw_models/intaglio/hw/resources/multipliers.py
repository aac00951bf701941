"""Multipliers of a configuration, by the modules that hold them, and the DSP blocks that they take."""

from __future__ import annotations

from intaglio.accelerator.config import CHAIN, AcceleratorConfig

LANE = {"ultrascale+": (4, 9), "7-series": (4, 9), "ecp5": (4, 9)}
"""DSP blocks of a lane that requantizes and adds, and of a row's LayerNorm lane with its square."""


def multipliers(c: AcceleratorConfig, family: str) -> int:
    """DSP blocks of the accelerator."""
    lane, norm = LANE[family]
    array = (
        c.rows * c.cols * c.depth
        if c.multiplier == "generic"
        else c.rows * c.cols // 2 * (c.depth // CHAIN) * CHAIN
    )
    zero_points = c.group + c.rows
    return array + lane * c.lanes + (norm + 1) * c.rows + zero_points + 1
