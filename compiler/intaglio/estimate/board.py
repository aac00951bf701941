"""What of a board the models of memory, energy and resources need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from intaglio.hw.energy import Device
from intaglio.simulation.frame import MemoryModel
from intaglio.target import Board

DEFAULT_LATENCY, DEFAULT_BYTES = 100, 57.0
"""Cycles, and bytes per cycle, where a target says nothing of its memory: as `simulate` takes them."""

_CARDS = ("xcu",)
_ZYNQ = ("xczu", "xck26", "xc7z", "xcvc")
_HBM = ("xcu50-", "xcu280-")

UNKNOWN = Device("ultrascale+", 274_080, "zynq")
"""The device of a target without a board: a ZU9EG."""


@dataclass(frozen=True)
class Memory:
    """External memory: cycles from a request to its first beat, bytes per cycle of all ports together.

    Raises InputError for what `simulate` refuses too.
    """

    latency: int = DEFAULT_LATENCY
    bytes_per_cycle: float = DEFAULT_BYTES

    def __post_init__(self) -> None:
        MemoryModel(self.latency, self.bytes_per_cycle)


def memory_of(
    board: Board, clock_mhz: int, latency: int | None = None, bytes_per_cycle: float | None = None
) -> Memory:
    """The memory of a board in cycles of an accelerator's clock; what is given holds."""
    if latency is None:
        known = board.latency_ns
        latency = DEFAULT_LATENCY if known is None else max(round(known * clock_mhz / 1e3), 1)
    if bytes_per_cycle is None:
        peak = board.bandwidth_gb_s
        bytes_per_cycle = DEFAULT_BYTES if peak is None else peak * 1e3 / clock_mhz
    return Memory(latency, bytes_per_cycle)


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
