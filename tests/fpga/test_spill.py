"""Models whose activations do not fit the scratchpads: the same bits, with what does not fit in external memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.backends import fpga
from intaglio.backends.fpga.build import build
from intaglio.compiler import Options, to_program
from intaglio.errors import UnsupportedError
from intaglio.hw.iss import Simulator
from intaglio.ops.reference import run
from tests.cpu.networks import Vit, VitWriter
from tests.fpga.mixtures import Mixture, MixtureWriter

WIDE = Vit(image=32, patch=4, dim=64, layers=2, heads=4, mlp=256, classes=10)
"""65 tokens; the image takes less than any other tensor."""


def smaller(config, a_words, x_words):
    return config.model_copy(update={"a_words": a_words, "x_words": x_words})


def spilled(program, config, images=1, orders=2):
    """Check the simulator against the reference, in program order and in random ones; the compiled file."""
    built = build(program, config)
    file = ProgramFile.unpack(built.program.pack())
    simulator = Simulator(config, file, built.weights)
    shape = program.tensors[program.input].shape
    for seed in range(images):
        x = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        for task in range(program.tasks):
            expected = run(program, x, task=task)
            data = simulator.run(x.tobytes(), task=task)
            assert len(data) == file.result_bytes
            assert np.array_equal(fpga.result(program.tensors[program.output], data), expected)
            for order in range(orders):
                again = simulator.run(x.tobytes(), order="random", seed=order, task=task)
                assert again == data
    return file


def counts(file):
    """How many spills and fills a program has."""
    return (
        sum(d["all_rows"] for d in file.descriptors if d.kind == "STORE"),
        sum(d["spilled"] for d in file.descriptors if d.kind == "LOAD_ROWS"),
    )


@pytest.mark.parametrize("words", [(300, 208), (200, 100), (80, 48)])
def test_the_shipped_model(root, words):
    options = Options(input_kind="uint8", mean=(0.2860,), std=(0.3530,))
    program = to_program(root / "examples/fashion_mnist/vit_qdq.onnx", options)
    file = spilled(program, smaller(PRESETS["tiny"], *words), images=3, orders=1)
    assert file.spill_bytes > 0
    assert min(counts(file)) > 10
