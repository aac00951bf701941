"""Where everything lies: the constants' blob and the parts of the workspace."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from intaglio.backends.arena import Arena
from intaglio.backends.cpu.launch import Launch, Scratch, Temporary
from intaglio.program import Array

ALIGNMENT = 64


def aligned(size: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass
class Blob:
    """Constants appended to one file; equal arrays share their place."""

    path: Path
    size: int = 0
    _places: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.write_bytes(b"")

    def place(self, array: Array) -> int:
        """Byte offset of the array's values."""
        data = np.ascontiguousarray(array)
        key = hashlib.sha256(data.data).digest()
        if key not in self._places:
            self._places[key] = self.size
            self._append(data)
        return self._places[key]

    def place_each(self, arrays: Array) -> tuple[int, int]:
        """Byte offset of the first of `arrays` [n, ...], and the bytes from each to the next."""
        each = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
        stride = aligned(each[0].nbytes)
        return self.place(np.stack([np.pad(data, (0, stride - data.nbytes)) for data in each])), stride

    def _append(self, data: Array) -> None:
        with self.path.open("ab") as file:
            data.tofile(file)
            file.write(bytes(aligned(data.nbytes) - data.nbytes))
        self.size += aligned(data.nbytes)


@dataclass
class Workspace:
    """Activations first, then the temporaries of one step, then the scratch of each thread."""

    arena: Arena
    temporaries: int = 0
    scratch: int = 0

    @property
    def shared(self) -> int:
        """Bytes before the threads' scratch."""
        return self.arena.size + self.temporaries

    def place_temporaries(self, launches: list[Launch]) -> dict[str, int]:
        """Offset of every temporary of one step, by name."""
        places: dict[str, int] = {}
        end = 0
        for operand in (operand for launch in launches for operand in launch.operands):
            if isinstance(operand, Temporary) and operand.name not in places:
                places[operand.name] = self.arena.size + end
                end += aligned(operand.size)
        self.temporaries = max(self.temporaries, end)
        return places

    def place_scratch(self, launch: Launch) -> list[int]:
        """Offset of every scratch operand of a launch within a thread's scratch, in order."""
        places, end = [], 0
        for operand in launch.operands:
            if isinstance(operand, Scratch):
                places.append(end)
                end += aligned(operand.size)
        self.scratch = max(self.scratch, end)
        return places
