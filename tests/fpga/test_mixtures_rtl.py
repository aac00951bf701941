"""Mixtures of experts, tasks and spilled tensors on the accelerator's RTL: every bit, and what is not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intaglio import artifact, feed
from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.backends import fpga
from intaglio.backends.fpga.build import build
from intaglio.data import load_samples
from intaglio.hw.iss import Simulator
from intaglio.hw.iss.random_program import random_program
from intaglio.hw.iss.routing import Routing, RoutingRecord, rows
from intaglio.ops.reference import run
from intaglio.simulate import simulate_artifact
from intaglio.simulation.frame import Job, MemoryModel, Run, simulate_all
from tests.cpu.networks import SMALL
from tests.examples import compile_example
from tests.fpga.accounting import causes_sum_up
from tests.fpga.mixtures import ROUTINGS, Mixture, MixtureWriter

TINY = PRESETS["tiny"]
MEMORY = MemoryModel(latency=20, bytes_per_cycle=16.0, stall_rate=40)
EXAMPLES = {"moe_qdq": 1, "moe_tasks_qdq": 2}
IMAGES = 3
SEEDS = range(1000, 1020)
MIXTURES = (
    Mixture(experts=4, k=4, hidden=40),
    Mixture(experts=1, k=1, normalize=False),
    Mixture(function="own", experts=7, k=3, logits="int8"),
    Mixture(function="none", normalize=False, tasks=3),
)


@pytest.fixture(scope="module", params=EXAMPLES)
def compiled(
    request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> artifact.Artifact:
    """A shipped mixture of experts, compiled for the small configuration as the README does it."""
    return compile_example(root, request.param, tmp_path_factory.mktemp(request.param) / "build")


@pytest.mark.simulator
@pytest.mark.slow
def test_shipped_models(compiled: artifact.Artifact, root: Path) -> None:
    given = load_samples(root / "examples/fashion_mnist/images", [1, 28, 28], IMAGES)
    inputs = feed.integers(compiled.program, given, None)
    file = fpga.load(compiled).program
    results = []
    for task in range(file.tasks):
        report = simulate_artifact(compiled, inputs, task=task)
        assert report.errors == []
        assert report.bit_exact
        assert len(report.frames.runs) == IMAGES
        for frame, mixtures in zip(report.frames.runs, report.routing, strict=True):
            routings = [Routing(layer.index, layer.tokens) for layer in mixtures]
            accounted_for(dict(frame.counters), file, routings)
        causes_sum_up(report)
        results.append(report.results.tobytes())
    # Tasks have different gates.
    assert len(set(results)) == file.tasks == EXAMPLES[compiled.program.name]


def accounted_for(counters: dict[str, int], file: ProgramFile, routings: Sequence[Routing]) -> None:
    """Experts are counted, and only weights of those that a token chose are read."""
    assert counters["experts"] == sum(n > 0 for routing in routings for n in routing.tokens)
    chosen = rows(file.descriptors, routings)
    entries = [
        d["entries"]
        for d, count in zip(file.descriptors, chosen, strict=True)
        if d.kind == "LOAD_WEIGHTS" and (count or not d["queue"])
    ]
    assert counters["read_beats_dm"] == sum(entries) * TINY.cols
    assert counters["combine"] >= sum(
        -(-d["rows"] // TINY.rows) for d in file.descriptors if d.kind == "COMBINE"
    )


@pytest.mark.simulator
@pytest.mark.slow
def test_routings() -> None:
    """Gates that make routing hard, and mixtures of every kind: the reference's bits, for every task."""
    mixtures = [*(Mixture(routing=routing) for routing in ROUTINGS), *MIXTURES]
    jobs, expected, routed = [], [], []
    for number, mixture in enumerate(mixtures):
        program = MixtureWriter(mixture, replace(SMALL, layers=2), seed=number).build(whole=True)
        built = build(program, TINY)
        x = np.random.default_rng(number).integers(0, 256, program.tensors["input"].shape, np.uint8)
        for task in range(program.tasks):
            jobs.append(Job(TINY, built.program, built.weights, [x.tobytes()], task=task))
            expected.append((program, run(program, x, task=task)))
            record = RoutingRecord()
            Simulator(TINY, built.program, built.weights).run(x.tobytes(), record, task=task)
            routed.append(record.routings)
    frames = simulate_all(jobs, MEMORY)
    for job, frame, (program, values), routings in zip(jobs, frames, expected, routed, strict=True):
        (found,) = frame.runs
        assert found.status == 0
        assert np.array_equal(fpga.result(program.tensors[program.output], found.result), values)
        accounted_for(dict(found.counters), job.program, routings)


@pytest.mark.simulator
@pytest.mark.slow
def test_random_mixtures() -> None:
    """Programs of mixtures and spilled tensors only, every task of each."""
    jobs = []
    for seed in SEEDS:
        program, weights, image = random_program(TINY, seed, ["mixture", "mixture", "spill"], size=4)
        jobs += [Job(TINY, program, weights, [image], task=task) for task in range(program.tasks)]
    assert {d.kind for job in jobs for d in job.program.descriptors} >= {"ROUTE", "MOVE_ROWS", "COMBINE"}
    found = [frame.runs[0] for frame in simulate_all(jobs, MEMORY)]
    wrong = [job.task for job, frame in zip(jobs, found, strict=True) if not same(job, frame)]
    assert wrong == []


def same(job: Job, found: Run) -> bool:
    """Whether the RTL did as the simulator does."""
    record = RoutingRecord()
    simulator = Simulator(job.config, job.program, job.weights)
    result = simulator.run(job.images[0], record, task=job.task)
    accounted_for(dict(found.counters), job.program, record.routings)
    return (found.status, found.result) == (0, result)
