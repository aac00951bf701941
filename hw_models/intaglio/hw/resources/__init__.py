"""Resources of an accelerator by its configuration, without synthesis: docs/models.md."""

from intaglio.hw.resources.model import Resources, bounds, estimate_resources

__all__ = ["Resources", "bounds", "estimate_resources"]
