"""The `cpu` back end: a program as one shared library of integer-only machine code."""

from __future__ import annotations

from intaglio.backends.cpu.build import build

__all__ = ["build"]
