"""The command line: one file per command, each of them thin."""

from __future__ import annotations

import sys

__all__ = ["main"]

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main() -> None:
    """Entry point of the `intaglio` command. Ctrl-C ends it with a word, while it still loads too."""
    try:
        from intaglio.cli.app import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    run()
