"""Proves a compiled model: bit-exact on every execution, integer-only, and faithful to its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intaglio.backends.fpga.csim import compiler as cpp_compiler
from intaglio.backends.native import compiler
from intaglio.data.inputs import Samples
from intaglio.data.preprocess import Normalization
from intaglio.errors import ToolError
from intaglio.execute import Executor, accelerator, c_sources, library
from intaglio.feed import dequantize, integers, normalization, real_values
from intaglio.oracle import Oracle, float_sibling, source_model
from intaglio.program import Array, Program
from intaglio.router import Agreement, agreement, mixtures
from intaglio.samples import extreme_inputs, random_inputs

if TYPE_CHECKING:
    from intaglio.artifact import Artifact

Progress = Callable[[str], None]

C_LIMIT = 16_000_000
"""Bytes of constants up to which `c` is built for a model that was compiled for something else."""


@dataclass(frozen=True)
class Execution:
    """One execution: samples on which it differs from the reference, and its floating-point instructions.

    These are None where there is no machine code for the target to look at (reference, csim, iss).
    """

    name: str
    mismatches: int
    float_instructions: list[str] | None


@dataclass(frozen=True)
class VerifyReport:
    """What was found. `cosine` and `top1_agreement` compare real results with ONNX Runtime's, sample by sample.

    `tasks`: those that were verified, each on all samples. `routers`: of every mixture of experts, over all tasks.
    """

    executions: list[Execution]
    samples: int
    compared: int
    cosine: float
    top1_agreement: float
    left_out: dict[str, str] = field(default_factory=dict)
    tasks: list[int] = field(default_factory=lambda: [0])
    routers: list[Agreement] = field(default_factory=list)

    @property
    def bit_exact(self) -> bool:
        return all(execution.mismatches == 0 for execution in self.executions)

    @property
    def float_instructions(self) -> int:
        return sum(len(execution.float_instructions or []) for execution in self.executions)

    @property
    def passed(self) -> bool:
        return self.bit_exact and self.float_instructions == 0

    def as_json(self) -> dict[str, Any]:
        found = {
            "bit_exact": self.bit_exact,
            "executions": [execution.name for execution in self.executions],
            "float_instructions": self.float_instructions,
            "cosine": self.cosine,
            "top1_agreement": self.top1_agreement,
            "tasks": self.tasks,
        }
        return found | ({"routers": [router.as_json() for router in self.routers]} if self.routers else {})

    def router(self, gate: str) -> float | None:
        """Share of tokens on which the router agrees with a float gate (an attribute of Agreement), over all layers."""
        shares = [getattr(router, gate) for router in self.routers]
        known = [share for share in shares if share is not None]
        return float(np.mean(known)) if known and len(known) == len(shares) else None


def verify(
    artifact: Artifact,
    model_path: Path | None = None,
    inputs: Samples | None = None,
    count: int = 8,
    how: Normalization | None = None,
    progress: Progress = lambda _: None,
    task: int | None = None,
) -> VerifyReport:
    """Run every available execution of `artifact` on the same samples and compare.

    The samples are `inputs` (default: `count` random ones), and four extreme ones for bit-exactness alone. `task`: the
    one to verify (default: all). `model_path`: the source model, if it was moved. `how`: the normalization of pixels
    (default: the one it was compiled with). Raises ArtifactError if the source model is not found, InputError if
    samples do not fit.
    """
    program = artifact.program
    source = source_model(artifact, model_path)
    given, real = _samples(program, inputs, count, how or normalization(artifact))
    everything = np.concatenate([given, extreme_inputs(program.tensors[program.input])])
    tasks = list(range(program.tasks)) if task is None else [program.check_task(task)]
    progress(f"reference on {len(everything)} samples")
    with Executor(artifact, "reference") as executor:
        expected = {each: executor.run(everything, each) for each in tasks}
    names, left_out = _available(artifact)
    if not names:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise ToolError(
            f"{artifact.path}: only the reference can run, which proves nothing ({reasons}); "
            "compile for target cpu, c or an FPGA"
        )
    executions = [Execution("reference", 0, None)]
    for name in names:
        progress(f"{name} on {len(everything)} samples")
        executions.append(_check(artifact, name, everything, expected))
    progress(f"ONNX Runtime on {len(given)} samples")
    oracles = [Oracle(source, as_written=True, task=each) for each in tasks]
    theirs = np.concatenate([_expected(program, oracle, real) for oracle in oracles])
    ours = dequantize(program, np.concatenate([expected[each][: len(given)] for each in tasks]))
    indices = program.tensors[program.output].scale is None
    same = same_index(ours, theirs) if indices else top1_agreement(ours, theirs)
    return VerifyReport(
        executions,
        len(everything) * len(tasks),
        len(theirs),
        cosine(ours, theirs),
        same,
        left_out,
        tasks,
        _routers(program, given, real, source, tasks, progress),
    )


def _routers(
    program: Program, x: Array, real: NDArray[np.float32], source: Path, tasks: list[int], progress: Progress
) -> list[Agreement]:
    """How every mixture's router agrees with float gates, over all tasks."""
    if not mixtures(program):
        return []
    progress(f"float gates on {len(x)} samples")
    found = [agreement(program, x, real, source, float_sibling(source), task) for task in tasks]
    return [Agreement.over(layer) for layer in zip(*found, strict=True)]


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean over the samples of the cosine similarity of `a` and `b` [N, ...]; two zero vectors count as equal."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    similar = (a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return float(np.where(both_zero, 1.0, similar).mean())


def top1_agreement(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Share of samples with the same largest result, over the last axis."""
    return float((a.argmax(axis=-1) == b.argmax(axis=-1)).mean())


def same_index(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Share of samples with the same first index, for models that end in arg-max or top-k: [N] or [N, k]."""
    return float((a.reshape(len(a), -1)[:, 0] == b.reshape(len(b), -1)[:, 0]).mean())


def _samples(
    program: Program, inputs: Samples | None, count: int, how: Normalization | None
) -> tuple[Array, NDArray[np.float32]]:
    """The same samples as the program and as ONNX Runtime take them."""
    if inputs is not None:
        return integers(program, inputs, how), real_values(inputs, how)
    tensor = program.tensors[program.input]
    given = random_inputs(tensor, count)
    if tensor.dtype == "uint8":
        return given, real_values(Samples(given), how)
    assert tensor.scale is not None, "an input of real values has a grid"
    return given, ((given.astype(np.float64) - tensor.zero_point) * tensor.scale).astype(np.float32)


def _expected(program: Program, oracle: Oracle, real: NDArray[np.float32]) -> NDArray[np.float64]:
    """ONNX Runtime's results; real values also of a model that ends in QuantizeLinear."""
    results = oracle.run(real)
    return results if oracle.offset is None else dequantize(program, results - oracle.offset)


def _available(artifact: Artifact) -> tuple[list[str], dict[str, str]]:
    """The executions besides the reference, and why others are left out."""
    names: list[str] = []
    left_out: dict[str, str] = {}
    if library(artifact) is not None:
        names.append("cpu")
    else:
        left_out["cpu"] = "not compiled for it"
    if accelerator(artifact) is not None:
        names.append("iss")
        reason = _why_not_csim()
        if reason is None:
            names.append("csim")
        else:
            left_out["csim"] = reason
    reason = _why_not_c(artifact)
    if reason is None:
        names.append("c")
    else:
        left_out["c"] = reason
    return names, left_out


def _why_not_csim() -> str | None:
    try:
        cpp_compiler()
    except ToolError as error:
        return str(error)
    return None


def _why_not_c(artifact: Artifact) -> str | None:
    size = _constant_bytes(artifact.program)
    if c_sources(artifact) is None and size > C_LIMIT:
        return f"constants of {size / 1e6:.0f} MB take a C compiler too long; compile with --target c to check it"
    try:
        compiler()
    except ToolError as error:
        return str(error)
    return None


def _constant_bytes(program: Program) -> int:
    return sum(tensor.data.nbytes for tensor in program.constants if tensor.data is not None)


def _check(artifact: Artifact, name: str, samples: Array, expected: dict[int, Array]) -> Execution:
    """One execution on all samples; `expected`: results by task."""
    from intaglio.disassembly import float_instructions

    mismatches = 0
    with Executor(artifact, name) as executor:
        for task, results in expected.items():
            different = executor.run(samples, task) != results
            mismatches += int(different.reshape(len(samples), -1).any(axis=1).sum())
        library = executor.library
        found = None if library is None else [str(instruction) for instruction in float_instructions(library)]
    return Execution(name, mismatches, found)
