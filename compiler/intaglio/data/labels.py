"""Names of classes: a text file with one name per line."""

from __future__ import annotations

from pathlib import Path

from intaglio.errors import InputError


def load_labels(path: Path, classes: int) -> list[str]:
    """The names in `path`. Raises InputError if it cannot be read or does not hold `classes` lines."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}.") from None
    while names and not names[-1]:
        names.pop()
    if len(names) != classes:
        raise InputError(f"{path}: expected {classes} class names, one per line, not {len(names)}.")
    return names
