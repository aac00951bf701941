"""More threads need more workspace: a runner opened before they were asked for must see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from intaglio import target
from intaglio.backends.native import NativeModel, ProgramIO
from intaglio.compiler import compile_model
from intaglio.ops import reference

MODEL = Path(__file__).parents[2] / "examples" / "fashion_mnist" / "vit_qdq.onnx"


def test_threads_set_after_opening(tmp_path: Path) -> None:
    artifact = compile_model(MODEL, target=target.find("cpu"), out=tmp_path / "out")
    io = ProgramIO.of(artifact.program)
    first, second = (NativeModel(artifact.file("libmodel.so"), io) for _ in range(2))
    before = first.workspace_bytes
    first.set_threads(4)
    assert first.workspace_bytes > before
    x = np.random.default_rng(0).integers(-128, 128, io.input.shape).astype(io.input.dtype)
    expected = reference.run(artifact.program, x)
    for model in (first, second):
        np.testing.assert_array_equal(model.run(x), expected)
