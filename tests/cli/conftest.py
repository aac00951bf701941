"""One small real model, compiled once for each target."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from intaglio.cli.app import app

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODEL = FIXTURES / "ort_dynamo_s8s8_pc.onnx"
SHAPE = (3, 32, 32)

Invoke = Callable[..., Result]


def invoke(*arguments: object) -> Result:
    """Run `intaglio` with `arguments` in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def invoke_json(*arguments: object) -> dict[str, Any]:
    """The one object that `intaglio ... --json` prints."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    values = json.loads(result.stdout)
    assert isinstance(values, dict)
    return values


def refusal(*arguments: object) -> str:
    """The sentence with which `intaglio` refuses `arguments`: exit code 2, one line, nothing on standard output."""
    result = invoke(*arguments)
    assert result.exit_code == 2, (result.stdout, result.stderr)
    assert result.stdout == ""
    *progress, sentence = result.stderr.splitlines()
    assert all("Traceback" not in line for line in progress)
    assert sentence.startswith("error: ")
    return sentence.removeprefix("error: ")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(MODEL, tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A folder with `float` (cpu, real values), `pixels` (cpu, raw pixels), `c` and `null`."""
    folder = tmp_path_factory.mktemp("compiled")
    pixels = ("--input", "uint8", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    for name, target, options in (
        ("float", "cpu", ()),
        ("pixels", "cpu", pixels),
        ("c", "c", pixels),
        ("null", "null", pixels),
    ):
        values = invoke_json("compile", model, "--target", target, "-o", folder / name, *options)
        assert values["target"] == target
    return folder


@pytest.fixture(scope="session")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images as an array of raw pixels."""
    path = tmp_path_factory.mktemp("pixels") / "x.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8))
    return path
