"""Unit CP, the router above all, against the functional simulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from tests.fpga.rtl.bench import simulate

CONFIGS = {
    "tiny": PRESETS["tiny"],
    # Experts and tokens are no powers of two.
    "odd": AcceleratorConfig(
        rows=8, cols=16, depth=16, weight_entries=256, a_words=1024, x_words=16, max_keys=80, experts=24,
        weight_ports=1, multiplier="generic",
    ),
    # The most experts and tokens, the fewest rows.
    "deep": AcceleratorConfig(
        rows=1, cols=8, depth=8, weight_entries=1024, a_words=32768, x_words=16, max_keys=1024, experts=64,
        weight_ports=1, multiplier="generic",
    ),
}  # fmt: skip


@pytest.mark.simulator
@pytest.mark.parametrize("name", CONFIGS)
def test_cp_unit(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    simulate(config, "cp_unit", "cocotb_cp_unit", tmp_path, env={"CONFIG": config.model_dump_json()})
