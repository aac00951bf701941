"""The I/O unit, against a model of what its descriptors move."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["tiny", "ecp5", "large"])
def test_io_unit(preset: str, tmp_path: Path) -> None:
    simulate(PRESETS[preset], "io_unit", "cocotb_io_unit", tmp_path, env={"PRESET": preset})
