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


@pytest.mark.parametrize(
    ("a", "b", "out"), [("int8", "int8", "int8"), ("int16", "int8", "int16"), ("int8", "int16", "int8")]
)
@pytest.mark.parametrize("b_shape", [(2, 9, 37), (9, 37), (37,), (1,)])
def test_add(
    a: str, b: str, out: str, b_shape: tuple[int, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
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
@pytest.mark.parametrize(
    ("source", "dtype", "channels"),
    [("int8", "int8", 192), ("int16", "int8", 45), ("int16", "int16", 1030), ("int8", "int16", 1)],
)
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
def test_movement(
    op: str, attrs: dict[str, object], dtype: str, tmp_path: Path, rng: np.random.Generator
) -> None:
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


def linear_op(
    writer: ProgramWriter,
    x: str,
    grids: tuple[Grid, Grid],
    channels: int,
    rng: np.random.Generator,
    **fused: object,
) -> str:
    """Append a linear with random weights; `fused` may hold `table` (a Grid) and `residual` (name, Grid, Grid)."""
    source, out = grids
    depth = writer.tensors[x].shape[-1]
    weight = random_values(rng, (channels, depth), str(fused.get("weight", "int8")))
    limit = 256 if weight.dtype == np.int8 else 65536
    scale = rng.uniform(0.2, 2, channels) * out.scale * 80 / (limit * source.scale * (depth**0.5))
    built = ops.linear.parameters(source, weight, scale, rng.normal(size=channels), out)
    inputs, attrs, current = [x, *built.constants], dict(built.attrs), out
    if "table" in fused:
        current = fused["table"]
        inputs += ops.table.parameters(np.tanh, out, current).constants
        attrs["has_table"] = 1
    if "residual" in fused:
        name, grid, result = fused["residual"]
        inputs.append(name)
        added = ops.add.parameters(current, grid, result).attrs
        attrs |= {"has_residual": 1} | {f"add_{key}": value for key, value in added.items()}
    return writer.op("linear", inputs, attrs)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("source", TYPES)
@pytest.mark.parametrize(
    ("rows", "depth", "channels"), [(13, 48, 32), (1, 31, 10), (50, 7, 17), (7, 800, 33)]
)
def test_linear(
    rows: int, depth: int, channels: int, source: str, dtype: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    writer = ProgramWriter("linear", (rows, depth), source)
    linear_op(writer, "input", (GRIDS[source], GRIDS[dtype]), channels, rng)
    check(writer.program(), tmp_path, rng)


def test_linear_with_int64_sums(tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("linear", (7, 2304), "int16")
    linear_op(writer, "input", (INT16, INT8), 40, rng)
    library = check(writer.program(), tmp_path, rng)
    assert str(writer.tensors[writer.steps[0].inputs[2]].dtype) == "int64"
    assert [kernel for _, _, kernel in library.report["calls"]] == ["linear_0"]


@pytest.mark.parametrize("value", [-128, 127])
def test_linear_extremes(value: int, tmp_path: Path, rng: np.random.Generator) -> None:
    weight = np.full((16, 3072), -128, np.int8)
    built = ops.linear.parameters(INT8, weight, 1e-6, np.zeros(16), INT8)
    writer = ProgramWriter("linear", (8, 3072), "int8")
    writer.op("linear", ["input", *built.constants], built.attrs)
    library = check(writer.program(), tmp_path, rng)
    x = np.full((8, 3072), value, np.int8)
    expected = ops.OPS["linear"].reference([x, *built.constants], built.attrs)
    np.testing.assert_array_equal(library.run(x), expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("source", TYPES)
def test_linear_wide_weights(source: str, dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("linear", (9, 64), source)
    linear_op(writer, "input", (GRIDS[source], GRIDS[dtype]), 24, rng, weight="int16")
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize(
    ("out", "table", "residual", "result"),
    [
        ("int8", "int8", None, None),
        ("int8", "int16", None, None),
        ("int16", "int8", None, None),
        ("int8", None, "int8", "int8"),
        ("int16", None, "int16", "int16"),
        ("int8", None, "int16", "int16"),
        ("int8", "int8", "int8", "int8"),
        ("int16", "int16", "int16", "int8"),
    ],
)
@pytest.mark.parametrize("channels", [48, 21])
def test_linear_fused(
    channels: int,
    out: str,
    table: str | None,
    residual: str | None,
    result: str | None,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    writer = ProgramWriter("fused", (20, 48), "int8")
    fused: dict[str, object] = {}
    if table:
        fused["table"] = GRIDS[table]
    if residual:
        fused["residual"] = (
            writer.constant(random_values(rng, (20, channels), residual)),
            GRIDS[residual],
            GRIDS[str(result)],
        )
    linear_op(writer, "input", (INT8, GRIDS[out]), channels, rng, **fused)
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize("source", TYPES)
def test_patch_embed(source: str, tmp_path: Path, rng: np.random.Generator) -> None:
    writer = ProgramWriter("patches", (2, 3, 8, 12), source)
    weight = random_values(rng, (20, 3, 4, 3), "int8")
    built = ops.patch_embed.parameters(GRIDS[source], weight, 0.001, rng.normal(size=20), INT8)
    writer.op("patch_embed", ["input", *built.constants], built.attrs)
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize("rows", [3, 55])
@pytest.mark.parametrize("transpose_b", [0, 1])
@pytest.mark.parametrize(
    ("a", "b", "out"),
    [
        ("int8", "int8", "int8"),
        ("int16", "int16", "int16"),
        ("int8", "int16", "int8"),
        ("int16", "int8", "int8"),
    ],
)
def test_matmul(
    a: str, b: str, out: str, transpose_b: int, rows: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    writer = ProgramWriter("matmul", (2, 3, rows, 23), a)
    other = random_values(rng, (2, 3, 21, 23) if transpose_b else (2, 3, 23, 21), b)
    writer.op(
        "matmul",
        ["input", other],
        ops.matmul.parameters(
            GRIDS[a], GRIDS[b], Grid(0.3 if out == "int8" else 0.002, 4, out), 23, 0.2, transpose_b
        ).attrs,
    )
    check(writer.program(), tmp_path, rng)


@pytest.mark.parametrize(
    ("q", "k", "v", "score", "out"),
    [
        ("int8", "int8", "int8", "int8", "int8"),
        ("int8", "int8", "int8", "int16", "int8"),
        ("int8", "int8", "int16", "int8", "int16"),
        ("int16", "int16", "int16", "int16", "int16"),
    ],
)
@pytest.mark.parametrize(
    ("rows", "keys", "depth", "value_depth"), [(50, 50, 16, 16), (7, 37, 9, 5), (13, 300, 64, 32)]
)
def test_attention(
    q: str,
    k: str,
    v: str,
    score: str,
    out: str,
    rows: int,
    keys: int,
    depth: int,
    value_depth: int,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    writer = ProgramWriter("attention", (1, 2, rows, depth), q)
    grids = (GRIDS[q], GRIDS[k], GRIDS[v], Grid(0.05 if score == "int8" else 0.001, -3, score))
    result = Grid(0.05 if out == "int8" else 0.0002, 2, out)
    built = ops.attention.parameters(*grids, 1 / depth, result, depth=depth, length=keys)
    others = [random_values(rng, (1, 2, keys, depth), k), random_values(rng, (1, 2, keys, value_depth), v)]
    writer.op("attention", ["input", *others, *built.constants], built.attrs)
    check(writer.program(), tmp_path, rng)
