"""An artifact is complete or absent, reads back as it was written, and says what is wrong with a bad one."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio import artifact, program_file
from intaglio.artifact import Contents, InputSpec, Source
from intaglio.backends import c
from intaglio.errors import ArtifactError
from intaglio.ops.reference import run
from intaglio.program import Program, Step, Tensor
from tests.c.programs import block

SOURCE = Source(name="block", file="block.onnx", sha256="0" * 64)
PIXELS = InputSpec(
    name="pixels",
    shape=[1, 3, 16, 16],
    dtype="uint8",
    layout="NCHW",
    kind="uint8",
    scale=None,
    zero_point=0,
    mean=[0.5, 0.5, 0.5],
    std=[0.25, 0.25, 0.25],
)


def contents(**changes: Any) -> Contents:
    program = block()
    made = Contents(program, "c", SOURCE, PIXELS, 1234, {"nonlinear": "exact"}, c.emit(program))
    return dataclasses.replace(made, **changes)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    made = contents()
    artifact.write(tmp_path / "out", made)
    loaded = artifact.load(tmp_path / "out")
    assert loaded.manifest.input == PIXELS
    assert loaded.manifest.source == SOURCE
    assert (loaded.manifest.target, loaded.manifest.workspace_bytes) == ("c", 1234)
    assert {record.path for record in loaded.manifest.files} == {*made.files, "program.json", "constants.npz"}
    assert [(op.name, op.op) for op in loaded.manifest.ops] == [(s.name, s.op) for s in made.program.steps]
    assert loaded.program == made.program
    x = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16)).astype(np.uint8)
    np.testing.assert_array_equal(run(loaded.program, x), run(made.program, x))
    assert loaded.file("model.c").read_text() == made.files["model.c"]


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    artifact.write(tmp_path / "a", contents())
    artifact.write(tmp_path / "b", contents())
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_the_program_is_read_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact.write(tmp_path / "out", contents())
    loaded = artifact.load(tmp_path / "out")
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("constants were read"))
    assert loaded.manifest.output.shape == [1, 10]


def test_large_integers_and_odd_names_survive(tmp_path: Path) -> None:
    attrs = {"offset": -(2**70) + 1, "shift": np.int64(2**62), "indices": (np.int32(3), 4), "dtype": "int8"}
    data = np.array([-(2**63), 2**63 - 1])
    tensors = {
        "file": Tensor("file", (2,), "int8", 1e-300, -128),
        "/a/../b:0": Tensor("/a/../b:0", (2,), "int64", data=data),
        "y": Tensor("y", (2,), "int8", 0.1 + 0.2, 3),
    }
    program = Program("odd", tensors, [Step("s", "reshape", ("file", "/a/../b:0"), "y", attrs)], "file", "y")
    program_file.write_program(tmp_path, program)
    loaded = program_file.read_program(tmp_path)
    assert loaded.steps[0].attrs == {
        "offset": -(2**70) + 1,
        "shift": 2**62,
        "indices": [3, 4],
        "dtype": "int8",
    }
    assert loaded.tensors == program.tensors
    np.testing.assert_array_equal(loaded.tensors["/a/../b:0"].data, data)


def test_build_adds_files(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        assert (folder / "model.c").exists()
        (folder / "lib").mkdir()
        (folder / "lib" / "model.so").write_bytes(b"code")

    made = artifact.write(tmp_path / "out", contents(build=build))
    assert made.file("lib/model.so").read_bytes() == b"code"
    assert artifact.load(tmp_path / "out").manifest == made.manifest


# --- atomicity ---


def test_an_artifact_is_replaced_and_foreign_files_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    artifact.write(out, contents())
    (out / "notes" / "deep").mkdir(parents=True)
    (out / "notes" / "deep" / "mine.txt").write_text("mine")
    artifact.write(out, contents(target="null", files={"other.txt": "new"}))
    assert set(tree(out)) == {
        "other.txt",
        "manifest.json",
        "program.json",
        "constants.npz",
        "notes/deep/mine.txt",
    }
    assert artifact.load(out).manifest.target == "null"
    assert list(tmp_path.iterdir()) == [out]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    artifact.write(tmp_path / "out", contents())
    artifact.load(tmp_path / "out")


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        artifact.write(tmp_path / "out", contents(files={}))
    finally:
        os.umask(previous)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": "something else"}')
    before = tree(tmp_path)
    with pytest.raises(
        ArtifactError, match=r"is not empty and was not written by intaglio; choose another folder"
    ):
        artifact.write(tmp_path, contents())
    assert tree(tmp_path) == before


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ArtifactError, match=r"is a file, not a folder"):
        artifact.write(tmp_path / "out", contents())
    with pytest.raises(ArtifactError, match=r"out' is a file, not a folder"):
        artifact.write(tmp_path / "out" / "below", contents())


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(
        ArtifactError, match=r"cannot write '.*out': Permission denied; choose another folder with -o"
    ):
        artifact.write(tmp_path / "out", contents())
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """Root may write into a read-only folder, but nobody below a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="is a file, not a folder"):
        artifact.write(tmp_path / "file" / "out", contents())


def fail_at(name: str, error: BaseException) -> Callable[[Path, bytes], int]:
    write_bytes = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if path.name == name:
            write_bytes(path, data[: len(data) // 2])
            raise error
        return write_bytes(path, data)

    return write


@pytest.mark.parametrize("name", ["weights.c", "program.json", "manifest.json"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_nothing(
    name: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    if existing:
        artifact.write(out, contents(files={}))
    before = tree(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(Path, "write_bytes", fail_at(name, full))
    with pytest.raises(ArtifactError, match=r"cannot write '.*out': No space left on device"):
        artifact.write(out, contents())
    assert tree(tmp_path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the back end failed")])
def test_a_failure_while_building_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half.so").write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        artifact.write(tmp_path / "out", contents(build=build))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", [1, 2])
def test_an_interrupted_replacement_keeps_the_previous_one(
    which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    artifact.write(out, contents(files={"old.txt": "old"}))
    before = tree(tmp_path)
    rename, calls = Path.rename, []

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == which:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        artifact.write(out, contents())
    assert tree(tmp_path) == before
    assert list(tmp_path.iterdir()) == [out]


# --- what cannot be read ---


@pytest.fixture
def written(tmp_path: Path) -> Path:
    artifact.write(tmp_path / "out", contents())
    return tmp_path / "out"


def edit(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "manifest.json") -> None:
    raw = json.loads((folder / name).read_text())
    change(raw)
    (folder / name).write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda raw: raw.update(format_version=2),
            r"has artifact format 2, written by intaglio .*; upgrade intaglio or",
        ),
        (lambda raw: raw.update(format_version=0), r"has artifact format 0, not 1; compile the model again"),
        (lambda raw: raw.pop("format_version"), r"has artifact format None, not 1"),
        (lambda raw: raw.update(format="x"), r"is not the manifest of an intaglio artifact"),
        (lambda raw: raw.pop("target"), r"manifest.json: target: Field required"),
        (lambda raw: raw.update(colour="red"), r"manifest.json: colour: Extra inputs are not permitted"),
        (
            lambda raw: raw["input"].update(kind="jpeg"),
            r"input.kind: Input should be 'float' or 'uint8', not 'jpeg'",
        ),
        (
            lambda raw: raw["files"][0].update(path="../x"),
            r"files.0.path: .* must be a path inside the artifact",
        ),
    ],
)
def test_a_bad_manifest_is_one_sentence(
    written: Path, change: Callable[[Any], object], sentence: str
) -> None:
    edit(written, change)
    with pytest.raises(ArtifactError, match=sentence):
        artifact.load(written)


def test_a_changed_file_is_noticed(written: Path) -> None:
    with (written / "model.c").open("a") as file:
        file.write("\n")
    with pytest.raises(ArtifactError, match=r"the file 'model.c' was changed after it was compiled"):
        artifact.load(written)
    artifact.load(written, verify=False)


def test_a_missing_file_is_noticed(written: Path) -> None:
    (written / "constants.npz").unlink()
    with pytest.raises(ArtifactError, match=r"the file 'constants.npz' is missing"):
        artifact.load(written)
    with pytest.raises(ArtifactError, match=r"constants.npz cannot be read: "):
        _ = artifact.load(written, verify=False).program


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda raw: raw["tensors"].pop(), r"program.json: tensor '.*' is used but not defined"),
        (
            lambda raw: raw["tensors"][1].update(shape=[5]),
            r"constants.npz: constant '.*' must be .* \[5\], not ",
        ),
        (lambda raw: raw.pop("steps"), r"program.json: steps: Field required"),
    ],
)
def test_a_bad_program_is_one_sentence(written: Path, change: Callable[[Any], object], sentence: str) -> None:
    edit(written, change, "program.json")
    with pytest.raises(ArtifactError, match=sentence):
        _ = artifact.load(written, verify=False).program


def test_what_is_no_artifact_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a folder; expected what intaglio compile wrote"):
        artifact.load(tmp_path / "nothing")
    with pytest.raises(
        ArtifactError, match=re.escape(f"{tmp_path} is not an intaglio artifact: it has no manifest.json")
    ):
        artifact.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"manifest.json is not valid JSON"):
        artifact.load(tmp_path)


def test_an_unknown_file_is_one_sentence(written: Path) -> None:
    with pytest.raises(ArtifactError, match=r"this artifact for target c has no file 'model.so', only "):
        artifact.load(written).file("model.so")
