"""Mixtures of experts and tasks in C: equal to the reference, and free of undefined behaviour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intaglio.backends import c
from intaglio.errors import InputError
from intaglio.ops.reference import run
from tests.c.test_c import build, needs_gcc, random_input, run_example
from tests.moe_programs import ROUTINGS, Shape, forced, gated, random_shape

SHAPES = {
    "k = experts, one table": Shape(experts=4, k=4, function="shared"),
    "one expert, no function": Shape(experts=1, k=1, function="none"),
    "raw weights, int8 logits": Shape(experts=7, k=3, normalize=False, logits="int8"),
    "odd sizes": Shape(tokens=31, depth=33, hidden=37, width=19),
    "int16": Shape(x="int16", out="int16"),
    "int64 sums": Shape(x="int16", weight=30000, depth=64, hidden=64),
}


@needs_gcc
@pytest.mark.parametrize("routing", ROUTINGS)
def test_any_routing(routing: str, tmp_path: Path) -> None:
    program = forced(np.random.default_rng(1), Shape(tokens=40), routing)
    x = random_input(program, 2)
    np.testing.assert_array_equal(build(program, tmp_path).run(x), run(program, x))


@needs_gcc
@pytest.mark.parametrize("seed", range(8))
def test_random_mixtures(seed: int, tmp_path: Path) -> None:
    """The same programs as the CPU target's tests."""
    rng = np.random.default_rng(seed)
    shape = random_shape(rng)
    print(shape)
    program = forced(rng, shape, str(rng.choice(ROUTINGS)))
    x = random_input(program, seed)
    np.testing.assert_array_equal(build(program, tmp_path).run(x), run(program, x))


@needs_gcc
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_types_without_undefined_behaviour(name: str, tmp_path: Path) -> None:
    program = gated(np.random.default_rng(3), SHAPES[name])
    x = random_input(program, 4)
    np.testing.assert_array_equal(run_example(program, tmp_path, x), run(program, x))


def test_code_is_tidy() -> None:
    for normalize in (False, True):
        program = gated(np.random.default_rng(5), Shape(normalize=normalize), tasks=2)
        for path, text in c.emit(program).items():
            lines = str(text).split("\n")
            assert all(line == line.rstrip() for line in lines), path
            assert "\n\n\n" not in str(text), path
            assert max(map(len, lines)) <= (140 if path.startswith("weights") else 120), path


@needs_gcc
def test_one_gate_per_task(tmp_path: Path) -> None:
    program = gated(np.random.default_rng(5), Shape(), tasks=3)
    x = random_input(program, 6)
    model = build(program, tmp_path)
    expected = [run(program, x, task=task) for task in range(3)]
    assert not np.array_equal(expected[0], expected[2])
    for task in range(3):
        np.testing.assert_array_equal(model.run(x, task), expected[task])
    with pytest.raises(Exception, match="status -1"):
        model.run(x, 3)


@needs_gcc
def test_a_model_without_tasks_has_task_0_only(tmp_path: Path) -> None:
    program = gated(np.random.default_rng(5), Shape())
    model = build(program, tmp_path)
    with pytest.raises(InputError, match="the task must be 0: this model has one task, not 1"):
        model.run(random_input(program, 6), 1)
