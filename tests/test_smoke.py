"""The whole way in one look: a quantized ViT from ONNX to machine code, and what it must do."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from intaglio import artifact, target
from intaglio.compiler import compile_model
from intaglio.disassembly import float_instructions
from intaglio.execute import Executor
from intaglio.oracle import Oracle
from intaglio.verify import cosine

MODEL = Path(__file__).parent / "fixtures" / "ort_dynamo_s8s8_pc.onnx"


def test_from_onnx_to_integer_code(tmp_path: Path) -> None:
    # A model in ONNX becomes a folder that holds all it takes to run it.
    compile_model(MODEL, target=target.find("cpu"), out=tmp_path / "vit")
    compiled = artifact.load(tmp_path / "vit")

    # It is nothing but integer ops on integer tensors.
    program = compiled.program
    kinds = {np.dtype(tensor.dtype).kind for tensor in program.tensors.values()}
    assert kinds <= {"i", "u"}

    # The library, the C sources and the reference give the same bits.
    images = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    results = {}
    for device in ("reference", "cpu", "c"):
        with Executor(compiled, device) as executor:
            results[device] = executor.logits(images)
    assert (results["cpu"] == results["reference"]).all()
    assert (results["c"] == results["reference"]).all()

    # The machine code holds no floating-point instruction.
    assert float_instructions(compiled.file("libmodel.so")) == []

    # And what it computes is what ONNX Runtime makes of the same model.
    expected = Oracle(MODEL, as_written=True).run(images)
    assert cosine(results["cpu"], expected) > 0.99
