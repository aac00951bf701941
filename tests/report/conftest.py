"""The shipped example on the small configuration, its page, and a simulation of it whose times are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intaglio import artifact
from intaglio.backends import fpga
from intaglio.report import Facts, Question, collect, render
from intaglio.samples import random_inputs
from tests.examples import compile_example


@pytest.fixture(scope="session")
def example(root: Path, tmp_path_factory: pytest.TempPathFactory) -> artifact.Artifact:
    return compile_example(root, "vit_qdq", tmp_path_factory.mktemp("report") / "vit")


@pytest.fixture(scope="session")
def mixture(root: Path, tmp_path_factory: pytest.TempPathFactory) -> artifact.Artifact:
    return compile_example(root, "moe_tasks_qdq", tmp_path_factory.mktemp("report") / "moe")


@pytest.fixture(scope="session")
def simulation(example: artifact.Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `intaglio simulate --json` prints it: every descriptor takes as long as the model says, and 2 cycles more."""
    found = collect(example, Question())
    assert found.modelled is not None
    spans = [
        {"image": 0, "index": i, "kind": d.kind, "unit": "", "start": span.start, "end": span.end + 2}
        for i, (d, span) in enumerate(zip(found.program, found.modelled.spans, strict=True))
    ]
    values = {
        "bit_exact": True,
        "images": 1,
        "cycles": found.modelled.cycles + 40,
        "config": f"{fpga.load(example).config.hash:08x}",
        "memory": {"latency": 100, "bytes_per_cycle": 57.0},
        "latency_ms": 0.34,
        "routing": [[]],
        "descriptors": spans,
    }
    path = tmp_path_factory.mktemp("simulation") / "simulation.json"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="session")
def mixture_simulation(mixture_facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten cycles for every descriptor, one after another."""
    kinds = [d.kind for d in mixture_facts.program]
    values = {
        "bit_exact": True,
        "cycles": 10 * len(kinds),
        "latency_ms": 0.03,
        "task": 1,
        "routing": [[layer.as_json() for layer in mixture_facts.routing]],
        "descriptors": [
            {"image": 0, "index": i, "kind": kind, "start": 10 * i, "end": 10 * i + 10}
            for i, kind in enumerate(kinds)
        ],
    }
    path = tmp_path_factory.mktemp("simulation") / "mixture.json"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="session")
def designs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four designs, three lines that are none, and an empty one."""
    lines = [
        '{"latency_ms": 0.2, "energy_mj": 4.0, "dsp": 1800, "pareto": true, "name": "fast & wide"}',
        '{"latency_ms": 0.5, "energy_mj": 1.5, "dsp": 400, "pareto": true}',
        '{"latency_ms": 2.0, "energy_mj": 0.9, "dsp": 0, "pareto": true}',
        '{"latency_ms": 2.5, "energy_mj": 5.0, "dsp": 900, "pareto": false}',
        '{"latency_ms": 2.5, "energy_mj": null, "dsp": 900, "pareto": false}',
        '{"latency_ms": 0, "energy_mj": 1, "dsp": 900, "pareto": false}',
        "no JSON",
        "",
    ]
    path = tmp_path_factory.mktemp("designs") / "designs.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session")
def facts(example: artifact.Artifact, simulation: Path, designs: Path) -> Facts:
    """Everything that a report of the example can have."""
    return collect(example, Question(simulation=simulation, explore=designs))


@pytest.fixture(scope="session")
def page(facts: Facts) -> str:
    return render(facts, "report.trace.json")


@pytest.fixture(scope="session")
def mixture_facts(mixture: artifact.Artifact) -> Facts:
    image = random_inputs(mixture.program.tensors[mixture.program.input], 1)
    return collect(mixture, Question(inputs=image))
