"""Files that a command writes: whether they can be written, said early, and each complete or not there at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from intaglio import whole_file
from intaglio.errors import InputError


def writable(option: str, path: Path | None) -> None:
    """Say now, rather than after long work, that a file cannot be written. Raises InputError."""
    if path is None:
        return
    if path.is_dir() or not path.name:
        raise InputError(f"{option}: expected the name of a file, not the folder {str(path)!r}.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{option}: the folder {str(path.parent)!r} is not there or cannot be written.")


def write(path: Path, text: str) -> None:
    """Put `text` at `path` in one step. Raises InputError if there is no room, or no right to."""
    write_all({path: text})


def write_all(texts: Mapping[Path, str]) -> None:
    """Put texts at their paths, all or none. Raises InputError if there is no room, or no right to."""
    try:
        whole_file.write_all(texts)
    except OSError as error:
        names = " and ".join(map(str, texts))
        raise InputError(f"{names} cannot be written: {error.strerror}.") from error
