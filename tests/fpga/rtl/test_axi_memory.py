"""The memory model of simulations, and what the engines make of its latency and bandwidth."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from tests.fpga.rtl.bench import HERE, simulate

WORDS = 8192


@pytest.mark.simulator
@pytest.mark.parametrize("preset", ["tiny", "large"])
def test_axi_memory(preset: str, tmp_path: Path) -> None:
    config, rng = PRESETS[preset], random.Random(3)
    memory, dump = tmp_path / "memory.hex", tmp_path / "dump.hex"
    memory.write_text("".join(rng.randbytes(config.depth).hex() + "\n" for _ in range(WORDS)))
    simulate(
        config, "axi_memory_bench", "cocotb_axi_memory", tmp_path, extra=[HERE / "axi_memory_bench.sv"],
        env={"PRESET": preset, "MEMORY": str(memory), "DUMP": str(dump)},
        parameters={"BYTES_PER_CYCLE_X256": 384 * config.depth},
        plusargs=[f"+memory={memory}", f"+dump={dump}"],
    )  # fmt: skip
