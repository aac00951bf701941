"""The disassembly of a program: every descriptor with its fields, waits, and what it is for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, Descriptor, ProgramFile


@dataclass(frozen=True)
class Line:
    """One descriptor: `step` is the program's step that it belongs to, '' if unknown."""

    index: int
    descriptor: Descriptor
    step: str
    comment: str

    def as_json(self) -> dict[str, Any]:
        d = self.descriptor
        waits = {unit: list(wait) for unit, wait in d.waits.items()}
        return {
            "index": self.index,
            "kind": d.kind,
            "unit": BY_NAME[d.kind].unit,
            "fields": dict(d.fields),
            "waits": waits,
            "step": self.step,
            "comment": self.comment,
        }

    @property
    def fields(self) -> str:
        """Fields that are not 0: `entry=12 entries=48`."""
        return " ".join(f"{name}={value}" for name, value in self.descriptor.fields.items() if value)

    @property
    def waits(self) -> str:
        """`mm>=12+i` waits, per row tile or head i, for progress 12 + i of the MAC unit."""
        return " ".join(_wait(unit, base, step) for unit, (base, step) in self.descriptor.waits.items())


@dataclass(frozen=True)
class Spilling:
    """What a program moves because its activations exceed the scratchpads: per image, to external memory and back.

    `area`: bytes of external memory that this takes; 0 where all fits.
    """

    area: int
    spills: int
    spilled_bytes: int
    fills: int
    filled_bytes: int

    @staticmethod
    def of(program: ProgramFile, config: AcceleratorConfig) -> Spilling:
        spills = [d["words"] for d in program.descriptors if d.kind == "STORE" and d["all_rows"]]
        fills = [d["words"] for d in program.descriptors if d.kind == "LOAD_ROWS" and d["spilled"]]
        size = config.word_bytes
        return Spilling(program.spill_bytes, len(spills), sum(spills) * size, len(fills), sum(fills) * size)

    def as_json(self) -> dict[str, int]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.area:,} bytes of external memory; per image {self.spills:,} spills of {self.spilled_bytes:,} "
            f"bytes, {self.fills:,} fills of {self.filled_bytes:,} bytes"
        )


def _wait(unit: str, base: int, step: int) -> str:
    slope = "" if not step else "+i" if step == 1 else f"+{step}i"
    return f"{unit}>={base}{slope}"


def listing(program: bytes, comments: str | None) -> list[Line]:
    """The lines of a `program.bin` and its `program.map.json`. Raises ValueError where either is malformed."""
    file = ProgramFile.unpack(program)
    notes: Sequence[Sequence[str]] = json.loads(comments) if comments else []
    known: Mapping[int, Sequence[str]] = dict(enumerate(notes))
    return [
        Line(index, descriptor, *known.get(index, ("", "")))
        for index, descriptor in enumerate(file.descriptors)
    ]
