"""Every op of a trained model, on real images: within 1 LSB of its real-valued meaning, equal in at least 99 %.

The real-valued meaning is what `make_integer` was about to round, a description over weights, grids and operands. It is
evaluated in float64 on the integers that the op really received, and rounded as ONNX rounds.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm import relax

from intaglio import pipelines
from intaglio.data.idx import read_idx
from intaglio.extract import _Extractor
from intaglio.frontend.importer import Imported, import_model
from intaglio.ops import reference
from intaglio.ops.base import Grid
from intaglio.passes.graph import Graph
from intaglio.passes.integer import emit, lazy
from intaglio.passes.make_integer import MakeInteger
from intaglio.program import Step

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist"
IMAGES = 4
Real = NDArray[np.float64]


def real_value(kind: lazy.Kind, value: Any) -> Real:
    """The exact result of one description; `value` gives the real values of an operand."""
    match kind:
        case lazy.Linear(patch=None):
            product = value(kind.x) @ (kind.weight.astype(np.float64) * kind.weight_scale[:, None]).T
        case lazy.Linear():
            weight = kind.weight.astype(np.float64) * kind.weight_scale[:, None, None, None]
            product = _patches(value(kind.x), kind.patch) @ weight.reshape(len(weight), -1).T
        case lazy.MatMul():
            return value(kind.a) @ value(kind.b)
        case lazy.Attention():
            scores = value(kind.probabilities.scores)
            e = np.exp(scores - scores.max(-1, keepdims=True))
            return (e / e.sum(-1, keepdims=True)) @ value(kind.v)
        case lazy.Sum():
            return value(kind.a) + kind.b_sign * value(kind.b)
        case lazy.Affine():
            return value(kind.x) * kind.multiplier + kind.offset
        case lazy.Norm():
            x = value(kind.x)
            centred = x - x.mean(-1, keepdims=True)
            return centred / np.sqrt(x.var(-1, keepdims=True) + kind.epsilon) * kind.gamma + kind.beta
        case _:
            pytest.fail(f"no real meaning here for {type(kind).__name__}")
    return product if kind.bias is None else product + kind.bias


def _patches(x: Real, patch: tuple[int, int]) -> Real:
    (b, c, h, w), (ph, pw) = x.shape, patch
    tiles = x.reshape(b, c, h // ph, ph, w // pw, pw).transpose(0, 2, 4, 1, 3, 5)
    return tiles.reshape(b, (h // ph) * (w // pw), c * ph * pw)


Emitted = list[tuple[lazy.Kind, Grid, relax.Var]]


def integer_module(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Emitted]:
    """The model right after make_integer, and what each emitted op was made from."""
    emitted: Emitted = []
    original = emit.Emitter._kind

    def recording(self: emit.Emitter, kind: lazy.Kind, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        expr = original(self, kind, out, nodes)
        emitted.append((kind, out, expr))
        return expr

    monkeypatch.setattr(emit.Emitter, "_kind", recording)
    passes = [*pipelines.recognition(), MakeInteger(imported.provenance, imported.nodes)]
    return pipelines.run(imported.module, passes), emitted


class _Recorder:
    """Keeps the result of every step."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __call__(self, step: Step, result: NDArray[Any]) -> None:
        self.values[step.output] = result


def _real(values: dict[str, Any], names: dict[str, str], x: lazy.OnGrid) -> Real:
    constant = getattr(x.expr, "value", None)
    return x.grid.dequantize(values[names[x.expr.name]] if constant is None else constant.numpy())


@pytest.mark.parametrize("model", ["vit_qdq"])
def test_ops_on_recorded_images(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = import_model(EXAMPLE / f"{model}.onnx")
    module, emitted = integer_module(imported, monkeypatch)
    extractor = _Extractor(Graph(module), imported.nodes, imported.input_name)
    program = extractor.program(model)
    names = {var.name: name for var, name in extractor.names.items()}
    grid = program.tensors[program.input]
    assert grid.scale is not None

    equal: dict[str, list[float]] = {}
    for image in read_idx(EXAMPLE / "t1k-images-idx3-ubyte.gz")[:IMAGES]:
        pixels = ((image / 255 - 0.2860) / 0.3530).reshape(program.tensors[program.input].shape)
        values = {program.input: Grid(grid.scale, grid.zero_point, grid.dtype).quantize(pixels)}
        reference.run(program, values[program.input], _Recorder(values))

        for kind, out, var in emitted:
            if isinstance(kind, lazy.Concat) or var.name not in names:
                continue
            expected = out.quantize(real_value(kind, partial(_real, values, names))).astype(np.int64)
            actual = values[names[var.name]].astype(np.int64)
            assert np.abs(actual.reshape(expected.shape) - expected).max() <= 1, (
                type(kind).__name__,
                var.name,
            )
            equal.setdefault(type(kind).__name__, []).append(
                (actual.reshape(expected.shape) == expected).mean()
            )
    assert set(equal) >= {"Linear", "Norm", "Attention", "Sum"}
    for kind_name, shares in equal.items():
        assert np.mean(shares) >= 0.99, (kind_name, np.mean(shares))
