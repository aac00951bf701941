"""The AXI read engine: protocol, order, and what it does when stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fpga.rtl.axi_engine import CONFIGS
from tests.fpga.rtl.bench import HERE, simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", CONFIGS)
def test_axi_read_engine(preset: str, tmp_path: Path) -> None:
    simulate(
        CONFIGS[preset], "axi_read_bench", "cocotb_axi_read_engine", tmp_path, extra=[HERE / "axi_read_bench.sv"],
        env={"PRESET": preset},
    )  # fmt: skip
