"""Energy of a run: action counts times calibrated energies per action, static power, and a band (docs/models.md)."""

from intaglio.hw.energy.actions import Actions, count
from intaglio.hw.energy.model import Device, Energy, estimate, of_actions

__all__ = ["Actions", "Device", "Energy", "count", "estimate", "of_actions"]
