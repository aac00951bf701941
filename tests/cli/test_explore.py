"""`intaglio explore`: what it prints and writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.explore import space
from tests.cli.conftest import invoke, invoke_json, refusal


@pytest.fixture(scope="module")
def vit(root: Path) -> Path:
    return root / "examples/fashion_mnist/vit_qdq.onnx"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in (("ROWS", (2,)), ("DEPTHS", (8,)), ("PORTS", (1,)), ("ENTRIES", (512, 1024))):
        monkeypatch.setattr(space, name, values)
    monkeypatch.setattr(space, "COLUMNS", 16)


def test_the_choice_is_what_compile_takes(vit: Path, tmp_path: Path) -> None:
    choice, results = tmp_path / "choice.toml", tmp_path / "results.jsonl"
    options = ("--target", "arty-a7", "--processes", 1, "--candidates", 2, "--results", results)
    values = invoke_json("explore", vit, *options, "--write", choice)
    assert values["written"] == str(choice)
    assert values["evaluated"]["resumed"] == 0
    assert values["chosen"]["cycles"] <= values["target_configuration"]["cycles"]
    low, high = values["chosen"]["energy_band_mj"]
    assert low < values["chosen"]["energy_mj"] < high
    invoke_json("compile", vit, "--target", "arty-a7", "--config", choice, "-o", tmp_path / "build")
    found = invoke_json("estimate", tmp_path / "build")
    assert found["cycles"] == values["chosen"]["cycles"]
    assert found["configuration"] == values["chosen"]["config"]
    assert found["fits"]
    assert invoke_json("estimate", tmp_path / "build", "--target", choice)["cycles"] == found["cycles"]
    again = invoke("explore", vit, *options)
    assert again.exit_code == 0
    assert "Pareto front" in again.stdout
    assert "more latency than the choice" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "cpu"], "is of kind 'cpu'; explore searches for FPGA targets"),
        (["--target", "arty-a7", "--budget", "dps=3"], "--budget: 'dps' is no resource"),
        (["--target", "arty-a7", "--write", "x.json"], "--write: expected a .toml file"),
        (["--target", "arty-a7", "--budget", "lut=200%"], "--budget: lut=200% is more than the board has"),
        (["--target", "arty-a7", "--latency", "-1"], "--latency must be in 1..100000 cycles, not -1"),
        (["--target", "arty-a7", "--results", "/no/such/x.jsonl"], "--results: expected a .jsonl file"),
        (["--target", "arty-a7", "--processes", "0"], "--processes"),
        (["--target", "arty-a7", "--processes", "1", "--budget", "dsp=1"], "within the budget"),
    ],
)
def test_refusals(vit: Path, arguments: list[str], sentence: str) -> None:
    assert sentence in refusal("explore", vit, *arguments)


def test_a_folder_in_the_way(vit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x.toml"
    folder.mkdir()
    sentence = "--write: expected the name of a file, not the folder"
    assert sentence in refusal("explore", vit, "--target", "arty-a7", "--write", folder)


def test_mixtures_of_experts(root: Path, tmp_path: Path) -> None:
    model = root / "examples/fashion_mnist/moe_qdq.onnx"
    options = ("--target", "tiny", "--processes", 1, "--candidates", 1, "--write", tmp_path / "choice.toml")
    chosen = invoke_json("explore", model, *options)["chosen"]
    assert chosen["config"]["experts"] == 8
    found = invoke_json("estimate", model, "--target", tmp_path / "choice.toml")
    assert found["cycles"] == chosen["cycles"]
