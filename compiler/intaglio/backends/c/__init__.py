"""Target `c`: plain C11 with no runtime, no heap, no floating point."""

from intaglio.backends.c.sources import emit

__all__ = ["emit"]
