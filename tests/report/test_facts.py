"""The figures of a report: those of the models, of the simulation, of the file of designs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intaglio import artifact, estimate
from intaglio.accelerator.config import PRESETS
from intaglio.errors import ArtifactError, InputError
from intaglio.hw import energy
from intaglio.hw.cycles import predict
from intaglio.report import Facts, Question, as_json, collect, render
from intaglio.report import facts as report_facts
from intaglio.report.simulated import read_explored
from intaglio.simulate import macs
from intaglio.simulation.frame import MemoryModel
from intaglio.target import Board


def test_every_descriptor_belongs_to_one_op(facts: Facts) -> None:
    owned = sorted(i for op in facts.ops for i in op.op.descriptors)
    assert owned == list(range(len(facts.program)))


def test_every_op_of_the_program_is_there_once(facts: Facts) -> None:
    names = [name for op in facts.ops for name in (op.op.name, *op.op.folded)]
    assert sorted(names) == sorted(step.name for step in facts.artifact.program.steps)


def test_ops_are_those_of_the_estimate(facts: Facts) -> None:
    compiled = estimate.of_artifact(facts.artifact)
    found = estimate.estimate(compiled, "tiny", facts.compiled.board, facts.memory)
    times = {op.name: (op.unit, op.cycles, op.cause) for op in found.ops}
    assert {op.op.name: (op.op.unit, op.cycles, op.bound) for op in facts.ops} == times
    assert {op.op.name: op.macs for op in facts.ops} == {op.name: op.macs for op in found.ops}
    energies = {op.name: op.energy_mj for op in found.ops}
    assert {op.op.name: op.energy_mj for op in facts.ops} == pytest.approx(energies, rel=1e-9)


def test_work_and_traffic_are_sums_over_ops(facts: Facts) -> None:
    assert facts.macs == macs(facts.compiled.program, facts.compiled.config)
    actions = energy.count(facts.program, facts.compiled.config)
    assert facts.traffic == sum(a.memory for a in actions)


def test_energy_of_ops_is_the_part_that_goes_by_actions(facts: Facts) -> None:
    assert facts.energy is not None
    components = facts.energy.components
    for place, name in enumerate(("arithmetic", "on-chip memory", "external memory")):
        total = sum(op.energy[place] for op in facts.ops if op.energy)
        assert total == pytest.approx(components[name], rel=1e-9)


def test_memory_feeds_no_more_than_the_ports_take(facts: Facts) -> None:
    """One weight port and the I/O port of 8 bytes a cycle; the memory would give 57."""
    assert facts.feed == (16.0, "weight and I/O ports")
    slow = replace(facts, memory=MemoryModel(100, 5.0))
    assert slow.feed == (5.0, "memory")


def test_the_figures_for_scripts(facts: Facts) -> None:
    found = as_json(facts)
    assert facts.modelled is not None
    assert found["source"] == "modelled"
    assert found["cycles"] == facts.modelled.cycles
    assert found["simulated_cycles"] == facts.modelled.cycles + 40
    assert found["latency_ms"] == pytest.approx(facts.modelled.cycles / 1e5)
    assert found["missing"] == []
    assert json.loads(json.dumps(found)) == found


def test_a_simulation_stands_beside_the_model(facts: Facts) -> None:
    for op in facts.ops:
        assert op.simulated == (op.cycles or 0) + 2 * len(op.op.main)


def test_the_model_has_the_memory_and_the_task_of_the_simulation(
    example: artifact.Artifact, simulation: Path, tmp_path: Path
) -> None:
    slow = changed(
        simulation,
        tmp_path / "slow.json",
        lambda v: v.update(memory={"latency": 150, "bytes_per_cycle": 4.0}),
    )
    assert collect(example, Question(simulation=slow)).memory == MemoryModel(150, 4.0)
    assert collect(example, Question(simulation=slow, latency=150, bandwidth=4.0)).memory == MemoryModel(
        150, 4.0
    )
    with pytest.raises(InputError, match=r"--latency: the simulation had 150, not 7; leave it out\."):
        collect(example, Question(simulation=slow, latency=7))
    with pytest.raises(InputError, match=r"--bandwidth: the simulation had 4, not 8; leave it out\."):
        collect(example, Question(simulation=slow, bandwidth=8.0))
    with pytest.raises(InputError, match=r"--task: the simulation is of task 0, not 1\."):
        collect(example, Question(simulation=simulation, task=1))


def changed(path: Path, out: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    values = json.loads(path.read_text())
    change(values)
    out.write_text(json.dumps(values))
    return out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v.update(config="00000000"), "is of another program or configuration"),
        (lambda v: v["descriptors"].pop(), "is of another program or configuration"),
        (lambda v: v["descriptors"][3].update(kind="STORE"), "is of another program or configuration"),
        (
            lambda v: v.pop("descriptors"),
            r"is no output of intaglio simulate --json \(KeyError: 'descriptors'\)",
        ),
        (lambda v: v.update(cycles="many"), "is no output of intaglio simulate --json"),
        (lambda v: v.update(memory={"latency": "x"}), "is no output of intaglio simulate --json"),
        (lambda v: v.update(memory=[1]), "is no output of intaglio simulate --json"),
        (lambda v: v.update(task=1), "is of task 1, which this program does not have"),
    ],
)
def test_a_simulation_of_something_else(
    example: artifact.Artifact,
    simulation: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    sentence: str,
) -> None:
    path = changed(simulation, tmp_path / "other.json", change)
    with pytest.raises(InputError, match=sentence):
        collect(example, Question(simulation=path))


def test_no_simulation_at_all(example: artifact.Artifact, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is no output of intaglio simulate --json"):
        collect(example, Question(simulation=path))
    with pytest.raises(FileNotFoundError):
        collect(example, Question(simulation=tmp_path / "none.json"))


def test_designs_that_lack_a_figure_are_counted(designs: Path, tmp_path: Path) -> None:
    found = read_explored(designs)
    assert [design.pareto for design in found.designs] == [True, True, True, False]
    assert found.skipped == 3
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"latency_ms": 1}\n')
    with pytest.raises(InputError, match=r"--explore: no line of .* is a JSON object with latency_ms"):
        read_explored(empty)


def test_designs_as_explore_writes_them(tmp_path: Path) -> None:
    """A header, points of two models, one that cannot run the model; nobody says what lies on the front."""
    point = {
        "stage": "fast",
        "latency_ms": 9.0,
        "energy_mj": 9.0,
        "resources": {"dsp": 100, "lut": 5},
        "reason": "",
    }
    small, large = (PRESETS[name].model_dump() for name in ("tiny", "large"))
    lines = [
        {"format": 1, "key": "0123"},
        {**point, "config": small},
        {**point, "config": small, "stage": "exact", "latency_ms": 4.0, "energy_mj": 1.0},
        {**point, "config": large, "stage": "exact", "latency_ms": 1.0, "energy_mj": 3.0},
        {**point, "config": small, "latency_ms": 0.5},
        {**point, "config": {**small, "clock_mhz": 50}, "latency_ms": 2.0, "energy_mj": 0.5},
        {
            **point,
            "config": {**small, "rows": 1},
            "stage": "exact",
            "latency_ms": 5.0,
            "resources": {"dsp": 20},
        },
        {
            **point,
            "config": {**small, "rows": 2},
            "stage": "exact",
            "latency_ms": 5.0,
            "energy_mj": 9.5,
            "dsp": 20,
        },
        {**point, "config": {}, "reason": "the activations need more words"},
    ]
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    found = read_explored(path)
    assert [(d.name, d.latency_ms, d.dsp, d.pareto, d.rough) for d in found.designs] == [
        ("4 x 8 x 8 at 100 MHz", 4.0, 100, True, False),
        ("8 x 32 x 16 at 300 MHz", 1.0, 100, True, False),
        ("4 x 8 x 8 at 50 MHz", 2.0, 100, False, True),
        ("1 x 8 x 8 at 100 MHz", 5.0, 20, True, False),
        ("2 x 8 x 8 at 100 MHz", 5.0, 20, False, False),
    ]
    assert found.skipped == 1
    path.write_text("\n".join(json.dumps(line) for line in lines if line.get("stage") != "exact"))
    assert [(d.latency_ms, d.pareto) for d in read_explored(path).designs] == [(0.5, True), (2.0, True)]


def test_designs_for_a_board(tmp_path: Path) -> None:
    """What does not fit is left out, the front counts the scarcest resource, another model or part is refused."""
    used = {"dsp": 100, "bram36": 10, "uram": 0, "lut": 1000, "ff": 1000}
    point = {"stage": "exact", "latency_ms": 2.0, "energy_mj": 2.0, "reason": ""}
    lines = [
        {"format": 1, "key": "0123", "model": "vit", "part": "xc"},
        {**point, "resources": {**used, "dsp": 201}},
        {**point, "resources": {**used, "bram36": 90}},
        {**point, "resources": {**used, "dsp": 120}},
    ]
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    board = Board(part="xc", dsps=200, bram36=100)
    found = read_explored(path, "vit", board)
    assert [(d.dsp, d.share, d.pareto) for d in found.designs] == [(100, 0.9, False), (120, 0.6, True)]
    assert found.skipped == 1
    with pytest.raises(InputError, match="is of the model 'vit', not of 'deit'"):
        read_explored(path, "deit", board)
    with pytest.raises(InputError, match="is of the part 'xc', not of 'xd'"):
        read_explored(path, "vit", Board(part="xd"))


def test_another_artifact(root: Path, tmp_path: Path) -> None:
    from intaglio import target
    from intaglio.compiler import compile_model

    model = root / "examples/fashion_mnist/vit_qdq.onnx"
    compiled = compile_model(model, target=target.find("null"), out=tmp_path / "null")
    with pytest.raises(ArtifactError, match=r"has no file 'program\.bin'"):
        collect(compiled, Question())


# --- mixtures of experts ---


def test_the_routing_is_that_of_the_image(mixture_facts: Facts) -> None:
    assert [sum(layer.tokens) for layer in mixture_facts.routing] == [
        2 * mixture_facts.program[layer.index]["rows"] for layer in mixture_facts.routing
    ]
    assert mixture_facts.routing_source == "a random image"


def test_work_and_traffic_are_those_of_the_experts_that_were_chosen(mixture_facts: Facts) -> None:
    compiled = mixture_facts.compiled
    every = energy.count(compiled.program.descriptors, compiled.config)
    saved = sum(layer.bytes_saved for layer in mixture_facts.routing)
    assert saved > 0
    assert sum(a.memory for a in every) - mixture_facts.traffic == saved
    routed = mixture_facts.routing
    from intaglio.hw.iss.routing import Routing

    assert mixture_facts.macs == macs(
        compiled.program, compiled.config, [Routing(layer.index, layer.tokens) for layer in routed]
    )


def test_cycles_are_those_of_the_routing(mixture: artifact.Artifact, mixture_facts: Facts) -> None:
    assert mixture_facts.modelled is not None
    tokens = [layer.tokens for layer in mixture_facts.routing]
    program, config = mixture_facts.program, mixture_facts.compiled.config
    assert mixture_facts.modelled.cycles == predict(program, config, mixture_facts.memory, tokens).cycles
    assumed = collect(mixture, Question())
    assert assumed.modelled is not None
    assert assumed.modelled.cycles == predict(program, config, assumed.memory, "uniform").cycles
    assert assumed.routing == []
    assert "Tokens per expert are assumed: uniform." in render(assumed)
    # Evenly spread, tokens choose all experts of the first mixture; the two tokens of the second choose four of eight.
    saved = sum(layer.bytes_saved for layer in mixture_facts.routing)
    assert assumed.traffic - mixture_facts.traffic == saved - 4 * 9728


@pytest.fixture
def unknown(mixture: artifact.Artifact, monkeypatch: pytest.MonkeyPatch) -> artifact.Artifact:
    """A program that the cycle model does not know."""

    def refuse(*_: object) -> estimate.Estimate:
        raise InputError("descriptor 75: the cycle model does not know ROUTE yet.")

    monkeypatch.setattr(report_facts, "estimate", refuse)
    return mixture


def test_what_the_models_do_not_know_is_a_sentence(unknown: artifact.Artifact) -> None:
    found = collect(unknown, Question())
    assert found.missing == [
        "Modelled cycles, and what follows from them, are not shown: descriptor 75: the cycle model does not know "
        "ROUTE yet.",
        "Energy is not shown: it needs the time of a frame and the accelerator's resources.",
    ]
    assert as_json(found)["cycles"] is None
    page = render(found)
    assert "the cycle model does not know ROUTE yet." in page
    assert 'id="roofline"' not in page
    assert 'id="energy"' not in page
    assert 'id="time"' in page, "memory by the place in the program"


def test_a_simulation_stands_in_for_the_model(unknown: artifact.Artifact, mixture_simulation: Path) -> None:
    found = collect(unknown, Question(simulation=mixture_simulation))
    assert found.timing is not None
    assert found.energy is not None
    assert (found.timing.source, len(found.missing)) == ("simulated", 1)
    assert as_json(found)["cycles"] == 10 * len(found.program)
    page = render(found)
    assert 'id="roofline"' in page
    assert 'id="energy"' in page
