"""The weight buffer, against an array of bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["tiny", "ecp5", "large"])
def test_weight_buffer(preset: str, tmp_path: Path) -> None:
    simulate(PRESETS[preset], "weight_buffer", "cocotb_weight_buffer", tmp_path, env={"PRESET": preset})
