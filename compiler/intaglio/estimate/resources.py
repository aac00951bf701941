"""The resources of a configuration, beside what a board has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.hw.resources import bounds, estimate_resources
from intaglio.hw.resources.model import FAMILIES
from intaglio.target import Board
from intaglio.use import NAMES, Use, fits, uses

LIKE = "ultrascale+"
"""The family that stands for those without a model of resources, and for targets without a board."""


@dataclass(frozen=True)
class DeviceUse:
    """What a design takes of a device, resource by resource; `family`: whose resources are counted."""

    uses: Mapping[str, Use]
    family: str

    @property
    def used(self) -> dict[str, float]:
        """Amounts by name."""
        return {name: use.used for name, use in self.uses.items()}

    @property
    def available(self) -> dict[str, int | None]:
        """What the board has, by name; None where its file has no number, or there is no board."""
        return {name: use.available for name, use in self.uses.items()}

    @property
    def exceeded(self) -> list[str]:
        """Names of what the board has too little of."""
        return [name for name, use in self.uses.items() if use.excess]

    @property
    def fits(self) -> bool | None:
        """Whether the board has enough of all that is known of it; None if nothing is known."""
        return fits(self.uses)


def device_use(config: AcceleratorConfig, board: Board) -> DeviceUse:
    """What an accelerator needs of a board's device."""
    family = board.family if board.family in FAMILIES else LIKE
    found = estimate_resources(config, family, uram=bool(board.urams))
    return DeviceUse(uses(found, board), family)


def error_bounds(family: str) -> dict[str, float]:
    """The largest relative error of each resource against Yosys, of designs on `family` that the fit had not seen."""
    known = bounds()
    return {**known["bounds"][family], **known["unseen"][family]}


def errors(family: str) -> str:
    """The same as a sentence."""
    found = ", ".join(f"{NAMES[name]} {100 * error:.1f} %" for name, error in error_bounds(family).items())
    return (
        "Resources are what Yosys would count; against it, designs on "
        f"{family} that the model had not seen were off by at most: {found}."
    )
