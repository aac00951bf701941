"""Targets: what a model is compiled for, one TOML file each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from intaglio import toml_file
from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.errors import InputError
from intaglio.resources import data_folder


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""


class CpuTarget(_Base):
    """A shared library made by LLVM. `mcpu`: the processor as LLVM calls it, "host" for this one."""

    kind: Literal["cpu"]
    mcpu: str = Field(default="host", min_length=1)


class CTarget(_Base):
    """Plain C11 sources."""

    kind: Literal["c"]


class NullTarget(_Base):
    """The integer program and nothing else."""

    kind: Literal["null"]


Count = Annotated[int, Field(ge=0)]


class Board(BaseModel):
    """What a board's FPGA has, and its external memory: peak bandwidth in GB/s, read latency in ns.

    `clock_pin`: the package's ball where the board's clock arrives, as place and route calls it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    part: str = ""
    vivado_board: str = ""
    family: Literal["", "ultrascale+", "versal", "7-series", "ecp5"] = ""
    clock_pin: str = ""
    luts: Count | None = None
    ffs: Count | None = None
    dsps: Count | None = None
    bram36: Count | None = None
    urams: Count | None = None
    bandwidth_gb_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    latency_ns: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class FpgaTarget(_Base):
    """The accelerator, in the configuration that suits a board."""

    kind: Literal["fpga"]
    board: Board = Board()
    accelerator: AcceleratorConfig


Target = CpuTarget | CTarget | NullTarget | FpgaTarget

KINDS: dict[str, type[CpuTarget | CTarget | NullTarget | FpgaTarget]] = {
    "cpu": CpuTarget,
    "c": CTarget,
    "null": NullTarget,
    "fpga": FpgaTarget,
}


def find(spec: str) -> Target:
    """The target called `spec`, or the one that the file `spec` (`*.toml`) describes.

    Raises InputError if there is no such target or file, or the file is malformed.
    """
    if spec.endswith(".toml"):
        return load(Path(spec))
    files = _files(data_folder("targets"))
    if spec not in files:
        hint = _nearest(spec, files) or f"known targets: {', '.join(sorted(files))}"
        raise InputError(f"there is no target {spec!r}; {hint}, or give the path of a .toml file.")
    return load(files[spec])


def configured(target: Target, spec: str | None) -> Target:
    """`target` with the accelerator configuration `spec`, if one is given. Raises InputError if it takes none."""
    if spec is None:
        return target
    if not isinstance(target, FpgaTarget):
        raise InputError(
            f"--config: target {target.name!r} is no FPGA, so it takes no accelerator configuration."
        )
    return target.model_copy(update={"accelerator": configuration(spec)})


def available(folder: Path | None = None) -> list[Target]:
    """Every target of `folder` (default: those that ship with intaglio), by name."""
    return [load(path) for _, path in sorted(_files(folder or data_folder("targets")).items())]


def load(path: Path) -> Target:
    """Read one target file. Raises InputError naming the file, the key and what was expected."""
    return _validate(toml_file.read(path, "target"), path)


def configuration(spec: str) -> AcceleratorConfig:
    """The accelerator configuration called `spec`: a preset, or that of an FPGA target.

    Of a .toml file it is the table `accelerator`, or all of it. Raises InputError if there is none, or the file is
    malformed.
    """
    if spec.endswith(".toml"):
        return _configuration_of_file(Path(spec))
    known = {
        entry.name: entry.accelerator for entry in available() if isinstance(entry, FpgaTarget)
    } | PRESETS
    if spec not in known:
        hint = _nearest(spec, known) or f"known configurations: {', '.join(sorted(known))}"
        raise InputError(f"there is no configuration {spec!r}; {hint}, or give the path of a .toml file.")
    return known[spec]


def _configuration_of_file(path: Path) -> AcceleratorConfig:
    values = toml_file.read(path, "target")
    values = values.get("accelerator", values)
    if not isinstance(values, dict):
        raise InputError(f"{path}: key 'accelerator' must be a table, not {values!r}.")
    if not values:
        raise InputError(f"{path}: is empty; it must hold a configuration, or a table 'accelerator'.")
    keys = list(AcceleratorConfig.model_fields)
    unknown = next((key for key in values if key not in keys), None)
    if unknown is not None:
        hint = _nearest(unknown, keys) or f"valid keys: {', '.join(keys)}"
        raise InputError(f"{path}: unknown key {unknown!r} for a configuration; {hint}.")
    try:
        return AcceleratorConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(toml_file.sentence(error, path)) from None


def _validate(values: dict[str, Any], path: Path) -> Target:
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"{path}: key 'kind' must be one of {', '.join(KINDS)}, not {kind!r}.")
    keys = list(KINDS[kind].model_fields)
    unknown = next((key for key in values if key not in keys), None)
    if unknown is not None:
        hint = _nearest(unknown, keys) or f"valid keys: {', '.join(keys)}"
        raise InputError(f"{path}: unknown key {unknown!r} for a target of kind {kind!r}; {hint}.")
    try:
        return KINDS[kind].model_validate(values)
    except ValidationError as error:
        raise InputError(toml_file.sentence(error, path)) from None


def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob("*.toml")}


def _nearest(word: str, choices: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(word, list(choices), n=1)
    return f"did you mean {near[0]!r}" if near else None
