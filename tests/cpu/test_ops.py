"""Every op of the specification, compiled and compared with its reference by equality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from intaglio import ops
from intaglio.ops import Grid

from tests.cpu.harness import ProgramWriter, check, random_values

INT8, INT16 = Grid(0.05, 3, "int8"), Grid(0.0004, -70, "int16")
GRIDS = {"int8": INT8, "int16": INT16}
TYPES = ["int8", "int16"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("source", TYPES)
def test_table(source: str, dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("table", (3, 45), source)
    built = ops.table.parameters(np.tanh, GRIDS[source], GRIDS[dtype])
    writer.op("table", ["input", *built.constants])
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(2, 3, 20, 11), (1, 3)])
def test_quantize_input(shape: tuple[int, ...], dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("pixels", shape, "uint8")
    built = ops.quantize_input.parameters([0.4, 0.5, 0.6], 0.25, Grid(0.02, 0, dtype), 3)
    writer.op("quantize_input", ["input", *built.constants])
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize(("a", "b", "out"), [("int8", "int8", "int8"), ("int16", "int8", "int16"), ("int8", "int16", "int8")])
@pytest.mark.parametrize("b_shape", [(2, 9, 37), (9, 37), (37,), (1,)])
def test_add(a: str, b: str, out: str, b_shape: tuple[int, ...], tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("add", (2, 9, 37), a)
    built = ops.add.parameters(GRIDS[a], GRIDS[b], Grid(0.07 if out == "int8" else 0.0006, -5, out))
    writer.op("add", ["input", random_values(rng, b_shape, b)], built.attrs)
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [1, 37])
def test_rescale(channels: int, dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("rescale", (9, 37), "int16")
    built = ops.rescale.parameters(INT16, rng.normal(size=channels), rng.normal(size=channels), GRIDS[dtype])
    writer.op("rescale", ["input", *built.constants], built.attrs)
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("source", TYPES)
def test_mean(source: str, axis: int, tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("mean", (2, 9, 37), source)
    writer.op("mean", ["input"], ops.mean.parameters(GRIDS[source], 9 if axis == 1 else 37, INT8, axis).attrs)
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize("nonlinear", ["exact", "ivit"])
@pytest.mark.parametrize(("source", "dtype", "channels"), [("int8", "int8", 192), ("int16", "int8", 45), ("int16", "int16", 1030), ("int8", "int16", 1)])
def test_layernorm(
    source: str, dtype: str, channels: int, nonlinear: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    writer = ProgramWriter("layernorm", (7, channels), source)
    gamma, beta = rng.normal(size=channels), rng.normal(size=channels)
    built = ops.layernorm.parameters(GRIDS[source], gamma, beta, 1e-6, Grid(0.03, 2, dtype), nonlinear)
    writer.op("layernorm", ["input", *built.constants], built.attrs)
    library = check(writer.program(), tmp_path, rng)
    for value in (0, 5, np.iinfo(source).min):
        x = np.full((7, channels), value, source)
        x[:, 0] += np.arange(7, dtype=source)
        expected = ops.OPS["layernorm"].reference([x, *built.constants], built.attrs)
        np.testing.assert_array_equal(library.run(x), expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("source", TYPES)
def test_softmax(source: str, dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("softmax", (5, 33), source)
    built = ops.softmax.parameters(GRIDS[source], Grid(1 / 256, -128, dtype))
    writer.op("softmax", ["input", *built.constants], built.attrs)
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("reshape", {"shape": [12, 35]}),
        ("transpose", {"axes": [2, 0, 3, 1]}),
        ("transpose", {"axes": [0, 2, 1, 3]}),
        ("slice", {"begin": [0, 1, 0, 1], "end": [2, 3, 5, 6], "strides": [1, 1, 2, 3]}),
        ("broadcast", {"shape": [3, 2, 3, 10, 7]}),
        ("gather", {"axis": 2, "indices": [4, 0, 0, 2]}),
    ],
)
@pytest.mark.parametrize("dtype", TYPES)
def test_movement(op: str, attrs: dict[str, object], dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    shape = (2, 3, 1, 7) if op == "broadcast" else (4, 3, 5, 7)
    writer = ProgramWriter(op, shape, dtype)
    writer.op(op, ["input"], attrs)
    check(writer.program(), tmp_path, rng)


def test_concat(tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("concat", (2, 3, 7), "int8")
    writer.op("concat", ["input", random_values(rng, (2, 1, 7), "int8"), "input"], {"axis": 1})
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_argmax(axis: int, keepdims: int, tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("argmax", (40, 300), "int8")
    writer.op("argmax", ["input"], {"axis": axis, "keepdims": keepdims})
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize("dtype", TYPES)
def test_topk(dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("topk", (4, 300), dtype)
    writer.op("topk", ["input"], {"k": 7})
    check(writer.program(), tmp_path, rng)
