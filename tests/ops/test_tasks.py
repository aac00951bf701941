"""A program for several tasks: its second input, its checks, and its place in an artifact."""

from __future__ import annotations

import re

import numpy as np
import pytest

from intaglio.errors import InputError
from intaglio.ops import Grid, linear
from intaglio.ops.reference import run
from intaglio.program import Program, Step, Tensor

X = np.arange(-4, 4).reshape(2, 4).astype(np.int8)
UNIT = Grid(0.1, 0, "int8")


def built(task: int) -> linear.Built:
    return linear.parameters(UNIT, np.arange(-6, 6).reshape(3, 4) + task, 0.3, None, Grid(0.2, 1, "int8"))


def program(tasks: int) -> Program:
    """x -> linear of the task."""
    made = linear.with_tasks([built(task) for task in range(tasks)])
    names = ("w", "b", "m", "s")
    tensors = [Tensor("x", (2, 4), "int8"), Tensor("task", (), "int32"), Tensor("y", (2, 3), "int8")]
    tensors += [Tensor(n, c.shape, c.dtype.name, data=c) for n, c in zip(names, made.constants, strict=True)]
    step = Step("fc", "linear", ("x", *names, "task"), "y", made.attrs)
    return Program("two", {t.name: t for t in tensors}, [step], "x", "y", "task")


def test_the_task_chooses_the_constants() -> None:
    model = program(2)
    assert model.tasks == 2
    for task in range(2):
        single = built(task)
        expected = linear.reference([X, *single.constants], single.attrs)
        assert np.array_equal(run(model, X, task=task), expected)
    assert not np.array_equal(run(model, X, task=0), run(model, X, task=1))


@pytest.mark.parametrize(
    ("tasks", "task", "wanted"), [(2, 2, "in 0..1"), (2, -1, "in 0..1"), (1, 1, "0: this")]
)
def test_a_task_that_is_not_there_is_refused(tasks: int, task: int, wanted: str) -> None:
    with pytest.raises(InputError, match=rf"^two: the task must be {re.escape(wanted)}.*, not {task}\.$"):
        run(program(tasks), X, task=task)
