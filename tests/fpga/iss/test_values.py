"""The simulator against the literal accelerator, and against itself in random order."""

from __future__ import annotations

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.hw.iss import Simulator, dump_to
from intaglio.hw.iss.random_program import KINDS, random_program
from tests.fpga.iss.literal import Literal

CONFIGS = PRESETS | {
    "narrow": AcceleratorConfig(
        rows=2, cols=16, depth=16, weight_entries=64, a_words=256, x_words=128, weight_ports=8
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(4))
def test_literal(name, kind, seed):
    config = CONFIGS[name]
    program, weights, image = random_program(config, seed, [kind], size=2)
    assert Simulator(config, program, weights).run(image) == Literal(config, program, weights, image).run()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(100, 106))
def test_literal_mixed(name, seed):
    config = CONFIGS[name]
    program, weights, image = random_program(config, seed)
    assert Simulator(config, program, weights).run(image) == Literal(config, program, weights, image).run()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(200, 208))
def test_random_order(name, seed):
    config = CONFIGS[name]
    simulator, image = _simulator(config, seed, size=6)
    expected = simulator.run(image)
    assert all(simulator.run(image, order="random", seed=other) == expected for other in range(3))


def test_runs_do_not_influence_each_other():
    config = CONFIGS["large"]
    program, weights, image = random_program(config, 1, size=8)
    simulator = Simulator(config, program, weights)
    other = np.random.default_rng(0).integers(0, 256, len(image), np.uint8).tobytes()
    first = simulator.run(image)
    for data in (other, image, other):
        assert simulator.run(data) == Simulator(config, program, weights).run(data)
    assert simulator.run(image) == first


@pytest.mark.parametrize("name", CONFIGS)
def test_programs_survive_packing(name):
    program, weights, image = random_program(CONFIGS[name], 3)
    again = ProgramFile.unpack(program.pack())
    assert Simulator(CONFIGS[name], again, weights).run(image) == Simulator(
        CONFIGS[name], program, weights
    ).run(image)


def test_random_programs_are_reproducible():
    assert random_program(CONFIGS["tiny"], 5) == random_program(CONFIGS["tiny"], 5)
    assert random_program(CONFIGS["tiny"], 5) != random_program(CONFIGS["tiny"], 6)


def test_random_programs_need_known_kinds():
    with pytest.raises(
        ValueError, match="kinds must be among gemm, layernorm, attention, image, mixture, spill, not 'conv'"
    ):
        random_program(CONFIGS["tiny"], 0, ["conv"])


@pytest.mark.parametrize("order", ["program", "random"])
def test_trace_and_dump(tmp_path, order):
    config = CONFIGS["tiny"]
    simulator, image = _simulator(config, 7)
    seen = []
    simulator.run(image, trace=lambda index, d, memories: seen.append((index, d.kind)), order=order)
    descriptors = simulator.program.descriptors
    assert sorted(seen) == [(i, d.kind) for i, d in enumerate(descriptors)]
    result = simulator.run(image, trace=dump_to(tmp_path), order=order)
    assert len(list(tmp_path.iterdir())) == len(descriptors)
    last = np.load(tmp_path / f"{seen[-1][0]:05d}-{descriptors[seen[-1][0]].kind}.npz")
    assert last["output"].tobytes() == result
    assert last["bank_a"].shape == (config.a_words, config.word_bytes)
    assert last["weights"].shape == (config.weight_entries, config.entry_bytes)


def _simulator(config, seed, size=4):
    program, weights, image = random_program(config, seed, size=size)
    return Simulator(config, program, weights), image
