"""TOML files that a schema checks, and one sentence for what is wrong with them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from intaglio.errors import InputError

Schema = TypeVar("Schema", bound=BaseModel)


def find(schema: type[Schema], spec: str, folder: Path, option: str, kind: str) -> Schema:
    """The `kind` called `spec`, a file of `folder`, or that of a .toml file. Raises InputError naming `option`."""
    if spec.endswith(".toml"):
        return load(schema, Path(spec), kind)
    known = names(folder)
    if spec not in known:
        raise InputError(
            f"{option}: there is no {kind} {spec!r}; known: {', '.join(known)}, or give the path of a .toml file."
        )
    return load(schema, folder / f"{spec}.toml", kind)


def names(folder: Path) -> list[str]:
    """What `find` knows in `folder`."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load(schema: type[Schema], path: Path, kind: str) -> Schema:
    """The file as `schema` has it. Raises InputError naming the file, the key and what was expected."""
    values = read(path, kind)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise InputError(sentence(error, path)) from None


def read(path: Path, kind: str) -> dict[str, Any]:
    """The file's content, unchecked. Raises InputError where there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such {kind} file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid TOML: {error}.") from None


def sentence(error: ValidationError, path: Path) -> str:
    """The first complaint of pydantic in our words."""
    first = error.errors()[0]
    if first["type"] == "value_error":
        # Of a validator, which names keys and values itself; `loc` may be empty.
        return f"{path}: {first['ctx']['error']}."
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{path}: key {key!r} is missing."
    if first["type"] == "extra_forbidden":
        return f"{path}: key {key!r} is unknown."
    reason = first["msg"][0].lower() + first["msg"][1:]
    return f"{path}: key {key!r}: {reason}, not {first['input']!r}."
