"""The weight loader, against the layout of weights in external memory and in the weight buffer."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["tiny", "medium", "large"])
def test_weight_loader(preset: str, tmp_path: Path) -> None:
    simulate(PRESETS[preset], "weight_loader", "cocotb_weight_loader", tmp_path, env={"PRESET": preset})
