"""Makes fixtures again with the real exporters and compares their structure with the committed ones.

Each family of exporters needs its own environment (tests/fixtures/README.md). Say where they are:

    INTAGLIO_EXPORTERS=/path pytest -m exporters    # /path/<family>/bin/python, e.g. /path/ort/bin/python
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import onnx
import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures"
INDEX = json.loads((FIXTURES / "index.json").read_text())
INDEX |= json.loads((FIXTURES / "moe" / "index.json").read_text())
# One fixture per family keeps this to minutes; `make_*.py` without --only makes all.
SAMPLES = {
    "torch_float": "timm_dynamo_op20",
    "hf": "hf_vit_legacy_op17",
    "ort": "ort_dynamo_u8s8_pc",
    "pt2e": "pt2e_xnnpack_pc",
    "brevitas": "brevitas_qcdq_legacy",
    "nncf": "nncf_dynamo",
    "quark": "quark_a8w8_dynamo",
    "moe": "one_hot_legacy_qdq",
    "moe_hf": "hf_experts_batched_dynamo",
}

pytestmark = [pytest.mark.exporters, pytest.mark.slow]


@pytest.mark.parametrize("family", SAMPLES)
def test_exporter_still_writes_this(family: str, tmp_path: Path) -> None:
    home = os.environ.get("INTAGLIO_EXPORTERS")
    python = Path(home or "", family, "bin", "python")
    if home is None or not python.exists():
        pytest.skip(f"needs INTAGLIO_EXPORTERS with {family}/bin/python; see tests/fixtures/README.md")
    name = SAMPLES[family]
    script = FIXTURES / f"make_{family}.py"
    subprocess.run([python, script, "--out", tmp_path, "--only", name], check=True, cwd=tmp_path)
    made = onnx.load(tmp_path / INDEX[name]["file"])
    assert Counter(map(qualified, made.graph.node)) == INDEX[name]["ops"]


def qualified(node: onnx.NodeProto) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def test_every_family_has_a_script_and_pins() -> None:
    for family in SAMPLES:
        assert (FIXTURES / f"make_{family}.py").exists()
        assert (FIXTURES / f"requirements-{family}.txt").exists()
