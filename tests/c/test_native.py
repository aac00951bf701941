"""The ctypes runner: what it accepts and what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from intaglio.backends.native import NativeModel, ProgramIO, compile_c
from intaglio.errors import InputError, ToolError
from intaglio.program import Tensor

IO = ProgramIO(Tensor("x", (2, 3), "int8"), Tensor("y", (3,), "int16"))

SOURCE = """
#include <stddef.h>
#include <stdint.h>
static int threads = 1;
size_t intaglio_workspace_bytes(void) { return 100; }
void intaglio_set_threads(int count) { threads = count; }
int intaglio_run(const void *input, void *output, void *workspace)
{
    const int8_t *x = input;
    int16_t *y = output;
    for (int i = 0; i < 3; i++) y[i] = (int16_t)(threads * (x[i] + x[3 + i]));
    return (uintptr_t)workspace % 64 != 0 || x[0] == 99 ? 7 : 0;
}
"""


@pytest.fixture
def model(tmp_path: Path) -> NativeModel:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "model.c").write_text(SOURCE)
    return NativeModel(compile_c(tmp_path, tmp_path / "model.so"), IO)


def test_it_runs_any_layout(model: NativeModel) -> None:
    x = np.arange(6, dtype=np.int8).reshape(3, 2).T
    np.testing.assert_array_equal(model.run(x), np.array([1, 5, 9], np.int16))
    assert model.workspace_bytes == 100
    assert model.set_threads(2)
    np.testing.assert_array_equal(model.run(x), np.array([2, 10, 18], np.int16))


def test_wrong_inputs_are_one_sentence(model: NativeModel) -> None:
    with pytest.raises(InputError, match=r"input 'x' must be int8 \[2, 3\], not int8 \[3, 2\]"):
        model.run(np.zeros((3, 2), np.int8))
    with pytest.raises(InputError, match=r"input 'x' must be int8 \[2, 3\], not uint8 \[2, 3\]"):
        model.run(np.zeros((2, 3), np.uint8))
    with pytest.raises(InputError, match=r"the number of threads must be at least 1, not 0"):
        model.set_threads(0)


def test_a_status_is_an_error(model: NativeModel) -> None:
    with pytest.raises(ToolError, match=r"model.so: intaglio_run failed with status 7"):
        model.run(np.full((2, 3), 99, np.int8))


def test_what_is_no_library_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.so").write_text("text")
    with pytest.raises(ToolError, match=r"model.so cannot be loaded as a shared library: "):
        NativeModel(tmp_path / "model.so", IO)


def test_a_library_of_something_else_is_one_sentence(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "code.c").write_text("int something(void);\nint something(void) { return 1; }\n")
    library = compile_c(tmp_path, tmp_path / "code.so")
    with pytest.raises(
        ToolError, match=r"code.so is not a compiled model: it has no function intaglio_workspace_bytes"
    ):
        NativeModel(library, IO)


def test_a_missing_compiler_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.c").write_text(SOURCE)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ToolError, match=r"a C compiler is needed, but neither gcc nor cc was found on PATH"):
        compile_c(tmp_path, tmp_path / "model.so")
    monkeypatch.setenv("CC", "mycc -m32")
    with pytest.raises(
        ToolError, match=r"a C compiler is needed, but 'mycc' \(from \$CC\) was not found on PATH"
    ):
        compile_c(tmp_path, tmp_path / "model.so")


def test_a_failing_compiler_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"holds no C sources to compile"):
        compile_c(tmp_path, tmp_path / "model.so")
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "model.c").write_text("int broken(")
    with pytest.raises(ToolError, match=r"cannot compile .* \(exit status 1\): .*model.c:1"):
        compile_c(tmp_path, tmp_path / "model.so")
