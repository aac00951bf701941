"""Build the shared library of a program: kernels by LLVM, the driver by the C compiler, no TVM at run time."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from intaglio.backends import arena as memory
from intaglio.backends.cpu import isa as processors
from intaglio.backends.cpu.codegen import write_object
from intaglio.backends.cpu.ir import Kernel
from intaglio.backends.cpu.launch import Activation, Constant, Launch, Operand, TaskConstant, Temporary
from intaglio.backends.cpu.layout import ALIGNMENT, Blob, Workspace
from intaglio.backends.cpu.lowering import lower
from intaglio.errors import InputError, ToolError
from intaglio.program import Program

_TEMPLATES = Path(__file__).parent
MAX_THREADS = 64


@dataclass(frozen=True)
class Call:
    """One kernel call as the driver prints it."""

    step: str
    op: str
    kernel: str
    arguments: tuple[str, ...]
    items: int
    grain: int


@dataclass
class Linker:
    """Names for kernels, places for operands."""

    program: Program
    workspace: Workspace
    blob: Blob
    kernels: dict[Kernel, str]

    def calls(self, step: str, op: str, launches: list[Launch]) -> list[Call]:
        temporaries = self.workspace.place_temporaries(launches)
        return [self._call(step, op, launch, temporaries) for launch in launches]

    def _call(self, step: str, op: str, launch: Launch, temporaries: dict[str, int]) -> Call:
        scratch = iter(self.workspace.place_scratch(launch))
        arguments = tuple(self._argument(operand, temporaries, scratch) for operand in launch.operands)
        return Call(_comment(step), op, self._symbol(launch.kernel), arguments, launch.items, launch.grain)

    def _argument(self, operand: Operand, temporaries: dict[str, int], scratch: Iterator[int]) -> str:
        if isinstance(operand, Constant):
            return f"constants + {self.blob.place(operand.data)}"
        if isinstance(operand, TaskConstant):
            place, stride = self.blob.place_each(operand.data)
            return f"constants + {place} + run->task * {stride}"
        if isinstance(operand, Temporary):
            return f"run->workspace + {temporaries[operand.name]}"
        if not isinstance(operand, Activation):
            return f"scratch + {next(scratch)}"
        if operand.name == self.program.input:
            return "run->input"
        if operand.name == self.program.output:
            return "run->output"
        return f"run->workspace + {self.workspace.arena.offsets[operand.name]}"

    def _symbol(self, kernel: Kernel) -> str:
        return self.kernels.setdefault(kernel, f"{kernel.kind}_{len(self.kernels)}")


def build(program: Program, out_dir: Path, *, threads: int = 1, cpu: str = "host") -> dict[str, Any]:
    """Write libmodel.so, model.h and example.c into `out_dir`; `threads` is the number the library starts with.

    `cpu`: "host" or a processor name that LLVM knows. Returns paths and sizes. Raises ToolError where gcc is missing
    or fails, InputError for more threads than a library has.
    """
    if threads > MAX_THREADS:
        raise InputError(f"--threads: a library runs on at most {MAX_THREADS}, not {threads}.")
    if shutil.which("gcc") is None:
        raise ToolError("The cpu target links with gcc, which is not on PATH; install it (apt install gcc).")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="intaglio-") as folder:
        work = Path(folder)
        report = _compile(program, work, threads, processors.select(cpu))
        for name in ("libmodel.so", "model.h", "example.c"):
            _replace(work / name, out_dir / name)
    return {"library": out_dir / "libmodel.so", "header": out_dir / "model.h"} | report


def _replace(source: Path, target: Path) -> None:
    """Put a new file in place of `target`: a process that has mapped the old library keeps it intact."""
    beside = target.with_name(target.name + ".new")
    shutil.copyfile(source, beside)
    beside.replace(target)


def _compile(program: Program, work: Path, threads: int, isa: processors.Isa) -> dict[str, Any]:
    arena = memory.plan(program)
    linker = Linker(program, Workspace(arena), Blob(work / "constants.bin"), {})
    calls = [
        call
        for step, launches in lower(program, arena, isa)
        for call in linker.calls(step.name, step.op, launches)
    ]
    write_object({symbol: kernel for kernel, symbol in linker.kernels.items()}, isa, work / "kernels.o")
    _render(work, _variables(program, linker, calls, threads))
    _link(work)
    return {
        "workspace_bytes": linker.workspace.shared + threads * linker.workspace.scratch,
        "constant_bytes": linker.blob.size,
        "kernels": len(linker.kernels),
        "calls": [(call.step, call.op, call.kernel) for call in calls],
    }


def _variables(program: Program, linker: Linker, calls: list[Call], threads: int) -> dict[str, Any]:
    input_, output = program.tensors[program.input], program.tensors[program.output]
    return {
        "name": _comment(program.name),
        "calls": calls,
        "signatures": {call.kernel: len(call.arguments) for call in calls},
        "input": input_,
        "output": output,
        "input_bytes": memory.byte_size(input_),
        "output_bytes": memory.byte_size(output),
        "tasks": program.tasks,
        "has_task": program.task is not None,
        "shared_bytes": linker.workspace.shared,
        "scratch_bytes": linker.workspace.scratch,
        "threads": threads,
        "max_threads": MAX_THREADS,
        "alignment": ALIGNMENT,
    }


def _comment(text: str) -> str:
    """`text` fit for a C comment, whatever a model calls its nodes."""
    return "".join(letter if letter.isprintable() and letter not in "*\\" else "_" for letter in text)


def _render(work: Path, variables: dict[str, Any]) -> None:
    environment = jinja2.Environment(  # noqa: S701 (C, not HTML)
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("driver.c", "model.h", "example.c", "constants.S", "exports.map"):
        (work / name).write_text(environment.get_template(f"{name}.j2").render(variables))


def _link(work: Path) -> None:
    flags = [
        "-O2",
        "-std=c11",
        "-Wall",
        "-Werror",
        "-fPIC",
        "-fvisibility=hidden",
        "-ffunction-sections",
        "-pthread",
    ]
    link = ["-shared", "-s", "-Wl,--gc-sections", "-Wl,--version-script=exports.map", "-Wl,-z,noexecstack"]
    command = ["gcc", *flags, *link, "-o", "libmodel.so", "driver.c", "constants.S", "kernels.o"]
    result = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ToolError(f"gcc could not link libmodel.so: {result.stderr.strip()}")
