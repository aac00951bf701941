"""Mixtures of experts and tasks on the accelerator: whole programs on the simulator against the reference."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.backends import fpga
from intaglio.backends.fpga import emit_experts
from intaglio.backends.fpga.build import build
from intaglio.backends.fpga.check import ScheduleError, check
from intaglio.backends.fpga.lower import lower
from intaglio.backends.fpga.operations import Experts
from intaglio.backends.fpga.trace import trace
from intaglio.errors import UnsupportedError
from intaglio.hw.iss import Simulator
from intaglio.hw.iss.routing import RoutingRecord, layers, load_bytes, rows
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


@pytest.fixture(params=[emit_experts.UNUSED, 0.0], ids=["early", "late"])
def early(request, monkeypatch):
    """Whether the first experts are loaded before the routing is known."""
    monkeypatch.setattr(emit_experts, "UNUSED", request.param)
    return request.param > 0


@pytest.mark.parametrize("preset", ["tiny", "medium", "large"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_routings(routing, preset, early):
    (layer,) = simulated(MixtureWriter(Mixture(routing=routing)).build(whole=True), PRESETS[preset])
    tokens = SMALL.tokens
    match routing:
        case "equal":
            assert layer.tokens == (tokens, tokens, 0, 0, 0)
        case "one expert":
            assert tokens in layer.tokens
        case "empty experts":
            assert layer.tokens[2:] == (0, 0, 0)
            assert layer.bytes_read > 0
            assert (layer.bytes_saved > layer.bytes_read) is (not early)


@pytest.mark.parametrize("preset", ["tiny", "medium", "large"])
@pytest.mark.parametrize(
    "mixture",
    [
        Mixture(function="own", experts=7, k=3),
        Mixture(function="none", logits="int8", normalize=False),
        Mixture(experts=4, k=4, hidden=40),
        Mixture(experts=1, k=1, normalize=False),
        Mixture(experts=8, k=1, hidden=200, function="own", normalize=False),
        Mixture(tasks=3),
    ],
    ids=lambda mixture: f"{mixture.function}-{mixture.experts}-{mixture.k}-{mixture.tasks}",
)
def test_kinds(mixture, preset):
    simulated(MixtureWriter(mixture, replace(SMALL, layers=3)).build(), PRESETS[preset])


@pytest.mark.parametrize("preset", ["tiny", "large"])
def test_int16_stream(preset):
    """The sum of the experts is added to int16; several mixtures follow each other."""
    vit = replace(SMALL, residual="int16", layers=4)
    simulated(MixtureWriter(Mixture(tasks=2), vit).build(whole=True), PRESETS[preset])


def test_few_words():
    """One place for the tokens of an expert instead of two; none of the rest changes."""
    program = MixtureWriter(Mixture(hidden=128)).build(whole=True)
    config = PRESETS["tiny"]
    wide = places(program, config)
    config = config.model_copy(update={"a_words": 336})
    assert (wide, places(program, config)) == (2, 1)
    simulated(program, config)


def places(program, config):
    (op,) = [op for op in lower(trace(program), config) if isinstance(op, Experts)]
    return len(op.places)


@pytest.mark.parametrize("early", [0.0], ids=["late"], indirect=True)
def test_empty_experts_cost_nothing(early):
    """What the program reads of weights is what the experts that were chosen have."""
    config = PRESETS["large"]
    for experts in (4, 8):
        mixture = Mixture(experts=experts, routing="empty experts")
        (layer,) = simulated(MixtureWriter(mixture).build(), config)
        assert layer.experts_loaded == 2
        assert layer.bytes_saved == (experts - 2) * layer.bytes_read / 2


TINY = PRESETS["tiny"]
CUT = TINY.model_copy(update={"a_words": 200, "x_words": 20})
"""Too small for the mixtures below: rows are cut, each chunk is routed, and chunks share what is still there."""


@pytest.mark.parametrize("config", [TINY, CUT], ids=["whole", "cut"])
@pytest.mark.parametrize(
    "mixture",
    [
        Mixture(function="none", k=3),
        Mixture(function="own", experts=4, hidden=200, k=3),
        Mixture(function="own", experts=3, k=2, tasks=2),
    ],
    ids=lambda mixture: f"{mixture.experts}-{mixture.hidden}-{mixture.tasks}",
)
def test_bytes_of_experts(mixture, config, early):
    """Every load of an expert counts for the routing of its first product, whether or not it waits for that."""
    program = MixtureWriter(mixture, replace(SMALL, layers=4)).build(whole=True)
    built = build(program, config)
    descriptors = built.program.descriptors
    record = RoutingRecord()
    image = np.random.default_rng(0).integers(0, 256, program.tensors["input"].shape, np.uint8)
    Simulator(config, built.program, built.weights).run(image.tobytes(), trace=record)
    found, expected, ahead = Counter(), Counter(), Counter()
    for layer in layers(config, descriptors, record.routings):
        found[layer.index, True] += layer.bytes_read
        found[layer.index, False] += layer.bytes_saved
    counts = rows(descriptors, record.routings)
    for index, d in enumerate(descriptors):
        product = re.search(r"expert \d+ of .*", built.comments[index])
        if product and d.kind.startswith("LOAD"):
            reader = built.comments.index(product[0], index)
            route = max(routing.index for routing in record.routings if routing.index < reader)
            expected[route, not d["queue"] or counts[index] > 0] += load_bytes(config, d)
            ahead[built.steps[index]] += not d["queue"]
    assert +found == +expected
    assert len(ahead) == 2
    assert all((number > 0) is early for number in ahead.values())
    assert (len(record.routings) > 2) is (config is CUT)


@pytest.mark.parametrize("config", [TINY, CUT], ids=["whole", "cut"])
def test_loads_ahead_of_the_routing_wait(config):
    """Without the waits of any of them there is a race for what it overwrites."""
    program = MixtureWriter(Mixture(function="own", k=3), replace(SMALL, layers=4)).build(whole=True)
    built = build(program, config)
    descriptors = list(built.program.descriptors)
    kinds = Counter()
    for index, d in enumerate(descriptors):
        if " of expert " not in built.comments[index] or not d.kind.startswith("LOAD") or d["queue"]:
            continue
        if d.waits:
            changed = [*descriptors[:index], replace(d, waits={}), *descriptors[index + 1 :]]
            with pytest.raises(ScheduleError, match=r"needs \w\w at \d+, which no wait guarantees"):
                check(changed, config)
            kinds[d.kind] += 1
    # Loads of parameters and tables are one unit's, and the waits of the former imply those of the latter.
    assert set(kinds) == {"LOAD_WEIGHTS", "LOAD_PARAMS"}


@pytest.mark.parametrize(
    ("mixture", "config", "message"),
    [
        (
            Mixture(experts=5), {"experts": 4},
            "it has 5 experts, the configuration's router chooses from 4; raise experts in .* to at least 5",
        ),
        (
            Mixture(), {"max_keys": 16},
            "it routes 26 tokens, the configuration allows 16; raise max_keys in the configuration to at least 26",
        ),
    ],
)  # fmt: skip
def test_refused(mixture, config, message):
    writer = MixtureWriter(mixture)
    writer.moe(writer.patches())
    with pytest.raises(UnsupportedError, match=rf"^moe .* does not run on the accelerator: {message}\.$"):
        build(writer.program(), PRESETS["tiny"].model_copy(update=config))
