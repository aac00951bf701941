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
from typing import Annotated, Any, Literal, TypeVar
from zipfile import BadZipFile

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from intaglio.backends import generator, program_hash
from intaglio.errors import ArtifactError
from intaglio.ops import OPS, TensorType
from intaglio.program import Array, Program, Step, Tensor

FORMAT = "intaglio-artifact"
FORMAT_VERSION = 1
MANIFEST, PROGRAM, CONSTANTS = "manifest.json", "program.json", "constants.npz"

Build = Callable[[Path], None]


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError("must be a path inside the artifact")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Natural = Annotated[int, Field(ge=0)]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Schema = TypeVar("Schema", bound=_Schema)


class Source(_Schema):
    """The model file an artifact was compiled from."""

    name: str
    file: str
    sha256: Sha256


class InputSpec(_Schema):
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


class OutputSpec(_Schema):
    """What the program returns: real = scale * (q - zero_point), or plain integers where scale is None."""

    name: str
    shape: list[int]
    dtype: str
    scale: float | None
    zero_point: int


class OpRecord(_Schema):
    """One step, for people: its types, work, and the ONNX nodes it came from."""

    name: str
    op: str
    inputs: list[str]
    output: str
    macs: Natural
    onnx_nodes: list[str]


class FileRecord(_Schema):
    """One file of the artifact; `path` is relative, with forward slashes."""

    path: RelativePath
    bytes: Natural
    sha256: Sha256


class Manifest(_Schema):
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


class _Tensor(_Schema):
    name: str
    shape: list[Natural]
    dtype: str
    scale: float | None
    zero_point: int
    constant: str | None


class _Step(_Schema):
    name: str
    op: str
    inputs: list[str]
    output: str
    attrs: dict[str, JsonValue]
    onnx_nodes: list[str]


class _Program(_Schema):
    name: str
    input: str
    output: str
    task: str | None = None
    tensors: list[_Tensor]
    steps: list[_Step]


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
        return _read_program(self.path)

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
            _write_program(folder, contents.program)
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


def _write_program(folder: Path, program: Program) -> None:
    arrays: dict[str, Array] = {}
    tensors = []
    for tensor in program.tensors.values():
        key = None
        if tensor.data is not None:
            # Tensor names may hold what a zip archive or np.savez gives another meaning.
            key = f"c{len(arrays)}"
            arrays[key] = tensor.data
        tensors.append(_tensor_record(tensor, key))
    steps = [_step_record(step) for step in program.steps]
    record = _Program(
        name=program.name,
        input=program.input,
        output=program.output,
        task=program.task,
        tensors=tensors,
        steps=steps,
    )
    _write_text(folder / PROGRAM, record.model_dump_json(indent=1) + "\n")
    np.savez(folder / CONSTANTS, **arrays)  # type: ignore[arg-type]  # the stubs read ** as allow_pickle


def _tensor_record(tensor: Tensor, key: str | None) -> _Tensor:
    scale = None if tensor.scale is None else float(tensor.scale)
    shape = [int(size) for size in tensor.shape]
    zero_point = int(tensor.zero_point)
    return _Tensor(
        name=tensor.name, shape=shape, dtype=tensor.dtype, scale=scale, zero_point=zero_point, constant=key
    )


def _step_record(step: Step) -> _Step:
    return _Step(
        name=step.name,
        op=step.op,
        inputs=list(step.inputs),
        output=step.output,
        attrs={name: _plain(value) for name, value in step.attrs.items()},
        onnx_nodes=list(step.onnx_nodes),
    )


def _plain(value: Any) -> JsonValue:
    """Attributes as JSON holds them: NumPy's integers and tuples are not."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an attribute must hold integers, strings and lists, not {value!r}")


def _manifest(folder: Path, contents: Contents) -> Manifest:
    program = contents.program
    output = _tensor_record(program.tensors[program.output], None)
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
    raw = _read_json(path, MANIFEST)
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
    return _validated(Manifest, raw, path / MANIFEST)


def _read_json(path: Path, name: str) -> Any:
    if not path.is_dir():
        raise ArtifactError(f"{path} is not a folder; expected what intaglio compile wrote.")
    try:
        return json.loads((path / name).read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not an intaglio artifact: it has no {name}.") from None
    except OSError as error:
        raise ArtifactError(f"{path / name} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ArtifactError(f"{path / name} is not valid JSON: {error}; compile the model again.") from error


def _validated(schema: type[Schema], raw: Any, path: Path) -> Schema:
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ArtifactError(f"{path}: {where}: {first['msg']}, not {first['input']!r:.60}{more}.") from error


def _check_file(path: Path, record: FileRecord) -> None:
    file = path / record.path
    if not file.is_file():
        raise ArtifactError(f"{path}: the file {record.path!r} is missing; compile the model again.")
    if file_sha256(file) != record.sha256:
        raise ArtifactError(
            f"{path}: the file {record.path!r} was changed after it was compiled (its SHA-256 is not the manifest's); "
            "compile the model again."
        )


def _read_program(path: Path) -> Program:
    record = _validated(_Program, _read_json(path, PROGRAM), path / PROGRAM)
    arrays = _read_constants(path / CONSTANTS)
    tensors = {tensor.name: _tensor(path, tensor, arrays) for tensor in record.tensors}
    steps = [
        Step(step.name, step.op, tuple(step.inputs), step.output, step.attrs, tuple(step.onnx_nodes))
        for step in record.steps
    ]
    named = {record.input, record.output, *([] if record.task is None else [record.task])}
    used = {*named, *(name for step in steps for name in (*step.inputs, step.output))}
    if unknown := sorted(used - set(tensors)):
        raise ArtifactError(f"{path / PROGRAM}: tensor {unknown[0]!r} is used but not defined.")
    return Program(record.name, tensors, steps, record.input, record.output, record.task)


def _read_constants(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read: {error}; compile the model again.") from error


def _tensor(path: Path, record: _Tensor, arrays: Mapping[str, Array]) -> Tensor:
    shape = tuple(record.shape)
    data = None
    if record.constant is not None:
        data = arrays.get(record.constant)
        if data is None or data.shape != shape or str(data.dtype) != record.dtype:
            found = "nothing" if data is None else f"{data.dtype} {list(data.shape)}"
            raise ArtifactError(
                f"{path / CONSTANTS}: constant {record.name!r} must be {record.dtype} {list(shape)}, not {found}."
            )
    return Tensor(record.name, shape, record.dtype, record.scale, record.zero_point, data)
