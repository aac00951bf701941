"""The compute core against the specification: bits of every result, and how busy the array is."""

from __future__ import annotations

from pathlib import Path

import bench
import pytest

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.simulation import verilator

pytestmark = pytest.mark.simulator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compute_core")


def _simulate(config: AcceleratorConfig, module: str, folder: Path, **env: str) -> None:
    bench.simulate(
        config, "compute_core_bench", module, folder, extra=[bench.HERE / "compute_core_bench.sv"],
        env={"CONFIG": config.model_dump_json(), **env},
    )


def test_random_programs(folder: Path) -> None:
    _simulate(PRESETS["tiny"], "cocotb_compute_core", folder)
