"""The schema of a roofline file, and where files are found."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from intaglio.errors import InputError

FOLDER = Path(__file__).parent

Rate = Annotated[float, Field(gt=0)]


class Machine(BaseModel):
    """One machine: int8 products a second of linears and of attention, LayerNorm and softmax values, bytes.

    `call_us`: of every op, at least. `watts`: between which the power lies while it works. `measured`: by
    `intaglio estimate` on the machine itself; then `check_percent` says how far it was off a transformer block.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    kind: Literal["cpu", "gpu"]
    source: str
    measured: bool = False
    threads: Annotated[int, Field(ge=1)] = 1
    macs_per_s: Rate
    attention_macs_per_s: Rate
    values_per_s: Rate
    bytes_per_s: Rate
    call_us: Annotated[float, Field(ge=0)] = 0.0
    watts: Annotated[list[Rate], Field(min_length=2, max_length=2)]
    watts_source: str
    check_percent: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Machine:
        if self.watts[0] > self.watts[1]:
            raise ValueError(f"watts must be the least and the most, not {self.watts}")
        return self


def machines() -> list[str]:
    """Names of the rooflines that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(spec: str) -> Machine:
    """The machine called `spec`, or that of a .toml file. Raises InputError with one sentence."""
    if not spec.endswith(".toml"):
        if spec not in machines():
            known = ", ".join(machines())
            raise InputError(
                f"--roofline: there is no machine {spec!r}; known: {known}, or give the path of a .toml file."
            )
        return _load(FOLDER / f"{spec}.toml")
    return _load(Path(spec))


def _load(path: Path) -> Machine:
    try:
        return Machine.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such roofline file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "value_error":
            raise InputError(f"{path}: {first['ctx']['error']}.") from None
        if first["type"] == "missing":
            raise InputError(f"{path}: key {key!r} is missing.") from None
        reason = first["msg"][0].lower() + first["msg"][1:]
        raise InputError(f"{path}: key {key!r}: {reason}, not {first['input']!r}.") from None
