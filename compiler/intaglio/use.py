"""The resources that a design uses, beside what its board has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from intaglio.target import Board

NAMES = {"dsp": "DSP", "bram36": "BRAM36", "uram": "URAM", "lut": "LUT", "ff": "FF"}
"""What is counted, and how it is written."""

BOARD = {"dsp": "dsps", "bram36": "bram36", "uram": "urams", "lut": "luts", "ff": "ffs"}
"""Names in a board's file."""


@dataclass(frozen=True)
class Use:
    """How much of one resource of the board is used; `available` is None where the board's file has no number."""

    used: float
    available: int | None

    @property
    def share(self) -> float | None:
        return self.used / self.available if self.available else None

    @property
    def excess(self) -> float:
        """What is missing on the board."""
        return 0 if self.available is None else max(0, self.used - self.available)

    def as_json(self) -> dict[str, Any]:
        return {
            "used": self.used,
            "available": self.available,
            "share": self.share,
            "exceeds_by": self.excess,
        }


def uses(amounts: object, board: Board) -> dict[str, Use]:
    """Every resource of NAMES; `amounts` has an attribute for each."""
    return {name: Use(getattr(amounts, name), getattr(board, key)) for name, key in BOARD.items()}


def fits(found: Mapping[str, Use]) -> bool | None:
    """Whether the board has enough of all that is known of it; None if nothing is known."""
    if all(use.available is None for use in found.values()):
        return None
    return all(use.excess == 0 for use in found.values())


def verdict(found: Mapping[str, Use], board: str) -> str:
    """Whether it fits, in one sentence."""
    if fits(found) is None:
        return f"The file of {board} has no amounts to compare with."
    missing = [f"{number(use.excess)} {NAMES[name]}" for name, use in found.items() if use.excess]
    return f"Exceeds {board} by {', '.join(missing)}." if missing else f"Fits {board}."


def cells(use: Use) -> list[str]:
    """Used, available and share as text."""
    share = "-" if use.share is None else f"{100 * use.share:.1f} %"
    return [number(use.used), "-" if use.available is None else number(use.available), share]


def number(value: float) -> str:
    """With thousands separated, and a half where there is one."""
    return f"{value:,.1f}" if value % 1 else f"{int(value):,}"
