"""Resources of an accelerator by its configuration, without synthesis: docs/models.md."""

from intaglio.hw.resources.model import Excess, Resources, bounds, estimate_resources, fits

__all__ = ["Excess", "Resources", "bounds", "estimate_resources", "fits"]
