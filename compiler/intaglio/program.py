"""The integer program: what every back end reads and every artifact stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a program.

    `scale` and `zero_point` give its real value, ``scale * (q - zero_point)``; `None` where a tensor has no
    single grid (packed constants, tables, indices). `data` holds a constant's values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0
    data: Array | None = field(default=None, repr=False, compare=False)

    @property
    def is_constant(self) -> bool:
        return self.data is not None


@dataclass(frozen=True)
class Step:
    """One integer op: `output = op(*inputs, **attrs)` (meaning: docs/integer-semantics.md)."""

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    attrs: Mapping[str, Any]
    onnx_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A straight-line integer program with one input and one output tensor."""

    name: str
    tensors: Mapping[str, Tensor]
    steps: Sequence[Step]
    input: str
    output: str

    @property
    def activations(self) -> list[Tensor]:
        """Every non-constant tensor, in order of definition (the input first)."""
        names = [self.input, *(step.output for step in self.steps)]
        return [self.tensors[name] for name in names]

    @property
    def constants(self) -> list[Tensor]:
        return [tensor for tensor in self.tensors.values() if tensor.is_constant]
