"""The integer program: what every back end reads and every artifact stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from intaglio.errors import InputError

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
    """A straight-line integer program with one input and one output tensor.

    `task`: the second input, int32 [], of a program for several tasks: steps with `has_task` take their constants by
    it.
    """

    name: str
    tensors: Mapping[str, Tensor]
    steps: Sequence[Step]
    input: str
    output: str
    task: str | None = None

    @property
    def tasks(self) -> int:
        """Number of tasks, 1 without a task input."""
        counts = {self.tensors[step.inputs[1]].shape[0] for step in self.steps if step.attrs.get("has_task")}
        if len(counts) > 1:
            raise ValueError(f"{self.name}: steps disagree on the number of tasks: {sorted(counts)}.")
        return counts.pop() if counts else 1

    def check_task(self, task: int) -> int:
        """`task`, if the program has it. Raises InputError with one sentence."""
        if not 0 <= task < self.tasks:
            wanted = (
                f"must be in 0..{self.tasks - 1}" if self.tasks > 1 else "must be 0: this model has one task"
            )
            raise InputError(f"{self.name}: the task {wanted}, not {task}.")
        return task

    @property
    def activations(self) -> list[Tensor]:
        """Every tensor that is computed, in order of definition (the input first; the task is not among them)."""
        names = [self.input, *(step.output for step in self.steps)]
        return [self.tensors[name] for name in names]

    @property
    def constants(self) -> list[Tensor]:
        return [tensor for tensor in self.tensors.values() if tensor.is_constant]
