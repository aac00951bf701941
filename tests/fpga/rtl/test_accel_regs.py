"""The registers, against their map."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import HERE, simulate


@pytest.mark.simulator
def test_accel_regs(tmp_path: Path) -> None:
    simulate(
        PRESETS["tiny"], "accel_regs_bench", "cocotb_accel_regs", tmp_path, extra=[HERE / "accel_regs_bench.sv"],
        env={"PRESET": "tiny"},
    )  # fmt: skip
