"""Every configuration that ships, through Verilator's linter with all warnings: accelerator and test bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio import target
from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.simulation import verilator
from tests.fpga.rtl.bench import write

CONFIGS = {
    **PRESETS,
    **{board.name: board.accelerator for board in target.available() if isinstance(board, target.FpgaTarget)},
}


@pytest.mark.simulator
@pytest.mark.parametrize("name", CONFIGS)
def test_lint(name: str, tmp_path: Path) -> None:
    assert _lint(CONFIGS[name], tmp_path) == ""


def _lint(config: AcceleratorConfig, folder: Path) -> str:
    sources = [path for path in write(config, folder) if path.parent.name == "rtl"]
    return verilator.lint(sources, "accelerator_axi")
