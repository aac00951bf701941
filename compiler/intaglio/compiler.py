"""The main job: ONNX in, an artifact folder out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from intaglio import pipelines
from intaglio.errors import InputError
from intaglio.extract import extract
from intaglio.frontend.importer import Imported, import_model, to_relax
from intaglio.frontend.simplify import simplify
from intaglio.passes.emit import Missing, Preprocessing
from intaglio.passes.make_integer import MakeInteger
from intaglio.program import Program

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
        if any(value <= 0 for value in self.std):
            raise InputError(f"--std must be positive, not {list(self.std)}")

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.input_kind, self.mean, self.std)


def to_program(
    path: Path, options: Options = Options(), dump_ir: Path | None = None, progress: Progress = lambda _: None
) -> Program:
    """The integer program of the ONNX model at `path`.

    Raises ModelError, UnsupportedError or CalibrationError with one sentence.
    """
    progress("import")
    imported = import_model(path, options.batch)
    _check_channels(imported, options)
    passes = pipelines.integer(imported, options.preprocessing, options.nonlinear)
    module = pipelines.run(imported.module, passes, dump_ir, progress)
    return extract(module, path.stem, imported.nodes, imported.input_name)


def missing_scales(model: onnx.ModelProto, batch: int = 1) -> list[Missing]:
    """Which tensors of a standard QDQ (or float) model `to_program` would find without a scale.

    `model` (dialects already rewritten, see `frontend.dialects.to_standard`) is consumed: pass a copy. The names are those of its tensors.
    """
    imported = to_relax(simplify(model, batch))
    module = pipelines.run(imported.module, pipelines.recognition())
    return MakeInteger(imported.provenance, imported.nodes).analyse(module)


def _check_channels(imported: Imported, options: Options) -> None:
    shape = [int(n) for n in imported.module["main"].params[0].ty.shape]
    for name, values in (("mean", options.mean), ("std", options.std)):
        if options.input_kind == "uint8" and (len(shape) < 2 or len(values) not in (1, shape[1])):
            raise InputError(f"--{name} has {len(values)} values; the model's input {shape} needs 1 or one per channel")
