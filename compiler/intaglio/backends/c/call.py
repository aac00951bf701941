"""What a call of a C function consists of, and what a lowering looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from intaglio.backends.c.constants import Constants
from intaglio.backends.c.names import number
from intaglio.program import Program, Step, Tensor

Value = int | str | list[int]


@dataclass(frozen=True)
class Function:
    """One C function: a template of an op, made concrete by `types` (what the template calls `v`)."""

    name: str
    template: str
    types: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A call `function(inputs..., output, &(struct){fields}[, scratch])`."""

    function: Function
    inputs: tuple[str, ...]
    fields: Mapping[str, Value]
    scratch: int = 0

    @property
    def arguments(self) -> list[str]:
        """The fields as C text: `.name = value`."""
        return [f".{name} = {_spell(value)}" for name, value in self.fields.items()]


@dataclass(frozen=True)
class Lowering:
    """What the lowering of one step looks at."""

    program: Program
    step: Step
    constants: Constants

    @property
    def attrs(self) -> Mapping[str, Any]:
        return self.step.attrs

    @property
    def inputs(self) -> list[Tensor]:
        return [self.program.tensors[name] for name in self.step.inputs]

    @property
    def output(self) -> Tensor:
        return self.program.tensors[self.step.output]

    def pick(self, *names: str) -> dict[str, Value]:
        """Integer attributes that are fields of the same name."""
        return {name: int(self.attrs[name]) for name in names}


def _spell(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "{" + ", ".join(map(number, value)) + "}"
    return number(value)


def row_count(tensor: Tensor) -> int:
    """All dimensions but the last, as one."""
    return math.prod(tensor.shape[:-1])


def element_count(tensor: Tensor) -> int:
    """Number of elements."""
    return math.prod(tensor.shape)
