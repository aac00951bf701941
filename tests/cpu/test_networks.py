"""Whole networks on one and two threads, on this machine and without its vector instructions."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intaglio.backends.cpu import build
from intaglio.errors import ToolError
from intaglio.program import Program
from tests.cpu.floats import floating_point
from tests.cpu.harness import Library, ProgramWriter, check
from tests.cpu.networks import SMALL, VitWriter


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return check(VitWriter(SMALL).build(), tmp_path_factory.mktemp("network"), np.random.default_rng(3))


def test_network(library: Library) -> None:
    assert _exports(library.path) == {"intaglio_run", "intaglio_set_threads", "intaglio_workspace_bytes"}


def test_network_with_int16_residuals(tmp_path: Path) -> None:
    built = check(VitWriter(replace(SMALL, residual="int16")).build(), tmp_path, np.random.default_rng(3))
    assert floating_point(built.path) == []


def test_no_floating_point(library: Library, tmp_path: Path) -> None:
    assert floating_point(library.path) == []
    source, control = tmp_path / "control.c", tmp_path / "control.so"
    source.write_text("float f(float x, int n) { return x * x + n; }")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", source, "-o", control], check=True)
    assert len(floating_point(control)) >= 3


def test_network_without_avx2(tmp_path: Path) -> None:
    check(VitWriter(SMALL).build(), tmp_path, np.random.default_rng(4), cpu="x86-64-v2")
    assert "ymm" not in _disassembly(tmp_path / "libmodel.so")


def test_needs_nothing_but_libc(library: Library) -> None:
    listing = subprocess.run(["ldd", library.path], capture_output=True, text=True, check=True).stdout
    names = {line.split()[0].split("/")[-1].split(".")[0] for line in listing.splitlines()}
    assert names <= {"linux-vdso", "libc", "libpthread", "ld-linux-x86-64"}


def test_example(library: Library) -> None:
    folder = library.path.parent
    flags = ["-O2", "-Wall", "-Werror", "example.c", "-L.", "-lmodel", "-Wl,-rpath,$ORIGIN", "-o", "example"]
    subprocess.run(["gcc", *flags], cwd=folder, check=True)
    x = np.random.default_rng(6).integers(0, 256, (1, 3, SMALL.image, SMALL.image), np.uint8)
    out = subprocess.run([folder / "example"], input=x.tobytes(), capture_output=True, check=True).stdout
    assert out == library.run(x).tobytes()


def test_rebuild_leaves_a_loaded_library_alone(tmp_path: Path) -> None:
    library = check(_table_program(np.arange(-128, 128)), tmp_path, np.random.default_rng(7))
    build(_table_program(np.arange(127, -129, -1)), tmp_path)
    x = np.arange(8, dtype=np.int8)
    np.testing.assert_array_equal(library.run(x), x)


def _table_program(table: np.ndarray) -> Program:
    writer = ProgramWriter("table", (8,), "int8")
    writer.op("table", ["input", table.astype(np.int8)])
    return writer.program()


def test_missing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ToolError, match="links with gcc, which is not on PATH"):
        build(VitWriter(SMALL).build(), tmp_path)


def _exports(library: Path) -> set[str]:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[-1] for line in listing.splitlines()}


def _disassembly(library: Path) -> str:
    command = ["objdump", "-d", "--no-show-raw-insn", library]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
