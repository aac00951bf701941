"""The schema of a design file, and where files are found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from intaglio import toml_file

FOLDER = Path(__file__).parents[1] / "designs"

Count = Annotated[int, Field(ge=1)]
Loads = Literal["serial", "overlapped"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Formats(_Part):
    """Bits of a value in external memory."""

    activation: Count
    weight: Count


class Memory(_Part):
    """External memory: bits that one port moves in a cycle and direction; cycles until a burst's first beat.

    Every stream of a step (operand, result, weights, keys) has a port of its own.
    """

    port_bits: Count
    latency: Annotated[int, Field(ge=0)] = 0


class Linear(_Part):
    """Blocked matrix products: one block of `block_out` x `block_in` products of one token a cycle.

    `dense_loads`, `expert_loads`: whether weights are loaded before a product, or while the one before computes.
    """

    block_in: Count
    block_out: Count
    dense_loads: Loads
    expert_loads: Loads


class Attention(_Part):
    """`queries` x `products` products a cycle, in `passes` passes over all keys for every block of queries.

    `keys`: keys and values are streamed from external memory for every block, or kept on the chip.
    """

    queries: Count
    products: Count
    passes: Count
    keys: Literal["streamed", "kept"]


class LayerNorm(_Part):
    """`lanes` values a cycle, each token read and written once; `burst`: whose memory latency is not hidden."""

    lanes: Count
    burst: Literal["token", "tensor"]


class Add(_Part):
    """A residual: `lanes` values a cycle."""

    lanes: Count


class PatchEmbed(_Part):
    """`macs` products a cycle; `weights`: on the chip before the frame, or loaded for every frame."""

    macs: Count
    weights: Literal["resident", "loaded"]


class Gate(_Part):
    """The router: `macs` products a cycle, and at least `cycles` a token (softmax, choice)."""

    macs: Count
    cycles: Annotated[int, Field(ge=0)] = 0


class Energy(_Part):
    """For the energy model: the device, LUTs used, and what a product costs relative to int8."""

    family: Literal["ultrascale+", "versal", "7-series", "ecp5"]
    device_luts: Count
    host: Literal["zynq", "card", "none"]
    memory: Literal["ddr", "hbm"] = "ddr"
    luts: Count
    product: Annotated[float, Field(gt=0)]


class Published(_Part):
    """What was published; printed beside an estimate, never used for one."""

    what: str
    ms: Annotated[float, Field(gt=0)]
    source: str


class Design(_Part):
    """One accelerator. Steps of a model run one after the other, each from external memory to external memory.

    Without `gate` it has no mixtures of experts.
    """

    name: str
    description: str = ""
    clock_mhz: Annotated[float, Field(gt=0)]
    formats: Formats
    memory: Memory
    linear: Linear
    attention: Attention
    layernorm: LayerNorm
    add: Add
    patch_embed: PatchEmbed
    gate: Gate | None = None
    energy: Energy
    published: list[Published] = []


def find(spec: str) -> Design:
    """The design called `spec`, or that of a .toml file. Raises InputError with one sentence."""
    return toml_file.find(Design, spec, FOLDER, "--design", "design")
