"""Mixtures of experts and tasks, compiled and compared with the reference by equality."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intaglio.ops import Grid, add, linear
from intaglio.ops.reference import run
from intaglio.program import Program
from tests.cpu.harness import Library, check, random_values
from tests.moe_programs import ROUTINGS, Shape, Writer, forced, gated, random_shape

INT8 = Grid(0.05, 3, "int8")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261125)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_any_routing(routing: str, tmp_path: Path, rng: np.random.Generator) -> None:
    check(forced(rng, Shape(tokens=200), routing), tmp_path, rng)


SHAPES = {
    "k = experts": Shape(experts=4, k=4),
    "one expert": Shape(experts=1, k=1),
    "k = 1, raw weights": Shape(experts=7, k=1, normalize=False),
    "k = 3, raw weights": Shape(experts=7, k=3, normalize=False),
    "no function": Shape(function="none"),
    "one table": Shape(function="shared"),
    "odd sizes": Shape(tokens=31, depth=33, hidden=37, width=19),
    "too narrow for tiles": Shape(depth=5, hidden=9, width=7),
    "narrow result": Shape(hidden=64, width=5),
    "one token": Shape(tokens=1),
    "int8 logits": Shape(logits="int8"),
    "int16 x": Shape(x="int16"),
    "int16 result": Shape(out="int16"),
    "int16 weights": Shape(weight=30000),
    "int64 sums": Shape(x="int16", weight=30000, depth=64, hidden=64),
    "more rows than a block": Shape(tokens=230, experts=2, k=2),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_types(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    check(gated(rng, SHAPES[name]), tmp_path, rng)


@pytest.mark.parametrize("seed", range(8))
def test_random_mixtures(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    shape = random_shape(rng)
    print(shape)
    check(forced(rng, shape, str(rng.choice(ROUTINGS))), tmp_path, rng)


@pytest.mark.parametrize("cpu", ["x86-64"])
def test_without_avx2(cpu: str, tmp_path: Path, rng: np.random.Generator) -> None:
    check(gated(rng, Shape()), tmp_path, rng, cpu=cpu)


def run_task(library: Library, x: np.ndarray, task: int) -> tuple[int, np.ndarray]:
    library.c.intaglio_run_task.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p]
    output = library.program.tensors[library.program.output]
    out = np.zeros(output.shape, output.dtype)
    workspace = np.full(library.c.intaglio_workspace_bytes() + 64, 0xA5, np.uint8)
    start = workspace.ctypes.data + -workspace.ctypes.data % 64
    return library.c.intaglio_run_task(x.ctypes.data, task, out.ctypes.data, start), out


def check_tasks(program: Program, folder: Path, rng: np.random.Generator) -> None:
    library = Library(program, folder)
    source = program.tensors[program.input]
    x = random_values(rng, source.shape, source.dtype)
    expected = [run(program, x, task=task) for task in range(program.tasks)]
    assert not np.array_equal(expected[0], expected[1])
    for threads in (1, 2):
        library.threads(threads)
        for task in range(program.tasks):
            status, result = run_task(library, x, task)
            assert status == 0
            np.testing.assert_array_equal(result, expected[task])
        np.testing.assert_array_equal(library.run(x), expected[0])
    assert [run_task(library, x, task)[0] for task in (-1, program.tasks)] == [-1, -1]


@pytest.mark.parametrize("experts", [5, 16, 19])
def test_one_gate_per_task(experts: int, tmp_path: Path, rng: np.random.Generator) -> None:
    """Five experts are too few for tiles, sixteen are one panel."""
    check_tasks(gated(rng, replace(Shape(), experts=experts), tasks=3), tmp_path, rng)


@pytest.mark.parametrize("x", ["int8", "int16"])
@pytest.mark.parametrize("channels", [8, 40])
def test_linear_of_a_task_with_table_and_residual(
    x: str, channels: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    """One task has weights that need int64 sums, where x is int16; the others must take them too."""
    unit, total = Grid(0.05 if x == "int8" else 2e-4, 3, x), Grid(0.09, -5, "int8")
    each = []
    for largest in (3, 30000):
        weight = rng.integers(-largest, largest + 1, (channels, 34))
        each.append(linear.parameters(unit, weight, 0.3 / largest, rng.normal(size=channels), INT8))
    made = linear.with_tasks(each)
    writer = Writer("tasks", (7, 34), x, task=True)
    table = rng.integers(-128, 128, 256).astype(np.int8)
    other = writer.op("linear", ["input", *each[0].constants], each[0].attrs)
    attrs = made.attrs | {"has_table": 1, "has_residual": 1}
    attrs |= {f"add_{name}": value for name, value in add.parameters(INT8, INT8, total).attrs.items()}
    writer.op("linear", ["input", *made.constants, table, other, "task"], attrs)
    check_tasks(writer.program(), tmp_path, rng)
