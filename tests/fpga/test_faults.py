"""Faults of memory, program and host on the whole accelerator's RTL: an error code or a clean restart, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.simulation.frame import MemoryModel, build_bench, run_module
from tests.fpga.rtl.bench import check

HERE = Path(__file__).parent


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "ecp5"])
def test_faults(preset: str, tmp_path: Path) -> None:
    config = PRESETS[preset]
    results = run_module(
        build_bench(config),
        config,
        "cocotb_faults",
        tmp_path,
        MemoryModel(latency=20, bytes_per_cycle=16.0),
        env={"INTAGLIO_PRESET": preset},
        python_path=[HERE],
    )
    check(results, tmp_path / "log.txt")
