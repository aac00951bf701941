"""Programs of several tasks, made one: linears whose constants differ choose theirs by the task, all else is shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from intaglio.errors import UnsupportedError
from intaglio.ops import linear
from intaglio.ops.base import Built
from intaglio.program import Program, Step, Tensor

CONSTANTS = slice(1, 5)


def merge(programs: Sequence[Program], task: str) -> Program:
    """The program that does what program `t` does when its input `task` is t.

    Raises UnsupportedError naming the first step in which they differ by more than the constants of a linear.
    """
    first = programs[0]
    tensors = dict(first.tensors)
    places = zip(*(program.steps for program in programs), strict=False)
    steps = [_merged(programs, place, tensors, task) for place in places]
    if len({len(program.steps) for program in programs}) > 1:
        raise _difference(steps[-1], "is followed by different steps")
    if all(not step.attrs.get("has_task") for step in steps):
        return first
    tensors[task] = Tensor(task, (), "int32")
    return replace(first, tensors=tensors, steps=steps, task=task)


def _merged(
    programs: Sequence[Program], place: Sequence[Step], tensors: dict[str, Tensor], task: str
) -> Step:
    """One step for all tasks; its stacked constants go to `tensors`."""
    step = place[0]
    for program, other in zip(programs, place, strict=True):
        if (other.op, other.inputs, other.output) != (step.op, step.inputs, step.output):
            raise _difference(step, f"is the step {other.op} {other.output!r}")
        if program.tensors[other.output] != programs[0].tensors[step.output]:
            raise _difference(step, "has a result of another type or on another grid")
    varying = [name for name in step.inputs if not _equal([program.tensors[name] for program in programs])]
    attrs = [dict(other.attrs) | {"acc_dtype": ""} for other in place]
    stackable = step.op == "linear" and set(varying) <= set(step.inputs[CONSTANTS])
    if (attrs.count(attrs[0]) != len(attrs) or varying) and not stackable:
        raise _difference(step, "has other constants or attributes")
    if attrs.count(attrs[0]) != len(attrs):
        raise _difference(step, "has other attributes")
    if not varying:
        return step
    built = linear.with_tasks(
        [_built(program, other) for program, other in zip(programs, place, strict=True)]
    )
    for name, data in zip(step.inputs[CONSTANTS], built.constants, strict=True):
        tensors[name] = Tensor(name, tuple(data.shape), str(data.dtype), data=data)
    return replace(step, inputs=(*step.inputs, task), attrs=built.attrs)


def _built(program: Program, step: Step) -> Built:
    constants = [program.tensors[name].data for name in step.inputs[CONSTANTS]]
    return Built([data for data in constants if data is not None], dict(step.attrs))


def _equal(twins: Sequence[Tensor]) -> bool:
    """Whether all are the same constant, or none is one."""
    first = twins[0].data
    if first is None:
        return all(twin.data is None for twin in twins)
    return all(
        twin.data is not None and twin.data.dtype == first.dtype and np.array_equal(twin.data, first)
        for twin in twins
    )


def _difference(step: Step, what: str) -> UnsupportedError:
    node = step.onnx_nodes[-1] if step.onnx_nodes else step.name
    return UnsupportedError(
        f"node {node!r} ({step.op}) {what} for another task; intaglio takes tasks that differ in the constants of "
        "linear layers only (gates, heads)"
    )
