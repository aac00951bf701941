"""Where the data files live: inside the wheel, or in the checkout."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """The folder `name` (`targets`, `hls_templates`) that ships with intaglio.

    A wheel carries it in `intaglio/_data`; an editable install finds it at the top of the checkout.
    Raises `FileNotFoundError` if the installation holds neither.
    """
    candidates = [_HERE / "_data" / name, _HERE.parents[1] / name]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the data folder {name!r} is in none of {[str(folder) for folder in candidates]!r}"
    )


def example_folder(name: str) -> Path | None:
    """The folder `examples/<name>` of the checkout, or `None` for an installation from a wheel."""
    folder = _HERE.parents[1] / "examples" / name
    return folder if folder.is_dir() else None


def cache_folder() -> Path:
    """Where built simulators and results of long runs are kept: $INTAGLIO_CACHE, else the user's cache folder."""
    base = os.environ.get("INTAGLIO_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "intaglio"


def version() -> str:
    """The installed version of intaglio."""
    return metadata.version("intaglio")
