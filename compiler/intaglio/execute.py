"""Runs a compiled model on any number of samples, on one of its executions."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intaglio import artifact as artifacts
from intaglio.backends import fpga
from intaglio.backends.fpga import hls
from intaglio.backends.fpga.compiled import PROGRAM
from intaglio.backends.fpga.csim import Csim
from intaglio.backends.native import NativeModel, ProgramIO, compile_c
from intaglio.errors import ArtifactError, InputError, ToolError
from intaglio.feed import dequantize, quantize
from intaglio.hw.iss import Simulator
from intaglio.ops import reference
from intaglio.program import Array, Program, Tensor

if TYPE_CHECKING:
    from intaglio.artifact import Artifact

DEVICES = ("cpu", "c", "csim", "iss", "reference")
"""Every execution, the fastest first: `csim` and `iss` run the accelerator's program, as C++ and in its simulator."""

Batch = Callable[[Array, int], Array]
"""Samples of one call and the task to results."""


def library(artifact: Artifact) -> Path | None:
    """The shared library of target `cpu`, if `artifact` holds one."""
    return _held(artifact, "libmodel.so")


def c_sources(artifact: Artifact) -> Path | None:
    """The folder with the C sources of target `c`, if `artifact` holds them."""
    source = _held(artifact, "model.c")
    return None if source is None else source.parent


def accelerator(artifact: Artifact) -> Path | None:
    """The accelerator's program of an FPGA target, if `artifact` holds one."""
    return _held(artifact, PROGRAM)


def shipped(artifact: Artifact) -> list[str]:
    """The executions that `artifact` holds, the fastest first; the reference runs everything."""
    held = {
        "cpu": library(artifact),
        "c": c_sources(artifact),
        "csim": accelerator(artifact),
        "iss": accelerator(artifact),
        "reference": artifact.path,
    }
    return [device for device in DEVICES if held[device] is not None]


def _held(artifact: Artifact, name: str) -> Path | None:
    paths = (Path(record.path) for record in artifact.manifest.files)
    return next((artifact.path / path for path in paths if path.name == name), None)


class Executor:
    """One execution of one artifact. Close it, or use it as a context manager: `c` builds into a temporary folder."""

    def __init__(self, artifact: Artifact, device: str | None = None, threads: int | None = None) -> None:
        """`device`: one of DEVICES (default: the fastest that `artifact` holds).

        `c` is built with the host's compiler: from the sources in the artifact, or else from its program. Raises
        ArtifactError where `cpu` is asked of an artifact without library, ToolError where `c` cannot be built.
        """
        self.artifact = artifact
        self.program = artifact.program
        self.device = device or shipped(artifact)[0]
        self.library: Path | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._run_batch = self._open(threads)

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was built on the way."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def batch(self) -> int:
        """Samples per call of the compiled model."""
        return int(self.input.shape[0])

    @property
    def input(self) -> Tensor:
        return self.program.tensors[self.program.input]

    @property
    def output(self) -> Tensor:
        return self.program.tensors[self.program.output]

    def run(self, x: Array, task: int = 0) -> Array:
        """Integers in, integers out: `x` [N, ...] of the program's input type -> [N, ...] of its output type.

        N is any number; the last call is filled up with copies of its last sample. Raises InputError if the type or
        the shape of a sample does not fit, or the program has no such task.
        """
        self._check(x)
        self.program.check_task(task)
        results = []
        for start in range(0, len(x), self.batch):
            part = x[start : start + self.batch]
            results.append(self._run_batch(_fill(part, self.batch), task)[: len(part)])
        return np.concatenate(results)

    def logits(self, images: Array, task: int = 0) -> NDArray[np.float64]:
        """Real values (or, for a model that takes them, uint8 pixels) [N, ...] -> real results float64 [N, ...]."""
        return dequantize(self.program, self.run(quantize(self.program, images), task))

    def _check(self, x: Array) -> None:
        if x.dtype != np.dtype(self.input.dtype) or x.shape[1:] != tuple(self.input.shape[1:]) or not len(x):
            sample = ", ".join(["N", *map(str, self.input.shape[1:])])
            wanted = f"{self.input.dtype} [{sample}] with N >= 1"
            raise InputError(f"input {self.input.name!r} must be {wanted}, not {x.dtype} {list(x.shape)}.")

    def _open(self, threads: int | None) -> Batch:
        if self.device not in DEVICES:
            raise InputError(f"the device must be one of {', '.join(DEVICES)}, not {self.device!r}.")
        if self.device == "reference":
            return lambda x, task: reference.run(self.program, x, task=task)
        if self.device in ("csim", "iss"):
            return self._open_accelerator()
        self.library = self._find_library() if self.device == "cpu" else self._build_c()
        model = NativeModel(self.library, ProgramIO.of(self.program))
        if threads is not None and model.set_threads(threads):
            # The workspace, taken when a model is opened, grows with the number of threads.
            model = NativeModel(self.library, model.io)
        return model.run

    def _open_accelerator(self) -> Batch:
        """The accelerator's program, one image at a time as its input buffer holds it."""
        compiled = fpga.load(self.artifact)
        run: Callable[[list[bytes], int], list[bytes]]
        if self.device == "csim":
            own = artifacts.sources(self.artifact, hls.FOLDER)
            run = Csim(compiled.config, compiled.program, compiled.weights, own).run
        else:
            simulator = Simulator(compiled.config, compiled.program, compiled.weights)
            run = lambda images, task: [simulator.run(image, task=task) for image in images]  # noqa: E731
        return lambda x, task: np.concatenate(
            [
                fpga.result(self.output, data)
                for data in run([np.ascontiguousarray(image).tobytes() for image in x], task)
            ]
        )

    def _find_library(self) -> Path:
        found = library(self.artifact)
        if found is None:
            raise ArtifactError(
                f"{self.artifact.path}: holds no library for this machine; compile the model with --target cpu, "
                f"or run it with --device {shipped(self.artifact)[0]}."
            )
        return found

    def _build_c(self) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="intaglio-")
        folder = Path(self._folder.name)
        sources = c_sources(self.artifact) or _write_c(self.program, folder)
        try:
            return compile_c(sources, folder / "model.so")
        except ToolError:
            self.close()
            raise


def _write_c(program: Program, folder: Path) -> Path:
    from intaglio.backends.c import emit

    for name, content in emit(program).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def _fill(part: NDArray[Any], size: int) -> NDArray[Any]:
    missing = size - len(part)
    return np.ascontiguousarray(
        np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
    )
