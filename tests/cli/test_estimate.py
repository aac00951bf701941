"""`intaglio estimate`: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import invoke, invoke_json, refusal

KEYS = {
    "cycles", "latency_ms", "fps", "energy_mj", "energy_band_mj", "power_w", "resources", "fits", "bounds",
}  # fmt: skip


@pytest.fixture(scope="module")
def vit(root: Path) -> Path:
    return root / "examples/fashion_mnist/vit_qdq.onnx"


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_json(vit: Path) -> None:
    values = invoke_json("estimate", vit, "--target", "tiny")
    assert set(values) >= KEYS
    assert set(values["resources"]) == {"dsp", "bram36", "uram", "lut", "ff"}
    assert set(values["bounds"]) == {"cycles", "energy", "resources"}
    low, high = values["energy_band_mj"]
    assert 0 <= low < values["energy_mj"] < high
    assert values["latency_ms"] == pytest.approx(values["cycles"] / 1e5)
    assert values["fps"] == pytest.approx(1e3 / values["latency_ms"])
    assert values["power_w"] == pytest.approx(values["energy_mj"] / values["latency_ms"])


def test_a_folder_is_what_it_was_compiled_for(vit: Path, tmp_path: Path) -> None:
    invoke_json("compile", vit, "--target", "tiny", "-o", tmp_path / "build")
    folder = invoke_json("estimate", tmp_path / "build")
    model = invoke_json("estimate", vit, "--target", "tiny")
    for values in (folder, model):
        for key in ("model_seconds", "cached"):
            values.pop(key)
    assert folder == model
    other = invoke_json("estimate", tmp_path / "build", "--target", "ulx3s")
    assert other["configuration"]["rows"] == 1
    assert other["cycles"] > model["cycles"]


def test_people_see_the_band_and_the_error(vit: Path) -> None:
    text = invoke("estimate", vit, "--target", "tiny").stdout
    assert "90 % band" in text
    assert "off the RTL" in text
    assert "patch_embed" in text


def test_a_board_that_is_too_small(vit: Path, tmp_path: Path, root: Path) -> None:
    text = (root / "targets/arty-a7.toml").read_text().replace("dsps = 240", "dsps = 24")
    (tmp_path / "small.toml").write_text(text)
    values = invoke_json("estimate", vit, "--target", tmp_path / "small.toml")
    assert not values["fits"]
    assert values["exceeded"] == ["dsp"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--target is missing: give a name of `intaglio targets`, or a .toml file."),
        (["--target", "zcu103"], "did you mean 'zcu10"),
        (["--target", "tiny", "--config", "tinny"], "did you mean 'tiny'"),
    ],
)
def test_refusals(vit: Path, arguments: list[str], sentence: str) -> None:
    assert sentence in refusal("estimate", vit, *arguments)


def test_a_missing_model() -> None:
    assert "no such file" in refusal("estimate", "/no/such.onnx", "--target", "tiny")


def test_another_artifact(vit: Path, tmp_path: Path) -> None:
    invoke("compile", vit, "--target", "null", "-o", tmp_path / "null")
    assert "has no file 'accelerator.toml'" in refusal("estimate", tmp_path / "null")
