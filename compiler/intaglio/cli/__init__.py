"""The command line: one file per command, each of them thin."""

from __future__ import annotations

from intaglio.cli.app import app, main

__all__ = ["app", "main"]
