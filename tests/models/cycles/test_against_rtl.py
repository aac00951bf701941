"""The cycle model against the RTL: a quick version of `intaglio validate-model`, and the committed table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from intaglio import target
from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import BY_NAME
from intaglio.cli.app import app
from intaglio.compiler import compile_model
from intaglio.hw.cycles import array
from intaglio.simulation.frame import MemoryModel
from intaglio.validate_model import Measured, ModelError, Validation, validate

CASES = 24


@pytest.mark.simulator
@pytest.mark.slow
def test_random_programs_and_the_examples(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {
        name: compile_model(
            root / f"examples/fashion_mnist/{name}.onnx",
            target=target.find("tiny"),
            out=tmp_path / name,
            input_kind="uint8",
        )
        for name in ("vit_qdq", "moe_tasks_qdq")
    }
    found = validate(models, {"tiny": PRESETS["tiny"]}, CASES)
    assert found.within, found.markdown()
    assert [m.model for m in found.models] == 2 * ["vit_qdq"] + 2 * ["moe_tasks_qdq, task 1"]
    assert {kind.kind for kind in found.kinds} == set(BY_NAME)
    # The bounds notice a model that is wrong: here, of an array whose pipeline were 30 cycles longer.
    monkeypatch.setitem(array.ARRAY_LATENCY, "generic", 34)
    far = {"far": MemoryModel(latency=300, bytes_per_cycle=8.0)}
    wrong = validate({}, {"tiny": PRESETS["tiny"]}, 4, memories=far)
    assert not wrong.within
    assert "each with 300 cycles latency, 8 bytes per cycle. " in wrong.markdown()
    assert "random program 0 on tiny, far memory: descriptor " in wrong.outliers[0]


def test_the_committed_table(root: Path) -> None:
    """What the documentation and `estimate` say of the model's error keeps to the targets."""
    path = root / "hw_models/intaglio/hw/cycles/validation.json"
    table = json.loads(path.read_text())
    assert table["within"]
    assert table["cases"] >= 200
    combinations = {(m["config"], m["latency"], m["bytes_per_cycle"]) for m in table["models"]}
    assert len({m["model"] for m in table["models"]}) >= 3
    assert len({config for config, _, _ in combinations}) >= 3
    assert len({memory for _, *memory in map(list, combinations) for memory in [tuple(memory)]}) >= 2
    assert all(abs(m["error_percent"]) <= 1 for m in table["models"])
    assert all(kind["beyond"] == 0 for kind in table["kinds"])
    assert {kind["kind"] for kind in table["kinds"]} == set(BY_NAME)
    assert {"m3vit, task 1", "fashion-mnist-moe"} <= {m["model"] for m in table["models"]}


@pytest.mark.parametrize(
    ("rtl", "model", "within"), [(100, 120, True), (100, 121, False), (5000, 5100, True), (5000, 4899, False)]
)
def test_bound_of_a_descriptor(rtl: int, model: int, within: bool) -> None:
    measured = Measured(12, "GEMM", rtl, model)
    assert measured.within is within
    assert str(measured) == f"descriptor 12 (GEMM): {rtl:,} cycles on the RTL, {model:,} in the model"


@pytest.mark.parametrize(("predicted", "within"), [(1010, True), (989, False)])
def test_bound_of_a_model(predicted: int, within: bool) -> None:
    error = ModelError("m", "tiny", 20, 8.0, 1000, predicted)
    assert error.within is within
    found = Validation(0, ["tiny"], [], [error], ["n on tiny: too large"], ["outlier"])
    assert found.within is within
    assert f"{(predicted - 1000) / 10:+.3f}" in found.markdown()
    assert "n on tiny: too large" in found.markdown()
    assert "- outlier" in found.markdown()
    assert found.as_json()["outliers"] == ["outlier"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cases", "-1"], "--cases must not be negative, not -1."),
        (["--cases", "0"], "nothing to compare: --cases is 0 and there are no --models."),
        (["-o", "table.txt"], "-o: expected a .md or .json file in a folder that is there, not 'table.txt'."),
        (["--configs", "tinny"], "did you mean 'tiny'"),
        (["--latency", "150"], "--latency, --bandwidth: give both, for one memory instead of two, or none."),
        (["--models", "@large"], "--models: 'large' is not one of --configs (tiny)."),
        (
            ["--models", "a/m", "--models", "b/m"],
            "--models: two are called 'm'; give each once, or rename one.",
        ),
        (["--configs", "tiny,tiny"], "--configs: two are called 'tiny'"),
    ],
)
def test_refusals(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["validate-model", *arguments])
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


def test_a_table_that_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    (tmp_path / "x.md").mkdir()
    result = CliRunner().invoke(app, ["validate-model", "-o", str(tmp_path / "x.md")])
    assert result.exit_code == 2
    assert "-o: expected the name of a file, not the folder" in " ".join(result.stderr.split())
