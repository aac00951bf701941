"""Every form of model that the fixtures hold: it computes what its exporter computed, or is refused by name.

`index.json` drives the test: a form that is added there is tested here, as a model that compiles unless it is listed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.compiler import to_program
from intaglio.errors import CalibrationError, UnsupportedError
from tests.frontend.graphs import Array, run_program

FIXTURES = Path(__file__).parents[1] / "fixtures"
INDEX: dict[str, dict[str, Any]] = json.loads((FIXTURES / "index.json").read_text())

# Least cosine of the logits of one image with the exporter's own. Measured minima: 0.9999996 for 16-bit activations
# (quark_a16w8_dynamo), 0.9660 for 8-bit ones (quark_xint8_dynamo; 0.9688 quark_xint8_legacy, 0.9707
# ort_dinov2_legacy_s8s8_pc, all others above). These nets are tiny and have random weights, so one step of a rounding
# is amplified: two ways of rounding in 8 bits differ by as much from each other.
BOUND_16_BIT = 0.9999
BOUND_8_BIT = 0.95

ROTARY = "eva02"
# Quantized forms that leave activations (LayerNorm, residual sums, GELU, scores) in floating point.
PARTIAL_PREFIXES = ("brevitas_", "nncf_", "pt2e_")
PARTIAL_MARKS = ("_matrix", "op23", "u8s4")


def expectation(name: str) -> str:
    """compiles, uncalibrated or unsupported."""
    form = INDEX[name]["form"]
    if form == "dynamic" or ROTARY in name:
        return "unsupported"
    if form == "float" or name.startswith(PARTIAL_PREFIXES) or any(mark in name for mark in PARTIAL_MARKS):
        return "uncalibrated"
    return "compiles"


def forms(expected: str) -> list[str]:
    """Names of the fixtures of which this is expected."""
    return [name for name in INDEX if expectation(name) == expected]


def bound(name: str) -> float:
    """The least cosine: by the activations of the graph, which only QuantizeLinear rounds."""
    rounded = {key.split()[1] for key in INDEX[name]["q_types"] if key.startswith("Q ")}
    return BOUND_16_BIT if rounded and rounded <= {"int16", "uint16"} else BOUND_8_BIT


def cosines(a: Array, b: Array) -> Array:
    """Of each row."""
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (a, b))
    return np.asarray((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)))


def test_the_index_names_every_fixture() -> None:
    files = {path.stem for path in FIXTURES.glob("*.onnx")}
    assert files == set(INDEX)
    counts = {kind: len(forms(kind)) for kind in ("compiles", "uncalibrated", "unsupported")}
    assert sum(counts.values()) == len(INDEX)
    assert counts["compiles"] >= 66  # of the forms that were there in the beginning none became a refusal


@pytest.mark.parametrize("name", forms("compiles"))
def test_logits(name: str) -> None:
    program = to_program(FIXTURES / f"{name}.onnx")
    with np.load(FIXTURES / f"{name}.npz") as stored:
        x, expected = stored["input"][:2], stored["output"][:2]
    got = run_program(program, x)
    assert got.shape == expected.shape
    assert cosines(got, expected).min() >= bound(name)


@pytest.mark.parametrize("name", forms("uncalibrated"))
def test_activations_in_floating_point(name: str) -> None:
    with pytest.raises(CalibrationError) as refusal:
        to_program(FIXTURES / f"{name}.onnx")
    sentence = str(refusal.value)
    count, rest = sentence.split(" ", 1)
    listed = rest.partition(": ")[2].partition("; ")[0]
    assert int(count) >= 2
    assert rest.startswith("tensors are left in floating point, without a quantization scale: '")
    assert listed.count(" (") == min(int(count), 8)  # names, each with what needs it
    assert (" and " in listed) == (int(count) > 8)
    assert "intaglio quantize" in sentence
    assert "--calibrate" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("name", forms("unsupported"))
def test_what_has_no_integer_meaning(name: str) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        to_program(FIXTURES / f"{name}.onnx")
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert "node '" in sentence
    if ROTARY in name:
        assert "mul" in sentence.lower()
        assert "intaglio takes one factor per channel" in sentence
    else:
        assert "dynamic quantization" in sentence
        assert "intaglio quantize --calibrate" in sentence
