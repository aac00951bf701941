"""The resources of a configuration, beside what a board has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.hw.resources import bounds, estimate_resources
from intaglio.hw.resources.model import BOARD, FAMILIES
from intaglio.target import Board

NAMES = tuple(BOARD)

LIKE = "ultrascale+"
"""The family that stands for those without a model of resources, and for targets without a board."""


@dataclass(frozen=True)
class Use:
    """Amounts by name, `used` and `available`: None where the board's file has no number, or there is no board.

    `family`: whose resources are counted.
    """

    used: Mapping[str, float]
    available: Mapping[str, int | None]
    family: str

    @property
    def exceeded(self) -> list[str]:
        """Names of what the board has too little of."""
        return [
            name for name in NAMES if (there := self.available[name]) is not None and self.used[name] > there
        ]

    @property
    def fits(self) -> bool | None:
        """Whether the board has enough of all that is known of it; None if nothing is known."""
        known = any(there is not None for there in self.available.values())
        return not self.exceeded if known else None


def use(config: AcceleratorConfig, board: Board) -> Use:
    """What an accelerator needs of a board's device."""
    family = board.family if board.family in FAMILIES else LIKE
    found = estimate_resources(config, family, uram=bool(board.urams))
    used = {name: getattr(found, name) for name in NAMES}
    return Use(used, {name: getattr(board, key) for name, key in BOARD.items()}, family)


def error_bounds(family: str) -> dict[str, float] | None:
    """The largest relative error of each resource against Yosys; None if `family` was not compared with it."""
    known = bounds()
    return None if family in known["not_compared"] else dict(known["bounds"])


def errors(family: str) -> str:
    """The same as a sentence."""
    known = error_bounds(family)
    if known is None:
        return f"Resources are what Yosys would count; on {family} they were not compared with it."
    found = ", ".join(f"{name.upper()} {100 * error:.1f} %" for name, error in known.items())
    return f"Resources are what Yosys would count; against it they were off by at most: {found}."
