"""Every command on a real model: what it prints for people, and the JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from intaglio import verify as verification
from intaglio.cli.app import COMMANDS
from intaglio.resources import version
from tests.cli.conftest import SHAPE, invoke, invoke_json, refusal


def test_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"intaglio {version()}\n")


def test_without_a_command_there_is_help() -> None:
    result = invoke()
    for name in COMMANDS:
        assert name in result.stdout + result.stderr
        assert invoke(name, "--help").exit_code == 0


def test_completion_is_offered() -> None:
    assert "--show-completion" in invoke("--help").stdout


def test_targets() -> None:
    assert "cpu-x86-64-v3" in invoke("targets").stdout
    listed = {entry["name"]: entry["kind"] for entry in invoke_json("targets")["targets"]}
    assert listed["c"] == "c"
    assert listed["cpu"] == "cpu"
    assert listed["zcu102"] == "fpga"
    assert list(listed) == sorted(listed)


def test_targets_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nkind = "null"\n')
    assert invoke_json("targets", tmp_path) == {
        "targets": [{"name": "mine", "description": "", "kind": "null"}]
    }


def test_compile_for_a_target_of_ones_own(tmp_path: Path, model: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nkind = "cpu"\nmcpu = "x86-64-v2"\n')
    values = invoke_json("compile", model, "--target", tmp_path / "mine.toml", "-o", tmp_path / "out")
    assert values["target"] == "mine"
    assert invoke_json("verify", tmp_path / "out", "--count", 1)["bit_exact"]


def test_compile(tmp_path: Path, model: Path) -> None:
    result = invoke(
        "compile", model, "-o", tmp_path / "out", "--dump-ir", tmp_path / "ir", "--target", "null"
    )
    assert result.exit_code == 0, result.stderr
    assert "0 float ops" in result.stdout
    assert "compile: import" in result.stderr
    assert len(list((tmp_path / "ir").iterdir())) > 5


def test_a_batch_is_filled_up(tmp_path: Path, model: Path, compiled: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(3, *SHAPE)))
    values = invoke_json("compile", model, "--target", "null", "--batch", 2, "-o", tmp_path / "out")
    assert values["input"]["shape"] == [2, *SHAPE]
    two = invoke_json("run", tmp_path / "out", "--input", tmp_path / "x.npy")["results"]
    one = invoke_json("run", compiled / "float", "--input", tmp_path / "x.npy")["results"]
    assert two == one


@pytest.mark.parametrize(("name", "device"), [("pixels", "cpu"), ("c", "c"), ("null", "reference")])
def test_run_takes_the_fastest_execution(compiled: Path, pixels: Path, name: str, device: str) -> None:
    values = invoke_json("run", compiled / name, "--input", pixels)
    assert values["device"] == device
    assert values["count"] == 3


def test_every_device_gives_the_same(tmp_path: Path, compiled: Path, pixels: Path) -> None:
    results = {}
    for device in ("reference", "cpu", "c"):
        arguments = ("--input", pixels, "--device", device, "--output", tmp_path / f"{device}.npy")
        assert invoke_json("run", compiled / "pixels", *arguments)["device"] == device
        results[device] = np.load(tmp_path / f"{device}.npy")
    assert results["cpu"].dtype == np.float64
    assert len(results["cpu"]) == 3
    assert (results["cpu"] == results["reference"]).all()
    assert (results["c"] == results["reference"]).all()


def test_run_shows_names(tmp_path: Path, compiled: Path, pixels: Path) -> None:
    classes = invoke_json("run", compiled / "pixels", "-i", pixels)["shape"][-1]
    (tmp_path / "labels.txt").write_text("\n".join(f"thing {index}" for index in range(classes)))
    result = invoke("run", compiled / "pixels", "-i", pixels, "--labels", tmp_path / "labels.txt", "--top", 1)
    assert "x.npy[0]" in result.stdout
    assert "thing " in result.stdout
    top = invoke_json(
        "run", compiled / "pixels", "-i", pixels, "--labels", tmp_path / "labels.txt", "--top", 2
    )
    best, second = top["results"][0]["top"]
    assert best["logit"] >= second["logit"]
    assert best["label"] == f"thing {best['class']}"


def test_images_and_their_pixels_are_the_same(tmp_path: Path, compiled: Path, pixels: Path) -> None:
    for index, image in enumerate(np.load(pixels)):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{index}.png")
    folder = invoke_json("run", compiled / "pixels", "-i", tmp_path)["results"]
    array = invoke_json("run", compiled / "pixels", "-i", pixels)["results"]
    assert [entry["top"] for entry in folder] == [entry["top"] for entry in array]
    assert folder[0]["input"] == "0.png"


def test_a_model_of_real_values_takes_pixels_with_a_normalization(compiled: Path, pixels: Path) -> None:
    normalization = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    real = invoke_json("run", compiled / "float", "-i", pixels, *normalization)["results"]
    raw = invoke_json("run", compiled / "pixels", "-i", pixels)["results"]
    assert [entry["top"][0]["class"] for entry in real] == [entry["top"][0]["class"] for entry in raw]


@pytest.mark.parametrize(
    ("name", "executions"),
    [
        ("float", ["reference", "cpu", "c"]),
        ("pixels", ["reference", "cpu", "c"]),
        ("c", ["reference", "c"]),
        ("null", ["reference", "c"]),
    ],
)
def test_verify(compiled: Path, name: str, executions: list[str]) -> None:
    values = invoke_json("verify", compiled / name)
    assert list(values) == [
        "bit_exact", "executions", "float_instructions", "cosine", "top1_agreement", "tasks",
    ]  # fmt: skip
    assert values["bit_exact"] is True
    assert values["executions"] == executions
    assert values["float_instructions"] == 0
    assert values["cosine"] > 0.99
    assert 0 <= values["top1_agreement"] <= 1


def test_verify_on_given_inputs(compiled: Path, pixels: Path) -> None:
    result = invoke("verify", compiled / "pixels", "--input", pixels)
    assert result.exit_code == 0, result.stderr
    assert "7 samples" in result.stdout  # three given, four extreme
    assert result.stdout.count("bit-exact") == 2
    assert "against the source model in ONNX Runtime, 3 samples" in result.stdout


def test_verify_of_a_moved_source(tmp_path: Path, compiled: Path, model: Path) -> None:
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(model.read_bytes())
    assert invoke_json("verify", compiled / "null", "--count", 1, "--model", moved)["bit_exact"]


@pytest.mark.parametrize(
    ("execution", "sentence"),
    [
        (verification.Execution("cpu", 2, []), "DIFFERS on 2 of 12"),
        (verification.Execution("cpu", 0, ["f at 0x10: addss %xmm0,%xmm1"]), "addss"),
    ],
)
def test_a_failed_proof_exits_with_1(
    compiled: Path, monkeypatch: pytest.MonkeyPatch, execution: verification.Execution, sentence: str
) -> None:
    monkeypatch.setattr(verification, "_check", lambda *_: execution)
    result = invoke("verify", compiled / "pixels")
    assert result.exit_code == 1
    assert sentence in result.stdout
    values = json.loads(invoke("verify", compiled / "pixels", "--json").stdout)
    assert not (values["bit_exact"] and values["float_instructions"] == 0)


@pytest.mark.parametrize("compiled_already", [False, True])
def test_inspect(compiled: Path, model: Path, compiled_already: bool) -> None:
    path = compiled / "float" if compiled_already else model
    values = invoke_json("inspect", path)
    assert values["float_ops"] == 0
    assert values["macs"] == sum(entry["macs"] for entry in values["ops"]) > 0
    assert {"name", "op", "onnx_nodes", "macs"} <= set(values["ops"][0])
    result = invoke("inspect", path)
    assert "patch_embed" in result.stdout
    assert "node_conv2d" in result.stdout
    assert "0 float ops" in result.stdout


@pytest.mark.parametrize("more", [(), ("--program",), ("--routing",)])
def test_a_compiled_model_has_its_batch(compiled: Path, more: tuple[str, ...]) -> None:
    sentence = refusal("inspect", compiled / "float", "--batch", 2, *more)
    assert sentence.startswith("--batch: ")
    assert "is compiled already; give its ONNX model" in sentence


def test_quantize(tmp_path: Path, pixels: Path) -> None:
    source = Path(__file__).parents[1] / "fixtures" / "timm_dynamo_op20.onnx"
    normalization = ("--mean", "0.5", "--std", "0.5")
    arguments = ("quantize", source, "--calibrate", pixels, "-o", tmp_path / "q.onnx", *normalization)
    values = invoke_json(*arguments)
    assert values["images"] == 3
    assert values["added"]
    assert (
        invoke_json("compile", tmp_path / "q.onnx", "--target", "null", "-o", tmp_path / "out")["float_ops"]
        == 0
    )
    result = invoke(*arguments)
    assert "scales added for" in result.stdout
