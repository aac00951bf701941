"""Target c: the generated code computes what the reference does, compiles cleanly, and reads well."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from intaglio.backends import c, native
from intaglio.backends.c import emit as emitter
from intaglio.ops.reference import run
from intaglio.program import Array, Program, Step, Tensor
from tests.c.programs import block, cases_program

GOLDEN = Path(__file__).parent / "golden"
SANITIZERS = ("-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic")

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def write(program: Program, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in c.emit(program).items():
        assert isinstance(text, str)
        (folder / path).write_text(text)
    return folder


def build(program: Program, folder: Path) -> native.NativeModel:
    library = native.compile_c(write(program, folder), folder / "model.so")
    return native.NativeModel(library, native.ProgramIO.of(program))


def random_input(program: Program, seed: int) -> Array:
    tensor = program.tensors[program.input]
    limits = np.iinfo(tensor.dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, tensor.shape).astype(tensor.dtype)


def mismatches(program: Program, expected: Array, actual: Array) -> list[str]:
    """The cases of a `cases_program` that differ."""
    parts = [name for name in program.steps[-1].inputs]
    ends = np.cumsum([program.tensors[name].shape[0] for name in parts])
    starts = [0, *ends[:-1]]
    return [
        name
        for name, start, end in zip(parts, starts, ends, strict=True)
        if not np.array_equal(expected[start:end], actual[start:end])
    ]


@needs_gcc
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_every_op_equals_the_reference(dtype: str, tmp_path: Path) -> None:
    program = cases_program(20261123, dtype)
    x = random_input(program, 1)
    actual = build(program, tmp_path).run(x)
    assert mismatches(program, run(program, x), actual) == []


@needs_gcc
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_every_op_is_free_of_undefined_behaviour(dtype: str, tmp_path: Path) -> None:
    program = cases_program(4, dtype)
    x = random_input(program, 1)
    expected = run(program, x)
    assert mismatches(program, expected, run_example(program, tmp_path, x)) == []


def run_example(program: Program, folder: Path, x: Array) -> Array:
    """The output of the generated example program, built with the sanitizers."""
    write(program, folder)
    x.tofile(folder / "input.bin")
    sources = sorted(str(path) for path in folder.glob("*.c"))
    command = ["gcc", *STRICT, *SANITIZERS, "-o", str(folder / "example"), *sources]
    subprocess.run(command, check=True)
    done = subprocess.run([folder / "example", folder / "input.bin"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    output = program.tensors[program.output]
    return np.array(done.stdout.split(), np.int64).astype(output.dtype).reshape(output.shape)


@needs_gcc
@pytest.mark.parametrize("stream", ["int8", "int16"])
def test_a_vision_transformer_equals_the_reference(stream: str, tmp_path: Path) -> None:
    program = block(stream=stream, depth=2)
    model = build(program, tmp_path / "so")
    for seed in range(5):
        x = random_input(program, seed)
        expected = run(program, x)
        np.testing.assert_array_equal(model.run(x), expected)
    np.testing.assert_array_equal(run_example(program, tmp_path / "example", x), expected)
