"""The sequencer: descriptors to units, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["tiny", "large"])
def test_sequencer(preset: str, tmp_path: Path) -> None:
    simulate(PRESETS[preset], "sequencer", "cocotb_sequencer", tmp_path, env={"PRESET": preset})
