"""The copy of keys and values, against their layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import simulate


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["ecp5", "medium", "large"])
def test_kv_copy(preset: str, tmp_path: Path) -> None:
    simulate(PRESETS[preset], "cp_unit", "cocotb_kv_copy", tmp_path, env={"PRESET": preset})
