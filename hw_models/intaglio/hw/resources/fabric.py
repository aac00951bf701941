"""LUT and FF: per module a sum of terms in the configuration's sizes, whose coefficients are fitted to Yosys' counts.

LUTs that hold the bits of memories are not in it: they follow from the memories' shapes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.hw.resources.memories import Mapped, Memory

Held = Sequence[tuple[Memory, Mapped]]
"""The memories of a configuration, and what each became."""


def terms(c: AcceleratorConfig, held: Held) -> dict[str, float]:
    """Sizes of the configuration that amounts are proportional to."""
    lanes, engines = c.rows * c.depth // 2, c.weight_ports + 2
    routed = int(c.experts > 0)
    queued = any(m.words == c.burst * c.outstanding and m.number == engines and not b.bram36 for m, b in held)
    return {
        "1": 1,
        "ports": c.weight_ports,
        "beat": c.depth,
        "port_beat": c.weight_ports * c.depth,
        "engine": engines,
        "engine_beat": engines * c.depth,
        "engine_queue": engines * c.depth * queued,
        "row": c.rows,
        "row_keys": c.rows * (c.max_keys - 1).bit_length(),
        "lane": lanes,
        "group": c.depth // 2,
        "column": c.cols,
        "entry": c.cols * c.depth,
        "enable": c.cols * c.depth / c.rows,
        "square": c.depth**2,
        "sum": c.rows * c.cols,
        "sum_of_two": c.rows * c.cols * (c.depth == 16),
        "product": c.rows * c.cols * c.depth,
        "routed": routed,
        "routed_row": routed * c.rows,
        "routed_lane": routed * lanes,
        "routed_sum": routed * c.rows * c.cols,
        "routed_keys": routed * (c.max_keys - 1).bit_length(),
        "expert": c.experts,
        "block_banks": sum(m.number * m.bits * _stages(b.banks) for m, b in held if b.bram36),
        "spread_banks": sum(m.number * m.bits * _stages(b.banks) for m, b in held if b.lut),
    }


def _stages(banks: int) -> float:
    """LUT6 per bit that choose one of `banks`."""
    return 0 if banks == 1 else max(1, banks / 4)


MODULES: dict[str, tuple[str, ...]] = {
    "accel_regs": ("1", "routed"),
    "accelerator": ("1", "ports", "routed"),
    "axi_read_engine": ("engine", "engine_beat"),
    "axi_write_engine": ("1", "beat"),
    "combine_operands": ("routed_row", "routed_sum"),
    "compute_core": ("1", "lane"),
    "kv_copy": ("1", "square", "enable", "lane"),
    "cp_unit": ("1", "routed", "routed_row", "routed_lane", "expert"),
    "descriptor_check": ("1", "routed"),
    "fifo_lut": ("1", "ports"),
    "fifo_ram": ("1", "routed", "beat", "engine", "engine_beat", "engine_queue"),
    "io_unit": ("1", "beat", "lane", "expert"),
    "layernorm_fetch": ("1", "lane"),
    "layernorm_lane": ("row",),
    "layernorm_rsqrt": ("row",),
    "layernorm_unit": ("1", "row", "lane"),
    "mac_array": ("1", "row", "lane", "column", "entry", "sum", "sum_of_two", "product"),
    "mac_chain": ("product",),
    "mac_planner": ("1", "row", "routed", "expert"),
    "mac_unit": ("1", "row", "lane", "entry", "routed", "routed_sum"),
    "move_rows": ("routed", "routed_row", "routed_lane", "expert"),
    "norm_buffer": ("1", "beat"),
    "param_buffer": ("1", "beat"),
    "post_lane": ("lane",),
    "post_process": ("1", "row", "group", "lane"),
    "round_clamp": ("lane",),
    "route_queues": ("routed", "routed_keys", "expert"),
    "route_select": ("routed", "expert"),
    "route_unit": ("routed", "routed_lane", "routed_keys", "expert"),
    "route_weights": ("routed", "routed_row", "routed_keys"),
    "scratchpad": ("1", "lane", "block_banks"),
    "sequencer": ("1", "beat", "routed"),
    "softmax_unit": ("1", "row", "lane", "row_keys", "spread_banks"),
    "table_ram": ("lane",),
    "weight_buffer": ("ports", "column", "entry", "enable"),
    "weight_loader": ("1", "ports", "port_beat", "expert"),
}
"""Terms of every module; a module is called what its source calls it, and counts with all its instances."""

Coefficients = dict[str, dict[str, float]]
"""For "lut" and "ff": a coefficient per term."""


@cache
def coefficients(family: str, multiplier: str) -> Coefficients:
    """Those of all modules together; the array has two versions ("mac_array generic", "mac_array dsp48e2")."""
    path = Path(__file__).with_name("coefficients.json")
    modules = json.loads(path.read_text(encoding="utf-8"))["coefficients"][family]
    total: Coefficients = {"lut": {}, "ff": {}}
    for name, module in modules.items():
        if " " not in name or name.endswith(f" {multiplier}"):
            for kind, known in module.items():
                for term, value in known.items():
                    total[kind][term] = total[kind].get(term, 0) + value
    return total


def fabric(c: AcceleratorConfig, family: str, held: Held) -> tuple[int, int]:
    """LUT without those that hold memories, and FF, of the accelerator."""
    known, sizes = coefficients(family, c.multiplier), terms(c, held)
    lut, ff = (sum(value * sizes[name] for name, value in known[kind].items()) for kind in ("lut", "ff"))
    return round(lut), round(ff)
