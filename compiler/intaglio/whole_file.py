"""Files that are complete or as they were, and results of long work that are kept in the cache folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from intaglio.resources import cache_folder


def write(path: Path, text: str) -> None:
    """Put `text` at `path` in one step. Raises OSError; then nothing was written."""
    write_all({path: text})


def write_all(texts: Mapping[Path, str]) -> None:
    """Put texts at their paths, all or none. Raises OSError; then nothing was written."""
    partials = {path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in texts}
    try:
        for path, text in texts.items():
            partials[path].write_text(text, encoding="utf-8")
        for path, partial in partials.items():
            partial.replace(path)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)


def kept(name: str) -> str | None:
    """What the cache holds under `name`; None if that is nothing that can be read."""
    try:
        return (cache_folder() / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def keep(name: str, text: str) -> None:
    """Put `text` into the cache. A cache that cannot be written is none."""
    with contextlib.suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        write(cache_folder() / name, text)
