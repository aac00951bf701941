"""Target c: the generated code computes what the reference does, compiles cleanly, and reads well."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from intaglio.backends import c, native, program_hash
from intaglio.ops.reference import run
from intaglio.program import Array, Program, Step, Tensor
from tests.c.programs import Writer, block, cases_program

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
    parts = list(program.steps[-1].inputs)
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
@pytest.mark.slow
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
    done = subprocess.run(
        [folder / "example", folder / "input.bin"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    output = program.tensors[program.output]
    return np.array(done.stdout.split(), np.int64).astype(output.dtype).reshape(output.shape)


@needs_gcc
@pytest.mark.parametrize("stream", ["int8", "int16"])
def test_a_vision_transformer_equals_the_reference(stream: str, tmp_path: Path) -> None:
    program = block(stream=stream, depth=2)
    model = build(program, tmp_path / "so")
    assert model.workspace_bytes == c.workspace_bytes(program)
    for seed in range(5):
        x = random_input(program, seed)
        expected = run(program, x)
        np.testing.assert_array_equal(model.run(x), expected)
    np.testing.assert_array_equal(run_example(program, tmp_path / "example", x), expected)


def test_generated_text(update_golden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.backends.c.sources.generator", lambda: "intaglio 0.0.0")
    files = c.emit(block("tiny", tokens=1, channels=4, heads=1, patch=2, classes=3))
    if update_golden:
        GOLDEN.mkdir(exist_ok=True)
        for path, text in files.items():
            (GOLDEN / f"{path}.txt").write_text(str(text))
    assert {path.name for path in GOLDEN.iterdir()} == {f"{path}.txt" for path in files}
    for path, text in files.items():
        assert text == (GOLDEN / f"{path}.txt").read_text(), f"{path}: run pytest tests/c --update-golden"


def test_emission_is_pure() -> None:
    assert c.emit(block()) == c.emit(block())
    assert program_hash(block()) != program_hash(block(seed=8))


def test_code_is_tidy() -> None:
    for path, text in c.emit(block()).items():
        lines = str(text).split("\n")
        assert all(line == line.rstrip() for line in lines), path
        assert str(text).endswith("\n")
        assert "\n\n\n" not in str(text), path
        # Rows of text are as long as 32 octal characters make them.
        assert max(map(len, lines)) <= (140 if path.startswith("weights") else 120), path


def test_there_is_no_float_heap_or_wide_integer_in_the_model() -> None:
    for program in (block(), cases_program(1, "int32")):
        for path, text in c.emit(program).items():
            if path.endswith((".c", ".h")) and path != "example.c":
                code = re.sub(r'/\*.*?\*/|".*?"', "", str(text), flags=re.DOTALL)
                assert not re.search(
                    r"\b(float|double|malloc|alloca|__int128|printf)\b|[0-9]\.[0-9]", code
                ), path
                assert set(re.findall(r"#include <(.*)>", str(text))) <= {"stdint.h", "stddef.h", "string.h"}


def odd_program(name: str, tensor: str) -> Program:
    data = np.array([1, -128, 0, 127], np.int8)
    tensors = {
        "exp": Tensor("exp", (4,), "int8"),
        "gamma": Tensor("gamma", (4,), "int8", data=data),
        tensor: Tensor(tensor, (8,), "int8"),
    }
    step = Step("*/ /* ??/\n\\", "concat", ("exp", "gamma"), tensor, {"axis": 0}, ("/a/*/b", "*/", "é\\"))
    return Program(name, tensors, [step], "exp", tensor)


@needs_gcc
@pytest.mark.parametrize(
    "tensor", ["int", "output", "é", "0", "a/b.c:0", "int8_t", "EOF", "_", "concat", "copy_blocks"]
)
def test_odd_names_compile(tensor: str, tmp_path: Path) -> None:
    program = odd_program("*/ name\\", tensor)
    x = np.array([5, 6, 7, 8], np.int8)
    np.testing.assert_array_equal(build(program, tmp_path).run(x), run(program, x))


@needs_gcc
def test_a_program_without_steps_copies(tmp_path: Path) -> None:
    program = Program("identity", {"x": Tensor("x", (4,), "int16")}, [], "x", "x")
    x = np.arange(4, dtype=np.int16)
    np.testing.assert_array_equal(build(program, tmp_path).run(x), x)


@needs_gcc
def test_an_output_that_is_used_again_and_a_dead_result(tmp_path: Path) -> None:
    writer = Writer("reuse", (2, 3), "int8")
    writer.step("y", "transpose", ["pixels"], {"axes": [1, 0]})
    writer.step("z", "reshape", ["y"], {"shape": [6]})
    writer.step("dead", "reshape", ["z"], {"shape": [2, 3]})
    writer.step("last", "reshape", ["z"], {"shape": [3, 2]})
    program = dataclasses.replace(writer.program(), output="y")
    x = np.arange(6, dtype=np.int8).reshape(2, 3)
    np.testing.assert_array_equal(build(program, tmp_path).run(x), x.T)


@needs_gcc
def test_large_constants_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.backends.c.constants._FILE_BYTES", 1500)
    program = block()
    assert {"weights.c", "weights_2.c", "weights_3.c"} <= set(c.emit(program))
    x = random_input(program, 3)
    np.testing.assert_array_equal(build(program, tmp_path).run(x), run(program, x))


@needs_gcc
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_builds_the_example(tmp_path: Path) -> None:
    program = block()
    write(program, tmp_path)
    subprocess.run(["make", "-C", str(tmp_path), "CFLAGS=-O1"], check=True, capture_output=True)
    x = random_input(program, 0)
    x.tofile(tmp_path / "input.bin")
    done = subprocess.run(
        [tmp_path / "example", tmp_path / "input.bin"], capture_output=True, text=True, check=True
    )
    expected = run(program, x).reshape(-1)
    assert [int(line) for line in done.stdout.split()] == expected.tolist()
    assert done.stderr == f"largest at {expected.argmax()}; value = 0.05 * (q - 4)\n"
    short = subprocess.run(
        [tmp_path / "example", tmp_path / "Makefile"], capture_output=True, text=True, check=False
    )
    assert (short.returncode, short.stderr) == (2, f"{tmp_path}/Makefile: must hold exactly 768 bytes\n")
