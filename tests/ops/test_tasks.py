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


def test_a_table_and_a_residual_are_fused_before_the_task() -> None:
    tvm = pytest.importorskip("tvm", reason="passes need TVM")
    from tvm import relax

    from intaglio.ops import add, table
    from intaglio.ops import relax as integer_relax
    from intaglio.passes.fuse_linear import fuse_linear

    made, grid = linear.with_tasks([built(0), built(1)]), Grid(0.2, 1, "int8")
    notes = {"onnx": [], "grid": "0.2 1"}
    x = relax.Var("x", relax.TensorType((2, 4), "int8"))
    task = relax.Var("task", relax.TensorType((), "int32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, task]):
        arguments = [x, *map(relax.const, made.constants), task]
        y = builder.emit(integer_relax.call("linear", arguments, made.attrs | notes))
        entries = relax.const(table.parameters(np.tanh, grid, grid).constants[0])
        other = builder.emit(
            integer_relax.call("slice", [x], {"begin": [0, 0], "end": [2, 3], "strides": [1, 1]})
        )
        z = builder.emit(integer_relax.call("table", [y, entries], notes))
        total = integer_relax.call("add", [z, other], add.parameters(grid, UNIT, grid).attrs | notes)
        builder.emit_func_output(builder.emit(total))
    module = fuse_linear(builder.get())
    assert isinstance(module, tvm.IRModule)
    calls = [b.value for b in module["main"].body.blocks[0].bindings if isinstance(b.value, relax.Call)]
    # What it was made of is dead now, and goes with the next pass.
    fused = calls[-1]
    assert integer_relax.op_name(fused) == "linear"
    assert len(fused.args) == 8
    assert fused.args[-1].same_as(module["main"].params[1])
    assert (int(fused.attrs["has_table"]), int(fused.attrs["has_residual"])) == (1, 1)
