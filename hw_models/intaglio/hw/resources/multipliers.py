"""Multipliers of a configuration, by the modules that hold them, and the DSP blocks that they take."""

from __future__ import annotations

from typing import NamedTuple

from intaglio.accelerator.config import AcceleratorConfig


class Blocks(NamedTuple):
    """DSP blocks of a family: of a result's lane; of a row's LayerNorm; of the zero points of a column and of a row; of
    the checks; of the router.
    """

    lane: int
    norm: int
    column: int
    row: int
    check: int
    router: int


BLOCKS = {
    "ultrascale+": Blocks(lane=4, norm=10, column=1, row=1, check=1, router=2),
    "7-series": Blocks(lane=8, norm=10, column=1, row=2, check=2, router=2),
    "ecp5": Blocks(lane=8, norm=10, column=2, row=2, check=4, router=2),
}
"""A product of more bits than a block multiplies takes several: 27 x 18 on UltraScale+, 25 x 18, on an ECP5 18 x 18."""


def multipliers(c: AcceleratorConfig, family: str) -> int:
    """DSP blocks of the accelerator. A DSP48E2 of the packed array makes two products."""
    blocks = BLOCKS[family]
    array = c.macs if c.multiplier == "generic" else c.macs // 2
    by_size = blocks.lane * c.lanes + (blocks.norm + blocks.row) * c.rows + blocks.column * c.group
    columns = c.cols // c.weight_ports
    # Bytes and beats of a weight block, for a port whose columns are no power of two.
    loader = 0 if columns & (columns - 1) == 0 else 2
    return array + by_size + blocks.check + loader + (blocks.router if c.experts else 0)
