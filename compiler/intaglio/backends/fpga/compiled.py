"""A compiled program as simulators and models take it, in memory or from an artifact's files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from intaglio import target as targets
from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.errors import ArtifactError
from intaglio.program import Array, Tensor

PROGRAM, WEIGHTS, CONFIG, MAP = "program.bin", "weights.bin", "accelerator.toml", "program.map.json"


class Files(Protocol):
    """An artifact: where its files are. `file` raises ArtifactError for one that it lacks."""

    def file(self, name: str) -> Path: ...


@dataclass(frozen=True)
class Compiled:
    """`comments`: what each descriptor is for; `board`: facts of the board that it was compiled for."""

    config: AcceleratorConfig
    program: ProgramFile
    weights: bytes
    comments: Sequence[str]
    board: targets.Board = field(default_factory=targets.Board)


def load(artifact: Files) -> Compiled:
    """The program of an artifact of an FPGA target.

    Raises ArtifactError if it has none or it is malformed, InputError if its accelerator.toml is.
    """
    path = artifact.file(PROGRAM)
    target = targets.load(artifact.file(CONFIG))
    if not isinstance(target, targets.FpgaTarget):
        raise ArtifactError(
            f"{artifact.file(CONFIG)}: describes a target of kind {target.kind!r}, not 'fpga'."
        )
    try:
        program = ProgramFile.unpack(path.read_bytes())
        comments = [comment for _, comment in json.loads(artifact.file(MAP).read_text())]
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return Compiled(target.accelerator, program, artifact.file(WEIGHTS).read_bytes(), comments, target.board)


def result(output: Tensor, data: bytes) -> Array:
    """What the accelerator stored, as the program's output tensor; bytes beyond it are padding."""
    count = int(np.prod(output.shape, dtype=np.int64))
    return np.frombuffer(data, np.dtype(output.dtype).newbyteorder("<"), count).reshape(output.shape)
