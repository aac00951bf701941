"""Damaged models: never a traceback, never a wrong result in silence.

By default the examples are the same ones every time, for some tens of seconds; INTAGLIO_FUZZ=N takes N times as many,
and others each time. A failure prints the seed that makes the same model again:
`mutations.mutate(SEEDS[name][1], seed, count)`.
"""

from __future__ import annotations

import os
import random
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from intaglio.compiler import to_program
from intaglio.errors import CalibrationError, IntaglioError
from intaglio.program import Program
from tests.frontend.graphs import Array, run_onnxruntime, run_program
from tests.frontend.mutations import is_tame, mutate, remove_rounding
from tests.frontend.seeds import SEEDS

FIXTURES = Path(__file__).parents[1] / "fixtures"
# The smallest of some forms, whose bytes are damaged.
FILES = (
    "ort_static_legacy_u8s8_pc",
    "ort_static_legacy_qop_u8s8_pc_gemm",
    "brevitas_qonnx_w4_legacy",
    "timm_dynamo_op23",
)
BYTES = {name: (FIXTURES / f"{name}.onnx").read_bytes() for name in FILES}
TIMES = int(os.environ.get("INTAGLIO_FUZZ", "1"))

# A wrong result is off by much: a wrong bias, weight or axis by thousands of the 65536 steps of a 16-bit output, and by
# more than a few percent of the largest result. Rounding alone is not, in graphs of one layer with 16-bit activations:
# the worst seen are 300 steps (probabilities of 8 bits) and 120 (a bias, in the coarse accumulator steps of an input
# whose scale was made 3.0).
STEPS = 400
PART = 0.02


def fuzz(examples: int) -> settings:
    """Bounded by the number of examples, not by time; the seed of a failure is printed."""
    health = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        print_blob=True,
        database=None,
        suppress_health_check=health,
    )


def compiled(content: bytes) -> Program | None:
    """The program, or None if the model is refused in one sentence; any other exception is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                return to_program(path)
            except IntaglioError as refusal:
                assert str(refusal)
                assert "\n" not in str(refusal)
                assert "Traceback" not in str(refusal)
                return None


# --- bytes --------------------------------------------------------------------------------------------------

places = st.floats(0, 1, exclude_max=True)
flips = st.tuples(st.just("flip"), places, st.integers(1, 255))
inserts = st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=9))
deletes = st.tuples(st.just("delete"), places, st.integers(1, 9))
truncations = st.tuples(st.just("truncate"), places, st.just(0))
damages = st.lists(st.one_of(flips, inserts, deletes, truncations), min_size=1, max_size=4)


def damaged(content: bytes, changes: list[tuple[str, float, int | bytes]]) -> bytes:
    """The bytes after all changes."""
    data = bytearray(content)
    for kind, where, what in changes:
        at = int(where * len(data))
        if not data:
            break
        if kind == "flip" and isinstance(what, int):
            data[at] ^= what
        elif kind == "insert" and isinstance(what, bytes):
            data[at:at] = what
        elif kind == "delete" and isinstance(what, int):
            del data[at : at + what]
        else:
            del data[at:]
    return bytes(data)


@fuzz(60)
@given(st.sampled_from(FILES), damages)
def test_damaged_files(name: str, changes: list[tuple[str, float, int | bytes]]) -> None:
    compiled(damaged(BYTES[name], changes))


@fuzz(300)
@given(st.sampled_from(sorted(SEEDS)), damages)
def test_damaged_small_files(name: str, changes: list[tuple[str, float, int | bytes]]) -> None:
    """Mostly structure, few weights: nearly every change hits a name, a length or a type."""
    compiled(damaged(SEEDS[name][1].SerializeToString(), changes))


@fuzz(100)
@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes(content: bytes) -> None:
    assert compiled(content) is None


# --- graphs -------------------------------------------------------------------------------------------------


def input_of(model: onnx.ModelProto) -> Array:
    """Real values of the shape that the model takes."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def expected_of(model: onnx.ModelProto, x: Array) -> Array | None:
    """What ONNX Runtime computes; None where it refuses, or where no real numbers come out."""
    try:
        y = run_onnxruntime(model, x)
    except Exception:  # its exceptions have no common base but Exception
        return None
    return y if y.dtype.kind == "f" and np.isfinite(y).all() else None


def assert_close(program: Program, got: Array, expected: Array) -> None:
    """No wrong result: see STEPS and PART."""
    assert got.shape == expected.shape
    scale = program.tensors[program.output].scale
    assert scale is not None
    worst = float(np.abs(got - expected.astype(np.float64)).max(initial=0))
    peak = float(np.abs(expected).max(initial=0))
    assert worst <= min(STEPS * scale, PART * peak + 3 * scale), (
        f"{worst / scale:.0f} steps of {scale}, peak {peak}"
    )


@fuzz(700)
@given(st.sampled_from(sorted(SEEDS)), st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_damaged_graphs(name: str, seed: int, count: int) -> None:
    check_damaged(name, seed, count)


def check_damaged(name: str, seed: int, count: int) -> bool:
    """Whether the results of a damaged graph could be compared, being compiled by us and run by ONNX Runtime."""
    model = mutate(SEEDS[name][1], seed, count)
    program = compiled(model.SerializeToString())
    if program is None or not is_tame(model):
        return False
    x = input_of(model)
    expected = expected_of(model, x)
    if expected is None:
        return False
    if program.tensors[program.input].scale is None:
        return False  # the raw input is joined to something: see test_the_raw_input_joined_to_a_constant
    assert_close(program, run_program(program, x), expected)
    return True


def test_the_comparison_is_not_empty() -> None:
    """Of the damaged graphs a good part compiles and runs, so that there is something to compare."""
    compared = sum(check_damaged(sorted(SEEDS)[seed % len(SEEDS)], seed, 1 + seed % 2) for seed in range(200))
    assert compared >= 20


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_an_undamaged_graph(name: str) -> None:
    graph, model = SEEDS[name]
    program = compiled(model.SerializeToString())
    assert program is not None
    assert_close(program, run_program(program, graph.samples), run_onnxruntime(model, graph.samples))


@pytest.mark.parametrize("change", ["transposed weight", "bias", "scale", "permutation"])
def test_the_criterion_sees_a_wrong_result(change: str) -> None:
    """A program compared with a model that differs by one of the mistakes that a compiler makes."""
    graph, model = SEEDS["linear" if change != "permutation" else "attention"]
    program = compiled(model.SerializeToString())
    assert program is not None
    other = onnx.ModelProto.FromString(model.SerializeToString())
    if change == "permutation":
        next(n for n in other.graph.node if n.op_type == "Softmax").attribute[0].i = 2
    else:
        tensors = list(other.graph.initializer)
        matrix = next(t for t in tensors if len(t.dims) == 2)
        target = {
            "transposed weight": matrix,
            "bias": next(
                t for t in tensors if list(t.dims) == [16] and np.any(onnx.numpy_helper.to_array(t) < 0)
            ),
            "scale": tensors[tensors.index(matrix) + 1],
        }[change]
        values = np.array(onnx.numpy_helper.to_array(target))
        values = values[::-1] if values.ndim == 2 else values * (1.05 if change == "scale" else 0.9)
        dtype = values.dtype if values.dtype != np.float64 else np.float32
        target.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values, dtype), target.name))
    expected = run_onnxruntime(other, graph.samples)
    with pytest.raises(AssertionError):
        assert_close(program, run_program(program, graph.samples), expected)


def test_a_removed_quantizer_is_named() -> None:
    """Without one of its Q/DQ pairs a graph lacks a scale, and the sentence says which."""
    for seed in range(20):
        model = onnx.ModelProto.FromString(SEEDS["gelu"][1].SerializeToString())
        remove_rounding(model, random.Random(seed))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model.SerializeToString())
            with pytest.raises(CalibrationError, match="left in floating point"):
                to_program(path)
