"""Programs of a few ops, the library built from them, and the reference to compare with."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from intaglio.backends.cpu import build
from intaglio.ops import OPS, TensorType
from intaglio.ops.reference import run
from intaglio.program import Array, Program, Step, Tensor


class ProgramWriter:
    """Appends ops to a program; every value is known by its name."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.name = name
        self.tensors = {"input": Tensor("input", shape, dtype)}
        self.steps: list[Step] = []

    def constant(self, values: Array) -> str:
        name = f"constant_{len(self.tensors)}"
        self.tensors[name] = Tensor(name, values.shape, str(values.dtype), data=values)
        return name

    def op(self, op: str, inputs: Sequence[str | Array], attrs: dict[str, Any] | None = None) -> str:
        names = [item if isinstance(item, str) else self.constant(item) for item in inputs]
        types = [TensorType(self.tensors[name].shape, self.tensors[name].dtype) for name in names]
        out = OPS[op].infer(types, attrs or {})
        name = f"{op}_{len(self.steps)}"
        self.tensors[name] = Tensor(name, out.shape, out.dtype)
        self.steps.append(Step(name, op, tuple(names), name, attrs or {}))
        return name

    def program(self) -> Program:
        return Program(self.name, self.tensors, self.steps, "input", self.steps[-1].output)


class Library:
    """A compiled program, called through ctypes."""

    def __init__(self, program: Program, folder: Path, **options: Any) -> None:
        self.program = program
        self.report = build(program, folder, **options)
        self.path = Path(self.report["library"])
        self.c = ctypes.CDLL(str(self.path))
        self.c.intaglio_workspace_bytes.restype = ctypes.c_size_t
        self.c.intaglio_run.argtypes = [ctypes.c_void_p] * 3

    def run(self, x: Array) -> Array:
        output = self.program.tensors[self.program.output]
        x = np.ascontiguousarray(x)
        assert x.shape == self.program.tensors[self.program.input].shape
        # Not zero: a kernel must not rely on what it did not write.
        workspace = np.full(self.c.intaglio_workspace_bytes() + 64, 0xA5, np.uint8)
        start = -workspace.ctypes.data % 64
        out = np.empty(output.shape, output.dtype)
        assert self.c.intaglio_run(x.ctypes.data, out.ctypes.data, workspace.ctypes.data + start) == 0
        return out

    def threads(self, count: int) -> None:
        self.c.intaglio_set_threads(count)


def random_values(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> Array:
    """Uniform over the whole type, with a share of extreme values."""
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    extreme = rng.random(shape)
    values[extreme < 0.02] = limits.min
    values[extreme > 0.98] = limits.max
    return values


def check(program: Program, folder: Path, rng: np.random.Generator, **options: Any) -> Library:
    """Build, and compare one and two threads with the reference on random inputs."""
    library = Library(program, folder, **options)
    source = program.tensors[program.input]
    x = random_values(rng, source.shape, source.dtype)
    expected = run(program, x)
    for threads in (1, 2):
        library.threads(threads)
        np.testing.assert_array_equal(library.run(x), expected)
    return library
