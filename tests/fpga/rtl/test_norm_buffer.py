"""The LayerNorm buffer, against an array."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["tiny", "large"])
def test_norm_buffer(preset: str, tmp_path: Path) -> None:
    simulate(PRESETS[preset], "norm_buffer", "cocotb_norm_buffer", tmp_path, env={"PRESET": preset})
