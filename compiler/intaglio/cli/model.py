"""The integer program of a MODEL|DIR argument."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intaglio.program import Program
    from intaglio.target import Target


def program_of(model: Path, progress: Callable[[str], None], target: Target | None = None) -> Program:
    """That of a folder, or of an ONNX model, made for `target` if one is given."""
    if model.is_dir():
        from intaglio import artifact

        return artifact.load(model, verify=False).program
    from intaglio.compiler import to_program

    return to_program(model, progress=progress, target=target)
