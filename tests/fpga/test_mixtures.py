"""Mixtures of experts and tasks on the accelerator: whole programs on the simulator against the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.backends import fpga
from intaglio.backends.fpga.build import build
from intaglio.hw.iss import Simulator
from intaglio.hw.iss.routing import RoutingRecord, layers
from intaglio.ops.reference import run
from tests.cpu.networks import SMALL
from tests.fpga.mixtures import ROUTINGS, Mixture, MixtureWriter


def simulated(program, config, seed=0):
    """The simulator gives the reference's bits for every task, in program order and in a random one; its record."""
    built = build(program, config)
    file = ProgramFile.unpack(built.program.pack())
    assert file.tasks == program.tasks
    simulator = Simulator(config, file, built.weights)
    x = np.random.default_rng(seed).integers(0, 256, program.tensors["input"].shape, np.uint8)
    record = RoutingRecord()
    for task in range(program.tasks):
        expected = run(program, x, task=task)
        data = simulator.run(x.tobytes(), trace=record, task=task)
        assert np.array_equal(fpga.result(program.tensors[program.output], data), expected)
        data = simulator.run(x.tobytes(), order="random", seed=seed, task=task)
        assert np.array_equal(fpga.result(program.tensors[program.output], data), expected)
    return layers(config, file.descriptors, record.routings[: len(record.routings) // program.tasks])


@pytest.mark.parametrize("preset", ["tiny", "medium", "large"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_routings(routing, preset):
    (layer,) = simulated(MixtureWriter(Mixture(routing=routing)).build(whole=True), PRESETS[preset])
    tokens = SMALL.tokens
    match routing:
        case "equal":
            assert layer.tokens == (tokens, tokens, 0, 0, 0)
        case "one expert":
            assert tokens in layer.tokens
        case "empty experts":
            assert layer.tokens[2:] == (0, 0, 0)
            assert layer.bytes_saved > layer.bytes_read > 0
