"""`intaglio estimate`: what it prints, and what it refuses."""

from __future__ import annotations

import json
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
        (
            [],
            "--target is missing: give a name of `intaglio targets`, or a .toml file; or --design or --roofline.",
        ),
        (["--target", "zcu103"], "did you mean 'zcu10"),
        (["--target", "tiny", "--config", "tinny"], "did you mean 'tiny'"),
        (["--target", "c"], "is of kind 'c', of which there is no model"),
        (["--target", "cpu", "--latency", "3"], "--latency and --bandwidth are for FPGA targets only"),
        (["--target", "tiny", "--threads", "2"], "--threads: only CPU targets have them"),
        (["--target", "tiny", "--threads", "0"], "--threads"),
        (["--target", "tiny", "--design", "edge-moe"], "--target and --design exclude each other"),
        (
            ["--design", "edge-moe", "--config", "tiny"],
            "--design: --config, --latency and --bandwidth are for FPGA",
        ),
        (
            ["--target", "tiny", "--routing", "best"],
            "--routing: expected uniform, worst or a file, not 'best'",
        ),
        (["--target", "tiny", "--input", "a.png"], "--input: only --routing recorded looks at an image"),
        (
            ["--target", "cpu", "--routing", "worst"],
            "--routing is for FPGA targets and --design only, --task for FPGA targets only",
        ),
        (["--roofline", "h200", "--routing", "worst"], "--routing: a roofline does not depend on it"),
        (["--design", "edge-moe", "--routing", "recorded"], "only an FPGA target records one"),
        (
            ["--target", "tiny", "--routing", "recorded", "--input", "a.png"],
            "is no output folder of intaglio compile; compile it, to give it images",
        ),
        (["--target", "tiny", "--latency", "0"], "--latency must be in 1..100000 cycles, not 0"),
        (
            ["--target", "tiny", "--bandwidth", "0"],
            "--bandwidth must be in 0.25..65536 bytes per cycle, not 0.0",
        ),
        (["--target", "tiny", "--bandwidth", "nan"], "--bandwidth must be in 0.25..65536 bytes per cycle"),
        (["--design", "edge-moe", "--task", "1"], "--design: --task is for FPGA targets only"),
        (["--roofline", "h200", "--threads", "2"], "--roofline: --threads are for CPU targets only"),
        (["--design", "edgemoe"], "there is no design 'edgemoe'; known: edge-moe"),
        (["--roofline", "h100"], "there is no machine 'h100'; known: h200"),
    ],
)
def test_refusals(vit: Path, arguments: list[str], sentence: str) -> None:
    assert sentence in refusal("estimate", vit, *arguments)


def test_routing_of_a_mixture(root: Path, tmp_path: Path) -> None:
    model, folder = root / "examples/fashion_mnist/moe_tasks_qdq.onnx", tmp_path / "moe"
    invoke("compile", model, "--target", "tiny", "--input", "uint8", "-o", folder)
    image = ["--input", root / "examples/fashion_mnist/images", "--task", 1]
    uniform = invoke_json("estimate", folder)
    worst = invoke_json("estimate", folder, "--routing", "worst")
    recorded = invoke_json("estimate", folder, "--routing", "recorded", *image)
    assert [found["routing"]["how"] for found in (uniform, worst, recorded)] == [
        "uniform",
        "worst",
        "recorded",
    ]
    assert worst["cycles"] >= max(uniform["cycles"], recorded["cycles"])
    seen = invoke_json("inspect", folder, "--routing", *image)["routing"]
    tokens = recorded["routing"]["tokens"]
    assert [one[: len(layer["tokens"])] for one, layer in zip(tokens, seen, strict=True)] == [
        layer["tokens"] for layer in seen
    ]
    recording = tmp_path / "routing.json"
    recording.write_text(json.dumps({"routing": seen}))
    again = invoke_json("estimate", folder, "--routing", recording, "--task", 1)
    assert again["cycles"] == recorded["cycles"]
    assert "uniform: first mixture" in invoke("estimate", folder).stdout
    assert "the task must be in 0..1, not 9" in refusal("estimate", folder, "--task", 9)


def test_a_missing_model() -> None:
    assert "no such file" in refusal("estimate", "/no/such.onnx", "--target", "tiny")


def test_another_artifact(vit: Path, tmp_path: Path) -> None:
    invoke("compile", vit, "--target", "null", "-o", tmp_path / "null")
    assert "is of kind 'null', of which there is no model" in refusal("estimate", tmp_path / "null")


def test_a_design(root: Path, tmp_path: Path) -> None:
    model = root / "examples/fashion_mnist/moe_qdq.onnx"
    values = invoke_json("estimate", model, "--design", "edge-moe")
    assert set(values) >= KEYS
    assert values["routing"]["how"] == "uniform"
    assert sum(values["bound_by"].values()) == values["cycles"]
    worst = invoke_json("estimate", model, "--design", "edge-moe", "--routing", "worst")
    assert worst["cycles"] > values["cycles"]
    recording = tmp_path / "routing.json"
    recording.write_text(json.dumps({"routing": [{"tokens": t} for t in worst["routing"]["tokens"]]}))
    again = invoke_json("estimate", model, "--design", "edge-moe", "--routing", recording)
    assert again["cycles"] == worst["cycles"]
    text = invoke("estimate", model, "--design", "edge-moe").stdout
    assert "Published, not used here" in text
    recording.write_text("[1, 2]")
    assert "must hold a list of numbers" in refusal(
        "estimate", model, "--design", "edge-moe", "--routing", recording
    )
    assert "expected uniform, worst or a file" in refusal(
        "estimate", model, "--design", "edge-moe", "--routing", "best"
    )


def test_processors(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from intaglio.estimate import measure

    monkeypatch.setattr(measure, "SECONDS", 0.02)
    host = invoke_json("estimate", vit, "--target", "cpu")
    gpu = invoke_json("estimate", vit, "--roofline", "h200")
    for values in (host, gpu):
        assert set(values) >= KEYS
        assert values["energy_band_mj"][0] < values["energy_mj"] < values["energy_band_mj"][1]
    assert (host["measured"], gpu["measured"]) == (True, False)
    assert "NOT MEASURED" in invoke("estimate", vit, "--roofline", "h200").stdout
    assert "off a transformer block measured here" in invoke("estimate", vit, "--target", "cpu").stdout
