"""The program runner: values, checks, freeing and errors."""

import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import pytest

from intaglio.errors import InputError
from intaglio.ops import Grid, linear, reference, table
from intaglio.ops.reference import run
from intaglio.program import Program, Step, Tensor


@pytest.fixture
def program() -> Program:
    """x -> linear -> tanh -> reshape; the result of linear is also concatenated at the end."""
    x, out = Grid(0.1, 0, "int8"), Grid(0.2, 1, "int8")
    built = linear.parameters(x, np.arange(-6, 6).reshape(3, 4), 0.3, np.array([1.0, 2, 3]), out)
    tanh = table.parameters(np.tanh, out, Grid(1 / 127, 0, "int8"))
    names = ("w", "b", "m", "s")
    tensors = [Tensor("x", (2, 4), "int8"), Tensor("t", (256,), "int8", data=tanh.constants[0])]
    tensors += [Tensor(n, c.shape, c.dtype.name, data=c) for n, c in zip(names, built.constants, strict=True)]
    tensors += [Tensor("y", (2, 3), "int8"), Tensor("z", (2, 3), "int8"), Tensor("c", (2, 6), "int8")]
    steps = [
        Step("fc", "linear", ("x", *names), "y", built.attrs),
        Step("act", "table", ("y", "t"), "z", {}),
        Step("cat", "concat", ("z", "y"), "c", {"axis": 1}),
    ]
    return Program("small", {t.name: t for t in tensors}, steps, "x", "c")


X = np.array([[1, -2, 3, 100], [0, 0, 0, -128]], np.int8)


def test_run_executes_every_step(program: Program) -> None:
    seen: dict[str, Any] = {}
    result = run(program, X, lambda step, value: seen.update({step.name: value}))
    assert list(seen) == ["fc", "act", "cat"]
    assert np.array_equal(result, np.concatenate([seen["act"], seen["fc"]], axis=1))
    real = X * 0.1 @ (np.arange(-6, 6).reshape(3, 4).T * 0.3) + [1, 2, 3]
    assert np.array_equal(seen["fc"], Grid(0.2, 1, "int8").quantize(real))
    assert np.array_equal(run(program, {"x": X}), result)


def test_a_tensor_is_freed_after_its_last_use(program: Program) -> None:
    alive: dict[str, Any] = {}

    def observe(step: Step, value: np.ndarray) -> None:
        alive[step.output] = weakref.ref(value)
        if step.name == "cat":
            assert alive["z"]() is not None

    result = run(program, X.copy(), observe)
    assert alive["c"]() is result
    assert alive["y"]() is None
    assert alive["z"]() is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (X.astype(np.int16), r"input 'x' must be int8 \[2, 4\], not int16 \[2, 4\]"),
        (X[:1], r"input 'x' must be int8 \[2, 4\], not int8 \[1, 4\]"),
        ({"pixels": X}, r"expects an input named 'x', not \['pixels'\]"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(program: Program, given: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^small: {sentence}"):
        run(program, given)


def test_a_step_that_does_not_give_its_declared_type_is_refused(program: Program) -> None:
    tensors = dict(program.tensors) | {"z": Tensor("z", (2, 3), "int16")}
    wrong = Program("small", tensors, program.steps, "x", "c")
    with pytest.raises(
        ValueError, match=r"act: table gives int8 \[2, 3\], but 'z' is declared int16 \[2, 3\]"
    ):
        run(wrong, X)


def test_the_reference_runs_without_tvm() -> None:
    code = f"import sys, {reference.__name__}; sys.exit('tvm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
