"""The shipped Fashion-MNIST ViT on every execution of the accelerator: simulator, C++ and RTL, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intaglio import artifact, feed
from intaglio.data import fashion_mnist, load_samples
from intaglio.execute import Executor
from intaglio.simulate import macs, simulate_artifact
from intaglio.simulation.frame import MemoryModel
from tests.examples import compile_example
from tests.fpga.accounting import causes_sum_up

IMAGES = 1000
RTL_IMAGES = 3


@pytest.fixture(scope="module")
def compiled(root: Path, tmp_path_factory: pytest.TempPathFactory) -> artifact.Artifact:
    """The example model, compiled for the small configuration as the README does it."""
    return compile_example(root, "vit_qdq", tmp_path_factory.mktemp("model") / "build")


@pytest.fixture(scope="module")
def expected(compiled: artifact.Artifact) -> tuple[np.ndarray, np.ndarray]:
    """1,000 real images as the program takes them, and the reference's logits."""
    images = fashion_mnist(None).first(IMAGES).images
    inputs = feed.quantize(compiled.program, images.reshape(-1, 1, 28, 28))
    with Executor(compiled, "reference") as executor:
        return inputs, executor.run(inputs)


@pytest.mark.parametrize("device", ["iss", "csim"])
def test_every_bit_on_a_thousand_images(
    compiled: artifact.Artifact, expected: tuple[np.ndarray, np.ndarray], device: str
) -> None:
    inputs, logits = expected
    assert len(inputs) == IMAGES
    with Executor(compiled, device) as executor:
        assert np.array_equal(executor.run(inputs), logits)


@pytest.mark.simulator
@pytest.mark.slow
def test_every_bit_on_the_rtl(compiled: artifact.Artifact, root: Path) -> None:
    given = load_samples(root / "examples/fashion_mnist/images", [1, 28, 28], RTL_IMAGES)
    inputs = feed.integers(compiled.program, given, None)
    report = simulate_artifact(compiled, inputs)
    assert report.errors == []
    assert report.bit_exact
    assert len(report.frames.runs) == RTL_IMAGES
    _accounted_for(report, compiled)
    # Another memory changes the time and nothing else.
    slow = simulate_artifact(compiled, inputs[:1], memory=MemoryModel(latency=300, bytes_per_cycle=4.0))
    assert slow.bit_exact
    assert slow.frames.cycles > report.frames.cycles


def _accounted_for(report, compiled) -> None:
    """Cycles have causes, every descriptor has a time, every product a step."""
    causes_sum_up(report)
    counters = report.frames.runs[0].counters
    count = len(report.as_json()["descriptors"])
    assert count == RTL_IMAGES * len([s for s in report.frames.spans if s.image == 0])
    assert (
        counters["mac_steps"] * report.config.macs >= report.macs == macs(_program(compiled), report.config)
    )


def _program(compiled):
    from intaglio.backends import fpga

    return fpga.load(compiled).program
