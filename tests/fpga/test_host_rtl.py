"""The generated Python driver runs the shipped model on the accelerator's RTL: registers, memory, results, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intaglio import artifact, feed
from intaglio.backends import fpga
from intaglio.backends.fpga import host
from intaglio.data import load_samples
from intaglio.execute import Executor
from intaglio.simulation.frame import MemoryModel, build_bench, run_module
from tests.examples import compile_example
from tests.fpga.rtl.bench import check

HERE = Path(__file__).parent
IMAGES = 2


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "module"), [("vit_qdq", "cocotb_host"), ("moe_tasks_qdq", "cocotb_host_tasks")]
)
def test_driver_on_the_rtl(root: Path, tmp_path: Path, model: str, module: str) -> None:
    compiled = compile_example(root, model, tmp_path / "build")
    config = fpga.load(compiled).config
    _inputs(compiled, root, tmp_path)
    (tmp_path / "intaglio_pynq.py").write_text(host.emit(config)["host/intaglio_pynq.py"])
    results = run_module(
        build_bench(config),
        config,
        module,
        tmp_path,
        MemoryModel(latency=20, bytes_per_cycle=16.0),
        env={"INTAGLIO_HOST": str(tmp_path)},
        python_path=[HERE],
    )
    check(results, tmp_path / "log.txt")


def _inputs(compiled: artifact.Artifact, root: Path, folder: Path) -> None:
    """Images as the driver takes them, and the reference's results, of every task in a file of its own."""
    given = load_samples(root / "examples/fashion_mnist/images", [1, 28, 28], IMAGES)
    inputs = feed.integers(compiled.program, given, None)
    with Executor(compiled, "reference") as executor:
        logits = [executor.run(inputs, task) for task in range(compiled.program.tasks)]
    np.save(folder / "images.npy", inputs)
    for task, values in enumerate(logits):
        np.save(folder / f"logits{task or ''}.npy", values)
