"""What lowering produces: launches of kernels over parts of the workspace and of the constants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from intaglio.backends.cpu.ir import Kernel
from intaglio.backends.cpu.isa import Isa
from intaglio.program import Array, Step, Tensor


@dataclass(frozen=True)
class Activation:
    """A tensor of the program, in the workspace or in a buffer of the caller."""

    name: str


@dataclass(frozen=True, eq=False)
class Constant:
    """An array of the library's constants, stored as it is."""

    data: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class TaskConstant:
    """Arrays of the library's constants, one per task along the first axis: a kernel gets the task's."""

    data: Array = field(repr=False)


@dataclass(frozen=True)
class Temporary:
    """Bytes of workspace that live as long as their step; one memory for all threads."""

    name: str
    size: int


@dataclass(frozen=True)
class Scratch:
    """Bytes of workspace of which every thread has its own."""

    size: int


Operand = Activation | Constant | TaskConstant | Temporary | Scratch


@dataclass(frozen=True)
class Launch:
    """One call of a kernel over `items`; threads take whole multiples of `grain` of them."""

    kernel: Kernel
    operands: tuple[Operand, ...]
    items: int
    grain: int = 1


@dataclass(frozen=True)
class Site:
    """A step with what its lowering needs to know around it."""

    step: Step
    tensors: Mapping[str, Tensor]
    isa: Isa

    @property
    def inputs(self) -> list[Tensor]:
        return [self.tensors[name] for name in self.step.inputs]

    @property
    def output(self) -> Tensor:
        return self.tensors[self.step.output]

    def attr(self, name: str) -> int:
        return int(self.step.attrs[name])

    def operand(self, index: int) -> Operand:
        """Input `index` as it is stored."""
        tensor = self.inputs[index]
        return Activation(tensor.name) if tensor.data is None else Constant(tensor.data)

    def constant(self, index: int) -> Array:
        """The values of constant input `index`."""
        data = self.inputs[index].data
        assert data is not None, f"{self.step.name}: input {index} must be a constant"
        return data

    @property
    def result(self) -> Activation:
        return Activation(self.step.output)


def size(tensor: Tensor) -> int:
    """Number of elements."""
    return math.prod(tensor.shape)


def rows(tensor: Tensor) -> tuple[int, int]:
    """The tensor as a matrix: (all leading dimensions, last dimension)."""
    last = tensor.shape[-1] if tensor.shape else 1
    return size(tensor) // max(last, 1), last


def grain(row: int, elements: int = 4096) -> int:
    """Rows of `row` elements that make a share worth handing to a thread."""
    return max(1, elements // max(row, 1))
