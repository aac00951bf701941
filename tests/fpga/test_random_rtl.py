"""Random programs on the whole accelerator's RTL, every task: every byte as simulated, under several memories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.accelerator.descriptors import BYTES
from intaglio.hw.iss import Simulator
from intaglio.hw.iss.random_program import random_program
from intaglio.simulation.frame import Job, MemoryModel, simulate_all
from intaglio.simulation.memory import PAGE, MemoryMap

SEEDS = {"tiny": 36, "ecp5": 12}
MEMORIES = {
    "fast": MemoryModel(latency=1, bytes_per_cycle=256.0),
    "slow": MemoryModel(latency=150, bytes_per_cycle=3.0),
    "stalling": MemoryModel(latency=20, bytes_per_cycle=16.0, stall_rate=80),
}


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.parametrize("preset", SEEDS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_random_programs(preset: str, memory: str) -> None:
    number = list(MEMORIES).index(memory)
    seeds = range(number, SEEDS[preset], len(MEMORIES))
    programs = [(seed, _job(PRESETS[preset], seed)) for seed in seeds]
    runs = [(seed, replace(job, task=task)) for seed, job in programs for task in range(job.program.tasks)]
    jobs = [job for _, job in runs]
    kinds = {(d.kind, d["spilled"] or d["all_rows"]) for job in jobs for d in job.program.descriptors}
    assert kinds >= {("STORE", 1), ("LOAD_ROWS", 1)}
    expected = [(0, _expected(job)) for job in jobs]
    frames = simulate_all(jobs, MEMORIES[memory])
    found = [(frame.runs[0].status, frame.runs[0].result) for frame in frames]
    wrong = [
        (seed, job.task)
        for (seed, job), left, right in zip(runs, found, expected, strict=True)
        if left != right
    ]
    assert wrong == []
    for job, frame in zip(jobs, frames, strict=True):
        assert sorted(span.index for span in frame.spans) == list(range(len(job.program.descriptors)))


@pytest.mark.simulator
@pytest.mark.slow
def test_one_program_many_images() -> None:
    """Runs without a reset between them: only the image changes."""
    job = _job(PRESETS["tiny"], 5, images=4)
    (frame,) = simulate_all([job], MEMORIES["stalling"])
    assert [run.status for run in frame.runs] == [0] * 4
    simulator = Simulator(job.config, job.program, job.weights)
    assert [run.result for run in frame.runs] == [simulator.run(image) for image in job.images]


def _job(config: AcceleratorConfig, seed: int, images: int = 1) -> Job:
    program, weights, image = random_program(config, seed)
    rng = np.random.default_rng(seed)
    others = [rng.integers(0, 256, len(image), np.uint8).tobytes() for _ in range(images - 1)]
    job = Job(config, program, weights, [image, *others])
    return replace(job, layout=_scattered(job, rng))


def _scattered(job: Job, rng: np.random.Generator) -> MemoryMap:
    """Every block at a random place in its page, aligned as the registers ask for it."""
    base = position = PAGE * int(rng.integers(0, 16))

    def take(size: int, alignment: int) -> int:
        nonlocal position
        start = position + alignment * int(rng.integers(0, PAGE // alignment))
        position = -(-(start + max(size, 1)) // PAGE) * PAGE
        return start

    program, weights = take(BYTES * len(job.program.descriptors), 128), take(len(job.weights), PAGE)
    inputs = tuple(take(job.program.input_bytes, 64) for _ in job.images)
    outputs = tuple(take(job.program.output_bytes, 64) for _ in job.images)
    return MemoryMap(program, weights, inputs, outputs, position, base)


def _expected(job: Job) -> bytes:
    return Simulator(job.config, job.program, job.weights).run(job.images[0], task=job.task)
