"""Program and constants of an artifact, `program.json` and `constants.npz`, and how JSON files are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from intaglio.errors import ArtifactError
from intaglio.program import Array, Program, Step, Tensor

PROGRAM, CONSTANTS = "program.json", "constants.npz"

Natural = Annotated[int, Field(ge=0)]


class FileSchema(BaseModel):
    """What every part of an artifact's JSON files has in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Schema = TypeVar("Schema", bound=FileSchema)


class _Tensor(FileSchema):
    name: str
    shape: list[Natural]
    dtype: str
    scale: float | None
    zero_point: int
    constant: str | None


class _Step(FileSchema):
    name: str
    op: str
    inputs: list[str]
    output: str
    attrs: dict[str, JsonValue]
    onnx_nodes: list[str]


class _Program(FileSchema):
    name: str
    input: str
    output: str
    task: str | None = None
    tensors: list[_Tensor]
    steps: list[_Step]


def write_program(folder: Path, program: Program) -> None:
    """Write both files to `folder`. Raises TypeError for an attribute that JSON cannot hold."""
    arrays: dict[str, Array] = {}
    tensors = []
    for tensor in program.tensors.values():
        key = None
        if tensor.data is not None:
            # Tensor names may hold what a zip archive or np.savez gives another meaning.
            key = f"c{len(arrays)}"
            arrays[key] = tensor.data
        tensors.append(tensor_record(tensor, key))
    steps = [_step_record(step) for step in program.steps]
    record = _Program(
        name=program.name,
        input=program.input,
        output=program.output,
        task=program.task,
        tensors=tensors,
        steps=steps,
    )
    (folder / PROGRAM).write_bytes((record.model_dump_json(indent=1) + "\n").encode())
    np.savez(folder / CONSTANTS, **arrays)  # type: ignore[arg-type]  # the stubs read ** as allow_pickle


def tensor_record(tensor: Tensor, key: str | None) -> _Tensor:
    """A tensor as program.json has it; `key`: its array in constants.npz, None if it has no value."""
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


def read_json(path: Path, name: str) -> Any:
    """The JSON file `name` of folder `path`. Raises ArtifactError where there is none."""
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


def validated(schema: type[Schema], raw: Any, path: Path) -> Schema:
    """`raw` as `schema` has it. Raises ArtifactError naming `path` and the field."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ArtifactError(f"{path}: {where}: {first['msg']}, not {first['input']!r:.60}{more}.") from error


def read_program(path: Path) -> Program:
    """Read both files in folder `path`. Raises ArtifactError where they are malformed."""
    record = validated(_Program, read_json(path, PROGRAM), path / PROGRAM)
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
