"""The schema of a roofline file, and where files are found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from intaglio import toml_file

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


def find(spec: str) -> Machine:
    """The machine called `spec`, or that of a .toml file. Raises InputError with one sentence."""
    return toml_file.find(Machine, spec, FOLDER, "--roofline", "machine")
