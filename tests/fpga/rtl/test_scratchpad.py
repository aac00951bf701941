"""A scratchpad bank, against an array."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["ecp5", "large"])
def test_scratchpad(preset: str, tmp_path: Path) -> None:
    sizes = {"WORDS": 40, "READERS": 4, "WRITERS": 3}
    simulate(
        PRESETS[preset], "scratchpad", "cocotb_scratchpad", tmp_path, env={"PRESET": preset}, parameters=sizes
    )
