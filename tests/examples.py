"""The example models, as the README compiles them for the small configuration."""

from __future__ import annotations

from pathlib import Path

from intaglio import target
from intaglio.artifact import Artifact
from intaglio.compiler import compile_model


def compile_example(root: Path, model: str, out: Path) -> Artifact:
    """`model`, as "vit_qdq", for raw pixels."""
    return compile_model(
        root / f"examples/fashion_mnist/{model}.onnx",
        target=target.find("tiny"),
        out=out,
        input_kind="uint8",
        mean=(0.2860,),
        std=(0.3530,),
    )
