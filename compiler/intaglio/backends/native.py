"""Runs a compiled model: the shared library of the `c` and of the `cpu` target, through ctypes."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from intaglio.errors import InputError, ToolError
from intaglio.program import Array, Program, Tensor

CFLAGS = ("-O3", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic")

_ALIGNMENT = 64


@dataclass(frozen=True)
class ProgramIO:
    """The two tensors a caller of a compiled model sees."""

    input: Tensor
    output: Tensor

    @classmethod
    def of(cls, program: Program) -> ProgramIO:
        return cls(program.tensors[program.input], program.tensors[program.output])


class NativeModel:
    """A model in a shared library with `intaglio_workspace_bytes`, `intaglio_run` and, optionally,
    `intaglio_set_threads`.

    One object holds one workspace: use one object per thread.
    """

    def __init__(self, path: Path | str, io: ProgramIO) -> None:
        self.path = Path(path)
        self.io = io
        self._library = _open(self.path)
        self._library.intaglio_workspace_bytes.restype = ctypes.c_size_t
        self._library.intaglio_run.argtypes = [ctypes.c_void_p] * 3
        self._library.intaglio_run.restype = ctypes.c_int
        self._workspace = _aligned(self.workspace_bytes)

    @property
    def workspace_bytes(self) -> int:
        return int(self._library.intaglio_workspace_bytes())

    def set_threads(self, count: int) -> bool:
        """Use `count` threads from now on; False where the library has one thread only."""
        if count < 1:
            raise InputError(f"the number of threads must be at least 1, not {count!r}")
        if not hasattr(self._library, "intaglio_set_threads"):
            return False
        self._library.intaglio_set_threads(ctypes.c_int(count))
        return True

    def run(self, x: Array, task: int = 0) -> Array:
        """The output for `x`, which must have the input's shape and dtype (InputError), and `task`."""
        expected = self.io.input
        if x.shape != expected.shape or x.dtype != np.dtype(expected.dtype):
            wanted = f"{expected.dtype} {list(expected.shape)}"
            raise InputError(f"input {expected.name!r} must be {wanted}, not {x.dtype} {list(x.shape)}")
        if self.workspace_bytes > self._workspace.nbytes:  # more threads since, of this object or another
            self._workspace = _aligned(self.workspace_bytes)
        x = np.ascontiguousarray(x)
        output = np.empty(self.io.output.shape, self.io.output.dtype)
        status = self._call(x, task, output)
        if status != 0:
            raise ToolError(f"{self.path}: intaglio_run failed with status {status}")
        return output

    def _call(self, x: Array, task: int, output: Array) -> int:
        """What `intaglio_run` returns, or for a model with tasks `intaglio_run_task`."""
        library, after = self._library, (output.ctypes.data, self._workspace.ctypes.data)
        if hasattr(library, "intaglio_run_task"):
            library.intaglio_run_task.argtypes = [
                ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p,
            ]  # fmt: skip
            return int(library.intaglio_run_task(x.ctypes.data, task, *after))
        if task != 0:
            raise InputError(f"{self.path}: the task must be 0: this model has one task, not {task!r}")
        return int(library.intaglio_run(x.ctypes.data, *after))


def compile_c(sources: Path, library: Path, flags: Sequence[str] = CFLAGS) -> Path:
    """Build the C target's sources into the shared library `library` and return its path.

    The compiler is `$CC`, else gcc or cc. Raises ToolError if there is none or it fails.
    """
    files = sorted(str(path) for path in sources.glob("*.c") if path.name != "example.c")
    if not files:
        raise ToolError(f"{sources} holds no C sources to compile")
    command = [*compiler(), *flags, "-fPIC", "-shared", "-o", str(library), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = (done.stderr or done.stdout).strip()[:2000]
        raise ToolError(f"{command[0]} cannot compile {sources} (exit status {done.returncode}): {message}")
    return library


def compiler() -> list[str]:
    """The command of the host's C compiler."""
    wanted = shlex.split(os.environ.get("CC", ""))
    for candidate in [wanted] if wanted else [["gcc"], ["cc"]]:
        if shutil.which(candidate[0]):
            return candidate
    named = f"{wanted[0]!r} (from $CC)" if wanted else "neither gcc nor cc"
    found = "was not found" if wanted else "was found"
    raise ToolError(f"a C compiler is needed, but {named} {found} on PATH; install gcc or set CC")


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise ToolError(f"{path} cannot be loaded as a shared library: {error}") from error
    for function in ("intaglio_workspace_bytes", "intaglio_run"):
        if not hasattr(library, function):
            raise ToolError(f"{path} is not a compiled model: it has no function {function}")
    return library


def _aligned(size: int) -> Array:
    """`size` bytes that begin at a multiple of 64."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]
