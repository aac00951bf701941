"""Mixtures of experts, tasks and spilled words in the C simulation, against simulator and reference."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio import artifact, feed
from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor, ProgramFile
from intaglio.backends import fpga
from intaglio.backends.fpga.build import build
from intaglio.backends.fpga.csim import Csim
from intaglio.data import fashion_mnist
from intaglio.errors import InputError
from intaglio.execute import Executor
from intaglio.hw.iss import Simulator, random_mixture
from intaglio.hw.iss.random_data import Dice
from intaglio.hw.iss.random_program import random_program
from intaglio.hw.iss.random_writer import Writer
from intaglio.ops import reference
from intaglio.program import Program
from intaglio.verify import verify
from tests import moe_programs
from tests.cpu.networks import SMALL, VitWriter
from tests.examples import compile_example
from tests.fpga.hls.test_csim import same_results
from tests.fpga.mixtures import ROUTINGS, Mixture, MixtureWriter
from tests.fpga.test_spill import WIDE, bounds, smaller

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

TINY = PRESETS["tiny"]
ROOMY = TINY.model_copy(update={"a_words": 8192, "x_words": 8192})
IMAGES = 100


def same_as_reference(program: Program, config: AcceleratorConfig) -> ProgramFile:
    """Every result, for every task, of random inputs; the compiled file."""
    built = build(program, config)
    simulation = Csim(config, built.program, built.weights)
    tensor = program.tensors[program.input]
    limits = np.iinfo(tensor.dtype)
    x = np.random.default_rng(1).integers(limits.min, limits.max, tensor.shape, tensor.dtype, endpoint=True)
    for task in range(program.tasks):
        (data,) = simulation.run([x.tobytes()], task)
        expected = reference.run(program, x, task=task)
        assert np.array_equal(fpga.result(program.tensors[program.output], data), expected), f"task {task}"
    return built.program


@pytest.mark.parametrize("name", ["tiny", "medium", "large"])
def test_random_mixtures(name: str) -> None:
    config = PRESETS[name]
    programs = [random_program(config, seed, ["mixture"], size=3) for seed in range(500, 530)]
    for program, weights, image in programs:
        same_results(config, program, weights, image)
    assert any(program.tasks > 1 for program, _, _ in programs)


@pytest.mark.parametrize("name", ["tiny", "medium", "large"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_routings(routing: str, name: str) -> None:
    same_as_reference(MixtureWriter(Mixture(routing=routing)).build(whole=True), PRESETS[name])


@pytest.mark.parametrize(
    "mixture",
    [
        Mixture(experts=4, k=4, hidden=40),
        Mixture(experts=1, k=1, normalize=False),
        Mixture(experts=7, k=3, function="own", logits="int8", normalize=False),
        Mixture(tasks=3),
    ],
    ids=lambda mixture: f"{mixture.experts}-{mixture.k}-{mixture.tasks}",
)
def test_kinds(mixture: Mixture) -> None:
    """k = experts, one expert, a table per expert, tasks; an int16 stream and several mixtures."""
    vit = replace(SMALL, residual="int16", layers=4)
    same_as_reference(MixtureWriter(mixture, vit).build(whole=True), TINY)


@pytest.mark.parametrize("tokens", [1, 13, 256])
@pytest.mark.parametrize("routing", moe_programs.ROUTINGS)
def test_forced_routings(routing: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties, the ends of the range, all tokens for one expert, a single token, as many as the router takes."""

    def forced(dice: Dice, rows: int, experts: int, wide: int) -> NDArray[np.int8 | np.int16]:
        assert rows == tokens
        return moe_programs.logits_of(dice.rng, rows, experts, "int16" if wide else "int8", routing)

    monkeypatch.setattr(random_mixture, "logits", forced)
    monkeypatch.setattr(Writer, "rows", lambda _: tokens)
    for seed in range(4):
        program, weights, image = random_program(ROOMY, seed, ["mixture"], size=2)
        assert any(d.kind == "COMBINE" for d in program.descriptors)
        same_results(ROOMY, program, weights, image)


def test_no_such_task() -> None:
    program = ProgramFile(TINY.hash, 0, 0, 64, [Descriptor("LOAD_WEIGHTS", {"entries": 1, "tasks": 2})])
    with pytest.raises(InputError, match=r"^task must be in 0\.\.1, not 2$"):
        Csim(TINY, program, bytes(64)).run([b""], 2)


def stores(config: AcceleratorConfig, bank: int, addr: int, words: int) -> list[Descriptor]:
    """Row by row of consecutive words to the result."""
    fields = {"bank": bank, "addr": addr, "words": words}
    return [
        Descriptor("STORE", fields | {"row": row, "offset": row * words * config.depth})
        for row in range(config.rows)
    ]


@pytest.mark.parametrize("bank", [0, 1])
@pytest.mark.parametrize("name", ["tiny", "large"])
def test_spilled_words(name: str, bank: int) -> None:
    """Words go to the spill area and come back elsewhere; the result holds every row of them, and nothing else."""
    config, words = PRESETS[name], 5
    weights = np.random.default_rng(bank).integers(0, 256, words * config.word_bytes, np.uint8)
    result = words * config.word_bytes
    kept = -(-result // 64) * 64
    program = ProgramFile(
        config.hash, 64, kept + result, len(weights),
        [
            Descriptor("LOAD_ROWS", {"words": words, "bank": bank}),
            Descriptor("STORE", {"offset": kept, "words": words, "bank": bank, "all_rows": 1}),
            Descriptor("LOAD_ROWS", {"offset": kept, "addr": 9, "words": words, "bank": 1, "spilled": 1}),
            *stores(config, 1, 9, words),
        ],
        spill_bytes=result,
    )  # fmt: skip
    (data,) = Csim(config, program, weights.tobytes()).run([bytes(64)])
    expected = weights.reshape(words, config.rows, config.depth).swapaxes(0, 1).tobytes()
    assert len(data) == kept
    assert data[:result] == expected
    assert data == Simulator(config, program, weights.tobytes()).run(bytes(64))


@pytest.mark.parametrize(
    "mixture", [None, Mixture(function="own", experts=4, k=3, tasks=2)], ids=["vit", "mixture"]
)
@pytest.mark.parametrize("name", ["tiny", "large"])
def test_models_that_spill(name: str, mixture: Mixture | None) -> None:
    config, vit = PRESETS[name], replace(WIDE, residual="int16")
    program = MixtureWriter(mixture, vit).build(whole=True) if mixture else VitWriter(vit).build()
    whole, least = bounds(program, config)
    words = {bank: max(16, (whole[bank] + 3 * least[bank]) // 4) for bank in "AX"}
    file = same_as_reference(program, smaller(config, words["A"], words["X"]))
    assert file.spill_bytes > 0


@pytest.fixture(scope="module", params=[("moe_qdq", 1), ("moe_tasks_qdq", 2)], ids=["moe", "moe_tasks"])
def shipped(
    request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> artifact.Artifact:
    """An example model for the small configuration, as the README compiles it."""
    name, tasks = request.param
    compiled = compile_example(root, name, tmp_path_factory.mktemp("model") / "build")
    assert compiled.program.tasks == tasks
    return compiled


def test_every_bit_of_the_shipped_models(shipped: artifact.Artifact) -> None:
    images = fashion_mnist(None).first(IMAGES).images
    inputs = feed.quantize(shipped.program, images.reshape(-1, 1, 28, 28))
    for task in range(shipped.program.tasks):
        with Executor(shipped, "reference") as executor:
            expected = executor.run(inputs, task)
        assert len(expected) == IMAGES
        for device in ("csim", "iss"):
            with Executor(shipped, device) as executor:
                assert np.array_equal(executor.run(inputs, task), expected), device


def test_verify_runs_csim(shipped: artifact.Artifact) -> None:
    report = verify(shipped, count=2)
    assert report.bit_exact
    assert report.tasks == list(range(shipped.program.tasks))
    assert {"iss", "csim"} <= {execution.name for execution in report.executions}
