"""Runs an integer program step by step in NumPy: the meaning every back end must reproduce."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from intaglio.errors import InputError
from intaglio.ops import get
from intaglio.ops.base import Array, TensorType
from intaglio.program import Program, Step

Observer = Callable[[Step, Array], None]


def run(
    program: Program, inputs: Mapping[str, Array] | Array, observe: Observer | None = None, task: int = 0
) -> Array:
    """Execute `program` for `task` and return its output.

    `inputs`: the input array, or a dictionary with one entry of the input's name; dtype and shape must be the
    program's exactly, and `task` one of its tasks (InputError). `observe(step, value)` is called after every step. A
    tensor is dropped after its last use. Raises ValueError if a step's result does not have its declared type.
    """
    values: dict[str, Array] = {t.name: t.data for t in program.constants if t.data is not None}
    values[program.input] = _input(program, inputs)
    program.check_task(task)
    if program.task is not None:
        values[program.task] = np.array(task, np.int32)
    last_use = {name: i for i, step in enumerate(program.steps) for name in step.inputs}
    for index, step in enumerate(program.steps):
        value = _execute(program, step, [values[name] for name in step.inputs])
        if observe is not None:
            observe(step, value)
        for name in set(step.inputs):
            if last_use[name] == index and name != program.output:
                del values[name]
        values[step.output] = value
    return values[program.output]


def _input(program: Program, inputs: Mapping[str, Array] | Array) -> Array:
    if isinstance(inputs, Mapping):
        if program.input not in inputs:
            raise InputError(
                f"{program.name}: expects an input named {program.input!r}, not {sorted(inputs)!r}."
            )
        inputs = inputs[program.input]
    declared = program.tensors[program.input]
    actual = type_of(inputs)
    if actual != TensorType(declared.shape, declared.dtype):
        expected = f"{declared.dtype} {list(declared.shape)}"
        raise InputError(f"{program.name}: input {program.input!r} must be {expected}, not {actual}.")
    return inputs


def _execute(program: Program, step: Step, inputs: list[Array]) -> Array:
    op = get(step.op)
    attrs: Mapping[str, Any] = step.attrs
    inferred = op.infer([type_of(value) for value in inputs], attrs)
    value = op.reference(inputs, attrs)
    declared = program.tensors[step.output]
    for actual in (inferred, type_of(value)):
        if actual != TensorType(declared.shape, declared.dtype):
            expected = f"{declared.dtype} {list(declared.shape)}"
            raise ValueError(
                f"{step.name}: {step.op} gives {actual}, but {step.output!r} is declared {expected}."
            )
    return value


def type_of(value: Array) -> TensorType:
    """Shape and dtype of an array."""
    return TensorType(tuple(int(size) for size in value.shape), np.dtype(value.dtype).name)
