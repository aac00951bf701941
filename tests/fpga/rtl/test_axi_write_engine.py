"""The AXI write engine: protocol, order, responses, and what it does when stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fpga.rtl.axi_engine import CONFIGS
from tests.fpga.rtl.bench import HERE, simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", CONFIGS)
def test_axi_write_engine(preset: str, tmp_path: Path) -> None:
    simulate(
        CONFIGS[preset], "axi_write_bench", "cocotb_axi_write_engine", tmp_path, extra=[HERE / "axi_write_bench.sv"],
        env={"PRESET": preset},
    )  # fmt: skip
