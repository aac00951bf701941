"""What the hardware accepts as a descriptor."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from tests.fpga.rtl.bench import simulate

# As in cocotb_descriptor_check: column tiles that are no power of two.
ODD = AcceleratorConfig(
    rows=2, cols=24, depth=8, weight_entries=500, a_words=1000, x_words=300, param_groups=100, norm_channels=5000,
    table_slots=2, max_keys=72, weight_ports=1, multiplier="generic",
)  # fmt: skip


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["tiny", "ecp5", "large", "odd"])
def test_descriptor_check(preset: str, tmp_path: Path) -> None:
    config = {**PRESETS, "odd": ODD}[preset]
    simulate(config, "descriptor_check", "cocotb_descriptor_check", tmp_path, env={"PRESET": preset})
