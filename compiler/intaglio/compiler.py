"""The main job: ONNX in, an artifact folder out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from intaglio import artifact as artifacts
from intaglio import pipelines
from intaglio.backends import arena, c, cpu, fpga
from intaglio.errors import InputError, ToolError
from intaglio.extract import extract
from intaglio.frontend import tasks
from intaglio.frontend.importer import Imported, standardize, to_relax
from intaglio.frontend.load import load
from intaglio.frontend.simplify import simplify
from intaglio.merge import merge
from intaglio.passes.integer.emit import Missing, Preprocessing
from intaglio.passes.make_integer import MakeInteger
from intaglio.program import Program
from intaglio.target import CpuTarget, CTarget, FpgaTarget, Target

__all__ = ["Missing", "Options", "Preprocessing", "compile_model", "missing_scales", "to_program"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What changes the integer program: batch, kind of input, set of non-linear ops."""

    batch: int = 1
    input_kind: str = "float"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    nonlinear: str = "exact"

    def __post_init__(self) -> None:
        if self.input_kind not in ("float", "uint8"):
            raise InputError(f"--input must be float or uint8, not {self.input_kind!r}")
        if self.nonlinear not in ("exact", "ivit"):
            raise InputError(f"--nonlinear must be exact or ivit, not {self.nonlinear!r}")
        if not all(0 < value < math.inf for value in self.std):
            raise InputError(f"--std must be positive, not {list(self.std)}")
        if not all(math.isfinite(value) for value in self.mean):
            raise InputError(f"--mean must be finite, not {list(self.mean)}")

    @property
    def preprocessing(self) -> Preprocessing:
        """The options of the input, as the passes take them."""
        return Preprocessing(self.input_kind, self.mean, self.std)


def to_program(
    path: Path,
    options: Options = Options(),
    dump_ir: Path | None = None,
    progress: Progress = lambda _: None,
    target: Target | None = None,
) -> Program:
    """The integer program of the ONNX model at `path`; for an FPGA `target`, one that its accelerator runs.

    Raises ModelError, UnsupportedError or CalibrationError with one sentence.
    """
    progress("import")
    model = load(path)
    selector = tasks.selector(model)
    if selector is None:
        return _one_program(model, path.stem, options, {}, dump_ir, progress, target)
    bounds: dict[str, float] = {}
    while True:
        before = dict(bounds)
        programs = [
            _one_program(
                tasks.bound(model, selector, task), path.stem, options, bounds, dump_ir, progress, target
            )
            for task in range(selector.count)
        ]
        if bounds == before:
            return merge(programs, selector.name)


def _one_program(
    model: onnx.ModelProto,
    name: str,
    options: Options,
    bounds: dict[str, float],
    dump_ir: Path | None,
    progress: Progress,
    target: Target | None,
) -> Program:
    """The integer program of `model`, which is consumed. Gate logits without a scale keep to `bounds` and add to it."""
    imported = to_relax(standardize(model, options.batch))
    _check_channels(imported, options)
    pipeline = pipelines.fpga if isinstance(target, FpgaTarget) else pipelines.integer
    passes = pipeline(imported, options.preprocessing, options.nonlinear, bounds)
    module = pipelines.run(imported.module, passes, dump_ir, progress)
    return extract(module, name, imported.nodes, imported.input_name)


def compile_model(
    path: Path,
    *,
    target: Target,
    out: Path,
    batch: int = 1,
    threads: int = 1,
    input_kind: str = "float",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    nonlinear: str = "exact",
    dump_ir: Path | None = None,
    progress: Progress = lambda _: None,
) -> artifacts.Artifact:
    """Compile the model at `path` for `target` into the folder `out`, all of it or nothing.

    Raises an IntaglioError with one sentence; then `out` is as it was.
    """
    options = Options(batch, input_kind, tuple(mean or (0.0,)), tuple(std or (1.0,)), nonlinear)
    artifacts.check_writable(out)
    program = to_program(path, options, dump_ir, progress, target)
    progress(f"generate {target.name}")
    files, workspace = _generate(program, target, threads)
    progress("write")
    contents = artifacts.Contents(
        program=program,
        target=target.name,
        source=artifacts.Source(
            name=path.stem, file=str(path.absolute()), sha256=artifacts.file_sha256(path)
        ),
        input=_input_spec(program, input_kind, mean, std),
        workspace_bytes=workspace,
        options={"batch": batch, "threads": threads, "nonlinear": nonlinear},
        files=files,
    )
    return artifacts.write(out, contents)


def _generate(program: Program, target: Target, threads: int) -> tuple[dict[str, str | bytes], int]:
    """The back end's files, and the bytes of workspace that a call needs."""
    size = arena.plan(program).size
    if isinstance(target, CTarget):
        return c.emit(program), size
    if isinstance(target, FpgaTarget):
        return fpga.emit(program, target.accelerator, target), size
    if not isinstance(target, CpuTarget):
        return {}, size
    with tempfile.TemporaryDirectory(prefix="intaglio-") as folder:
        try:
            report = cpu.build(program, Path(folder), threads=threads, cpu=target.mcpu)
            files: dict[str, str | bytes] = {p.name: p.read_bytes() for p in Path(folder).iterdir()}
        except OSError as error:
            raise ToolError(
                f"the library cannot be built in the temporary folder {folder}: {error}"
            ) from error
    return files, int(report["workspace_bytes"])


def _input_spec(
    program: Program, kind: str, mean: Sequence[float] | None, std: Sequence[float] | None
) -> artifacts.InputSpec:
    tensor = program.tensors[program.input]
    return artifacts.InputSpec(
        name=tensor.name,
        shape=list(tensor.shape),
        dtype=tensor.dtype,
        layout="NCHW"[-len(tensor.shape) :] if len(tensor.shape) == 4 else "",
        kind="uint8" if kind == "uint8" else "float",
        scale=tensor.scale,
        zero_point=tensor.zero_point,
        mean=None if mean is None else list(mean),
        std=None if std is None else list(std),
    )


def missing_scales(model: onnx.ModelProto, batch: int = 1) -> list[Missing]:
    """Which tensors of a standard QDQ (or float) model `to_program` would find without a scale.

    `model` (dialects already rewritten, see `frontend.dialects.to_standard`) is consumed: pass a copy. The names are
    those of its tensors. Raises ModelError or UnsupportedError with one sentence.
    """
    imported = to_relax(simplify(model, batch))
    module = pipelines.run(imported.module, pipelines.recognition())
    return MakeInteger(imported.provenance, imported.nodes).analyse(module)


def _check_channels(imported: Imported, options: Options) -> None:
    shape = [int(n) for n in imported.module["main"].params[0].ty.shape]
    for name, values in (("mean", options.mean), ("std", options.std)):
        if options.input_kind == "uint8" and (len(shape) < 2 or len(values) not in (1, shape[1])):
            raise InputError(
                f"--{name} has {len(values)} values; the model's input {shape} needs 1 or one per channel"
            )
