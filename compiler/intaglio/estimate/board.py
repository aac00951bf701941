"""What of a board the models of energy and resources need."""

from __future__ import annotations

from typing import Literal

from intaglio.hw.energy import Device
from intaglio.target import Board

_CARDS = ("xcu",)
_ZYNQ = ("xczu", "xck26", "xc7z", "xcvc")
_HBM = ("xcu50-", "xcu280-")

UNKNOWN = Device("ultrascale+", 274_080, "zynq")
"""The device of a target without a board: a ZU9EG."""


def device_of(board: Board) -> Device:
    """The device of a board, for the energy model; a ZU9EG if the target has no board."""
    if not board.family or board.luts is None:
        return UNKNOWN
    host: Literal["zynq", "card", "none"] = "none"
    if board.part.startswith(_CARDS):
        host = "card"
    elif board.part.startswith(_ZYNQ):
        host = "zynq"
    return Device(board.family, board.luts, host, "hbm" if board.part.startswith(_HBM) else "ddr")
