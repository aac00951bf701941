"""The folder that `intaglio compile` writes: manifest, program, constants and the back end's files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from intaglio.backends import generator, program_hash
from intaglio.errors import ArtifactError
from intaglio.ops import OPS, TensorType
from intaglio.program import Program, Step, Tensor
from intaglio.program_file import (
    CONSTANTS,
    PROGRAM,
    FileSchema,
    Natural,
    read_json,
    read_program,
    tensor_record,
    validated,
    write_program,
)

FORMAT = "intaglio-artifact"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"

Build = Callable[[Path], None]


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError("must be a path inside the artifact")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Source(FileSchema):
    """The model file an artifact was compiled from."""

    name: str
    file: str
    sha256: Sha256


class InputSpec(FileSchema):
    """What the caller supplies.

    `kind` uint8: raw pixels, converted by the program. `kind` float: values that the caller normalizes with `mean`
    and `std` where given, and quantizes with `scale` and `zero_point`. `shape` and `dtype` are the program's.
    """

    name: str
    shape: list[int]
    dtype: str
    layout: str
    kind: Literal["float", "uint8"]
    scale: float | None
    zero_point: int
    mean: list[float] | None = None
    std: list[float] | None = None


class OutputSpec(FileSchema):
    """What the program returns: real = scale * (q - zero_point), or plain integers where scale is None."""

    name: str
    shape: list[int]
    dtype: str
    scale: float | None
    zero_point: int


class OpRecord(FileSchema):
    """One step, for people: its types, work, and the ONNX nodes it came from."""

    name: str
    op: str
    inputs: list[str]
    output: str
    macs: Natural
    onnx_nodes: list[str]


class FileRecord(FileSchema):
    """One file of the artifact; `path` is relative, with forward slashes."""

    path: RelativePath
    bytes: Natural
    sha256: Sha256


class Manifest(FileSchema):
    """`manifest.json`: everything but the numbers."""

    format: Literal["intaglio-artifact"]
    format_version: int
    generator: str
    target: str
    source: Source
    options: dict[str, JsonValue]
    input: InputSpec
    output: OutputSpec
    tasks: Annotated[int, Field(ge=1)] = 1
    workspace_bytes: Natural
    program_sha256: Sha256
    ops: list[OpRecord]
    files: list[FileRecord]


@dataclass(frozen=True)
class Contents:
    """What `write` puts into an artifact.

    `files`: the back end's sources, {relative path: text or bytes}. `build(folder)`, if given, runs in the folder
    once they are there and may add files, a shared library for example.
    """

    program: Program
    target: str
    source: Source
    input: InputSpec
    workspace_bytes: int
    options: Mapping[str, JsonValue]
    files: Mapping[str, str | bytes]
    build: Build | None = None


@dataclass(frozen=True)
class Artifact:
    """A compiled model on disk. The program and its constants are read when they are first asked for."""

    path: Path
    manifest: Manifest

    @cached_property
    def program(self) -> Program:
        """Raises ArtifactError where program.json or constants.npz is malformed."""
        return read_program(self.path)

    def file(self, name: str) -> Path:
        """The path of one of the artifact's files. Raises ArtifactError if it has no such file."""
        if name not in {record.path for record in self.manifest.files}:
            known = ", ".join(record.path for record in self.manifest.files)
            raise ArtifactError(
                f"{self.path}: this artifact for target {self.manifest.target} has no file {name!r}, only {known}."
            )
        return self.path / name


def sources(artifact: Artifact, folder: str) -> dict[str, str]:
    """The texts of the artifact's files in `folder`, {"<folder>/<name>": text}."""
    names = [record.path for record in artifact.manifest.files if record.path.startswith(f"{folder}/")]
    return {name: artifact.file(name).read_text() for name in names}


def write(out_dir: Path | str, contents: Contents) -> Artifact:
    """Write an artifact to `out_dir`, all of it or nothing.

    Everything is made in a temporary folder beside `out_dir` and renamed into place. An artifact that is there
    already is replaced (files that are not its own are kept); any other non-empty folder is refused. Raises
    ArtifactError where the folder cannot be written.
    """
    out_dir = Path(out_dir).absolute()
    with staging(out_dir) as folder:
        with _explained(out_dir):
            _write_files(folder, contents.files)
            write_program(folder, contents.program)
        if contents.build is not None:
            contents.build(folder)
        with _explained(out_dir):
            _write_text(folder / MANIFEST, _manifest(folder, contents).model_dump_json(indent=2) + "\n")
    return load(out_dir, verify=False)


def load(path: Path | str, *, verify: bool = True) -> Artifact:
    """Read the artifact in folder `path`; `verify` compares every file with its SHA-256.

    Raises ArtifactError if the folder is no artifact, of a newer format, malformed, or if a file was changed.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    if verify:
        for record in manifest.files:
            _check_file(path, record)
    return Artifact(path, manifest)


# --- writing ------------------------------------------------------------------------------------------------------


@contextmanager
def staging(out_dir: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out_dir` when the block ends, and vanishes if it raises."""
    out_dir = out_dir.resolve()
    with _explained(out_dir):
        _check_replaceable(out_dir)
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", suffix=".partial", dir=out_dir.parent))
    try:
        yield folder
        with _explained(out_dir):
            folder.chmod(0o777 & ~_umask())
            _move_into_place(folder, out_dir)
    finally:
        # Gone already when all went well.
        shutil.rmtree(folder, ignore_errors=True)


def check_writable(out_dir: Path | str) -> None:
    """Fail now rather than after a long compilation: raises ArtifactError if `write` could not write `out_dir`."""
    out_dir = Path(out_dir).resolve()
    with _explained(out_dir):
        _check_replaceable(out_dir)
        nearest = next(parent for parent in out_dir.parents if parent.exists())
        Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", suffix=".partial", dir=nearest)).rmdir()


@contextmanager
def _explained(out_dir: Path) -> Iterator[None]:
    """The system's refusals as one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ArtifactError(
            f"cannot write {str(out_dir)!r}: {reason}; choose another folder with -o."
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check_replaceable(out_dir: Path) -> None:
    nearest = next(path for path in (out_dir, *out_dir.parents) if path.exists())
    if not nearest.is_dir():
        raise ArtifactError(f"{str(nearest)!r} is a file, not a folder; choose another folder with -o.")
    if nearest != out_dir:
        return
    if any(out_dir.iterdir()) and not _is_ours(out_dir):
        raise ArtifactError(
            f"{str(out_dir)!r} is not empty and was not written by intaglio; choose another folder with -o."
        )


def _is_ours(folder: Path) -> bool:
    try:
        raw = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and raw.get("format") == FORMAT


def _move_into_place(folder: Path, out_dir: Path) -> None:
    if not out_dir.exists() or not any(out_dir.iterdir()):
        folder.rename(out_dir)
        return
    previous = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", suffix=".previous", dir=out_dir.parent))
    try:
        out_dir.rename(previous)
        folder.rename(out_dir)
    except BaseException:
        # Renaming the empty folder `previous` over a non-empty one fails: then nothing had been moved.
        with suppress(OSError):
            previous.rename(out_dir)
        with suppress(OSError):
            previous.rmdir()
        raise
    _keep_foreign_files(previous, out_dir)
    shutil.rmtree(previous)


def _keep_foreign_files(previous: Path, out_dir: Path) -> None:
    """Move what the user put beside the previous artifact's files over to the new one."""
    own = {record.path for record in _read_manifest(previous).files} | {MANIFEST}
    for path in sorted(previous.rglob("*")):
        relative = path.relative_to(previous)
        target = out_dir / relative
        if (path.is_dir() and not path.is_symlink()) or relative.as_posix() in own or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def _write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        if _inside(name) in {MANIFEST, PROGRAM, CONSTANTS}:
            raise ValueError(f"a back end must not write {name!r}")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            _write_text(path, content)
        else:
            path.write_bytes(content)


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def _manifest(folder: Path, contents: Contents) -> Manifest:
    program = contents.program
    output = tensor_record(program.tensors[program.output], None)
    return Manifest(
        format="intaglio-artifact",
        format_version=FORMAT_VERSION,
        generator=generator(),
        target=contents.target,
        source=contents.source,
        options=dict(contents.options),
        input=contents.input,
        output=OutputSpec(**output.model_dump(exclude={"constant"})),
        tasks=program.tasks,
        workspace_bytes=contents.workspace_bytes,
        program_sha256=program_hash(program),
        ops=[_op_record(program, step) for step in program.steps],
        files=[_file_record(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()],
    )


def _op_record(program: Program, step: Step) -> OpRecord:
    types = {name: _type(program.tensors[name]) for name in (*step.inputs, step.output)}
    activations = [name for name in step.inputs if not program.tensors[name].is_constant]
    return OpRecord(
        name=step.name,
        op=step.op,
        inputs=[str(types[name]) for name in activations],
        output=str(types[step.output]),
        macs=OPS[step.op].cost([types[name] for name in step.inputs], step.attrs).macs,
        onnx_nodes=list(step.onnx_nodes),
    )


def _type(tensor: Tensor) -> TensorType:
    return TensorType(tuple(int(size) for size in tensor.shape), tensor.dtype)


def _file_record(folder: Path, path: Path) -> FileRecord:
    return FileRecord(
        path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=file_sha256(path)
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- reading ------------------------------------------------------------------------------------------------------


def _read_manifest(path: Path) -> Manifest:
    raw = read_json(path, MANIFEST)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ArtifactError(
            f"{path / MANIFEST} is not the manifest of an intaglio artifact (format {FORMAT!r})."
        )
    version = raw.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has artifact format {version}, written by {raw.get('generator')}, but this version reads formats "
            f"up to {FORMAT_VERSION}; upgrade intaglio or compile the model again."
        )
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has artifact format {version!r}, not {FORMAT_VERSION}; compile the model again."
        )
    return validated(Manifest, raw, path / MANIFEST)


def _check_file(path: Path, record: FileRecord) -> None:
    file = path / record.path
    if not file.is_file():
        raise ArtifactError(f"{path}: the file {record.path!r} is missing; compile the model again.")
    if file_sha256(file) != record.sha256:
        raise ArtifactError(
            f"{path}: the file {record.path!r} was changed after it was compiled (its SHA-256 is not the manifest's); "
            "compile the model again."
        )
