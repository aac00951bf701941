"""The accelerator's configuration: one schema, from which RTL, HLS, simulator, driver and models take their sizes."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

CHAIN = 8
"""int8 products that one 18-bit field of a packed DSP cascade holds."""

Depth = Literal[8, 16]


class AcceleratorConfig(BaseModel):
    """Shape and sizes of one accelerator (docs/accelerator.md).

    `rows` x `cols` x `depth` int8 MACs per cycle: `rows` tokens by `cols` channels, `depth` products each. Memories:
    `weight_entries` of cols * depth bytes; `a_words`, `x_words` of rows * depth bytes (int8 operands; residual
    stream); `param_groups` of depth / 2 channels; `norm_channels`; `table_slots` of 256 entries; `max_keys` tokens
    that attention may look at and the router may route; `experts` that it may choose from (0: no router). AXI data
    ports are 8 * depth bits wide: `weight_ports` for weights, one for all else and one for the program. `burst`:
    beats per AXI burst; `outstanding`: bursts in flight per port.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rows: Literal[1, 2, 4, 8] = 8
    cols: Annotated[int, Field(ge=8, le=128)] = 32
    depth: Depth = 16
    weight_entries: Annotated[int, Field(ge=16, le=65536)] = 1024
    a_words: Annotated[int, Field(ge=16, le=65536)] = 8192
    x_words: Annotated[int, Field(ge=16, le=65536)] = 4096
    param_groups: Annotated[int, Field(ge=8, le=65536)] = 512
    norm_channels: Annotated[int, Field(ge=8, le=65536)] = 2048
    table_slots: Literal[2, 4, 8] = 4
    max_keys: Annotated[int, Field(ge=16, le=1024)] = 256
    experts: Annotated[int, Field(ge=0, le=64)] = 32
    weight_ports: Literal[1, 2, 4, 8] = 4
    burst: Literal[4, 8, 16, 32, 64] = 16
    outstanding: Literal[1, 2, 4, 8, 16] = 8
    clock_mhz: Annotated[int, Field(ge=1, le=1000)] = 300
    multiplier: Literal["dsp48e2", "generic"] = "dsp48e2"

    @model_validator(mode="after")
    def _fits(self) -> AcceleratorConfig:
        if self.cols % self.depth:
            raise ValueError(f"cols must be a multiple of depth ({self.depth}), not {self.cols}")
        if self.cols % self.weight_ports:
            raise ValueError(
                f"cols must be a multiple of weight_ports ({self.weight_ports}), not {self.cols}"
            )
        if self.max_keys % self.depth or self.max_keys % self.cols:
            raise ValueError(
                f"max_keys must be a multiple of depth and of cols ({self.depth}, {self.cols}), not {self.max_keys}"
            )
        if self.burst * self.depth > 4096:
            raise ValueError("a burst must not exceed 4096 bytes")
        return self

    @property
    def macs(self) -> int:
        """int8 multiply-accumulates per cycle."""
        return self.rows * self.cols * self.depth

    @property
    def group(self) -> int:
        """Channels that leave the array per cycle and row: depth / 2."""
        return self.depth // 2

    @property
    def lanes(self) -> int:
        """Results requantized per cycle."""
        return self.rows * self.group

    @property
    def word_bytes(self) -> int:
        """Bytes of one scratchpad word."""
        return self.rows * self.depth

    @property
    def entry_bytes(self) -> int:
        """Bytes of one weight buffer entry."""
        return self.cols * self.depth

    @property
    def tile_groups(self) -> int:
        """Groups per column tile."""
        return self.cols // self.group

    @property
    def axi_bits(self) -> int:
        """Width of every AXI data port."""
        return 8 * self.depth

    @property
    def hash(self) -> int:
        """32 bits that tell configurations apart, for the register CONFIG and the program file."""
        text = json.dumps(self.model_dump(exclude={"clock_mhz", "multiplier"}), sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


PRESETS: dict[str, AcceleratorConfig] = {
    "tiny": AcceleratorConfig(
        rows=4, cols=8, depth=8, weight_entries=512, a_words=1024, x_words=512, param_groups=128, norm_channels=256,
        max_keys=256, experts=8, weight_ports=1, clock_mhz=100, multiplier="generic",
    ),
    "ecp5": AcceleratorConfig(
        rows=1, cols=8, depth=8, weight_entries=512, a_words=2048, x_words=1024, param_groups=128, norm_channels=256,
        max_keys=64, experts=0, weight_ports=1, clock_mhz=40, multiplier="generic",
    ),
    "medium": AcceleratorConfig(
        rows=8, cols=16, depth=8, weight_entries=1024, a_words=4096, x_words=2048, weight_ports=2, multiplier="generic",
        param_groups=1024, experts=16,
    ),
    "large": AcceleratorConfig(),
}  # fmt: skip
"""Configurations that need no board: for CI, for the open flow, and for benchmarks."""
