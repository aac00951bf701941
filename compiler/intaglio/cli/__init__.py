"""The command line: one file per command."""

from intaglio.cli.main import main

__all__ = ["main"]
