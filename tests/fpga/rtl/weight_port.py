"""The weight buffer as Python sees it: what a unit writes to it through the port of CP."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from cocotb.triggers import RisingEdge

from intaglio.accelerator.config import AcceleratorConfig


class WeightBuffer:
    """Entries of C columns x D bytes, noise at first."""

    def __init__(self, dut: Any, config: AcceleratorConfig, entries: int, rng: random.Random) -> None:
        self.dut, self.granule = dut, config.rows
        self.shape = (config.cols, config.depth)
        noise = np.frombuffer(rng.randbytes(entries * config.entry_bytes), np.int8)
        self.data = noise.reshape(entries, *self.shape).copy()

    async def writes(self) -> None:
        """Serve the port."""
        cols, depth = self.shape
        while True:
            await RisingEdge(self.dut.clk_i)
            if not int(self.dut.cp_we_o.value):
                continue
            raw = int(self.dut.cp_data_o.value).to_bytes(cols * depth, "little")
            enable = int(self.dut.cp_be_o.value)
            granules = cols * depth // self.granule
            mask = np.array([enable >> i & 1 for i in range(granules)], bool).reshape(cols, -1)
            mask = np.repeat(mask, self.granule, axis=1)
            entry = int(self.dut.cp_entry_o.value)
            self.data[entry][mask] = np.frombuffer(raw, np.int8).reshape(self.shape)[mask]
