"""The vector unit, against the integer reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["tiny", "ecp5", "large"])
def test_layernorm_unit(preset: str, tmp_path: Path) -> None:
    simulate(PRESETS[preset], "layernorm_unit", "cocotb_layernorm_unit", tmp_path, env={"PRESET": preset})
