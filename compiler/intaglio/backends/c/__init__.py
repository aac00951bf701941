"""Target `c`: plain C11 with no runtime, no heap, no floating point."""

from intaglio.backends.c.sources import emit, workspace_bytes

__all__ = ["emit", "workspace_bytes"]
