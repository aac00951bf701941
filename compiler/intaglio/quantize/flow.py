"""The job: find what has no scale, look at it on images, write a model in which everything has one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from intaglio.errors import ArtifactError, InputError, UnsupportedError
from intaglio.frontend.dialects import to_standard
from intaglio.frontend.load import load
from intaglio.frontend.moe.recognise import recognise_moe
from intaglio.ops.base import Grid
from intaglio.quantize import grids
from intaglio.quantize.analysis import Gaps, Weight, gaps
from intaglio.quantize.calibrate import Progress, calibrate
from intaglio.quantize.editor import QDQ, Editor
from intaglio.quantize.grids import Rule, Seen
from intaglio.quantize.images import Images, batch_of, checked, model_input
from intaglio.quantize.opset import raise_opset, with_contrib
from intaglio.quantize.report import Added, QuantizeReport
from intaglio.quantize.session import run

COMPARED = 8
ROUNDS = 20


@dataclass(frozen=True)
class Choices:
    """What the user may choose."""

    activations: str = "auto"
    method: str = "mse"
    per_channel: bool = True

    def __post_init__(self) -> None:
        if self.activations not in grids.ACTIVATIONS:
            raise InputError(
                f"activations must be one of {', '.join(grids.ACTIVATIONS)}, not {self.activations!r}"
            )
        if self.method not in grids.METHODS:
            raise InputError(f"the method must be one of {', '.join(grids.METHODS)}, not {self.method!r}")


def quantize(
    model: Path,
    calibration: NDArray[Any],
    out: Path,
    *,
    complete: bool = False,
    activations: str = "auto",
    method: str = "mse",
    per_channel: bool = True,
    progress: Progress = lambda _: None,
) -> QuantizeReport:
    """Write to `out` a QDQ model that compiles with nothing missing.

    `calibration`: float32 [n, C, H, W], normalized as the model's input wants it. With `complete` the model may hold
    scales already; they are kept and only missing ones are added. `activations`: `auto` decides by the role of each
    tensor and by what 8 bits would cost it. Raises an IntaglioError with one sentence; then `out` is untouched.
    """
    choices = Choices(activations, method, per_channel)
    if not out.parent.is_dir():
        raise ArtifactError(f"{out}: cannot be written: there is no folder {str(out.parent)!r}")
    if out.is_dir():
        raise ArtifactError(f"{out}: cannot be written: it is a folder")
    progress("read")
    standard = _prepared(load(model))
    own = sum(node.op_type == QDQ[1] for node in standard.graph.node)
    images = checked(np.asarray(calibration), model_input(standard))
    if not complete:
        _refuse_quantized(model, standard)
    first = gaps(standard)
    if not first:
        _write(load(model), out)
        return QuantizeReport(out, (), own, len(images), 1.0)
    job = _Job(standard, images, choices, progress)
    result = job.run(first)
    progress("compare")
    cosine = _cosine(standard, result, images)
    _write(result, out)
    return QuantizeReport(out, tuple(job.added), own, len(images), cosine, tuple(job.notes))


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` in standard ONNX, as ONNX Runtime takes it without complaint: in place.

    Node names are used once (dialects give one name to all that replaces a node), constants are no inputs, and what
    nothing reads is gone.
    """
    model = recognise_moe(to_standard(model))
    taken: set[str] = set()
    for node in model.graph.node:
        if node.name in taken - {""}:
            node.name = f"{node.name}/{node.output[0]}"
        taken.add(node.name)
    constants = {tensor.name for tensor in model.graph.initializer}
    for index in reversed(range(len(model.graph.input))):
        if model.graph.input[index].name in constants:
            del model.graph.input[index]
    Editor(model).prune()
    return model


def _refuse_quantized(path: Path, model: onnx.ModelProto) -> None:
    if any(node.op_type in QDQ for node in model.graph.node):
        raise InputError(
            f"{path}: is quantized already; use --complete to keep its scales and add the missing ones"
        )


@dataclass
class _Job:
    """One run. Grids are found in rounds, as a tensor may hide others; calibration is on the given model."""

    standard: onnx.ModelProto
    images: Images
    choices: Choices
    progress: Callable[[str], None]
    added: list[Added] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, first: Gaps) -> onnx.ModelProto:
        """The finished model."""
        one = next(_whole(self.images, batch_of(model_input(self.standard))))
        self.standard = raise_opset(self.standard, one)
        model = onnx.ModelProto()
        model.CopyFrom(self.standard)
        editor = Editor(model)
        found, waiting = first, dict[str, tuple[str, Rule]]()
        for number in range(1, ROUNDS):
            if found:
                self._weights(editor, found.weights)
                self._place(editor, found, waiting)
            elif waiting:
                self._fill(editor, waiting)
                waiting = {}
            else:
                return with_contrib(model)
            self.progress(f"analyse, round {number}")
            found = gaps(model)
        names = [entry.tensor for entry in found.activations] + [entry.output for entry in found.weights]
        raise UnsupportedError(
            f"tensor {names[0]!r} stays without a scale: a defect of intaglio, please report it"
        )

    def _weights(self, editor: Editor, weights: list[Weight]) -> None:
        for weight in weights:
            integers, scale = grids.weight(weight.values, weight.axis, self.choices.per_channel)
            editor.quantize_weight(weight.output, weight.index, integers, scale, weight.axis)
            self.added.append(Added(weight.output, "weight", "int8", float(scale.max()), 0))
        if weights:
            editor.prune()

    def _place(self, editor: Editor, found: Gaps, waiting: dict[str, tuple[str, Rule]]) -> None:
        """Pairs whose grids are filled in later; until then their scales differ, so that no two grids seem equal."""
        for entry in found.activations:
            rule = grids.rule(entry.role, self.choices.activations)
            own = editor.own_pair(entry.tensor)
            if own is not None and rule.dtype == "int8":
                editor.share(entry.tensor, own)
                continue
            editor.quantize(entry.tensor, 1.0 + len(waiting) / 64, rule.dtype)
            waiting[entry.tensor] = entry.role, rule

    def _fill(self, editor: Editor, waiting: dict[str, tuple[str, Rule]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            model, method = with_contrib(self.standard), self.choices.method
            seen = calibrate(model, list(waiting), self.images, method, Path(folder), self.progress)
        for tensor, (role, rule) in waiting.items():
            grid = self._grid(tensor, seen[tensor], rule)
            editor.set_grid(tensor, grid.scale, grid.zero_point, grid.dtype)
            self.added.append(Added(tensor, role, grid.dtype, grid.scale, grid.zero_point))

    def _grid(self, tensor: str, seen: Seen, rule: Rule) -> Grid:
        if seen.low == seen.high == 0:
            self.notes.append(f"tensor {tensor!r} is zero on every calibration image: its scale is a guess")
        return grids.grid(seen, rule, self.choices.activations, self.choices.method)


def _whole(images: Images, batch: int) -> Iterator[Images]:
    """Batches of exactly `batch` images; one image is repeated if there are fewer."""
    if len(images) < batch:
        images = np.concatenate([images, np.repeat(images[-1:], batch - len(images), axis=0)])
    for start in range(0, len(images) - batch + 1, batch):
        yield images[start : start + batch]


def _cosine(before: onnx.ModelProto, after: onnx.ModelProto, images: Images) -> float:
    """The least cosine similarity of the two models' outputs over a few images."""
    least = 1.0
    before = with_contrib(before)
    for batch in islice(_whole(images, batch_of(model_input(before))), COMPARED):
        a, b = (run(model, batch).reshape(len(batch), -1) for model in (before, after))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        least = min(least, *((a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0)).tolist())
    return float(least)


def _write(model: onnx.ModelProto, out: Path) -> None:
    """All or nothing. Raises ArtifactError if the folder cannot be written."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(model.SerializeToString(deterministic=True))
        temporary.chmod(0o644)
        temporary.replace(out)
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
