"""LUT and FF: per module a sum of terms in the configuration's sizes, whose coefficients are fitted to Yosys' counts."""

from __future__ import annotations

import json
from functools import cache
from math import log2
from pathlib import Path

from intaglio.accelerator.config import AcceleratorConfig


def terms(c: AcceleratorConfig) -> dict[str, float]:
    """Sizes of the configuration that amounts are proportional to."""
    words = c.max_keys // c.depth
    return {
        "1": 1,
        "ports": c.weight_ports,
        "beat": c.depth,
        "port_beat": c.weight_ports * c.depth,
        "row": c.rows,
        "word": c.rows * c.depth,
        "group": c.group,
        "lane": c.lanes,
        "lane_keys": c.lanes * words,
        "row_keys": c.rows * log2(c.max_keys),
        "column": c.cols,
        "entry": c.cols * c.depth,
        "square": c.depth**2,
        "entry_row": c.cols * c.depth / c.rows,
        "port_engines": c.weight_ports + 2,
        "sum": c.rows * c.cols,
        "product": c.rows * c.cols * c.depth,
    }


MODULES: dict[str, tuple[str, ...]] = {
    "accel_regs": ("1",),
    "accelerator": ("1", "ports"),
    "axi_read_engine": ("port_engines",),
    "axi_write_engine": ("1",),
    "compute_core": ("1",),
    "descriptor_check": ("1",),
    "fifo_lut": ("1", "ports"),
    "fifo_ram": ("1", "ports"),
    "io_unit": ("1", "beat", "word"),
    "kv_copy": ("1", "square", "entry_row", "word"),
    "layernorm_fetch": ("1", "word"),
    "layernorm_lane": ("row",),
    "layernorm_rsqrt": ("row",),
    "layernorm_unit": ("1", "row", "word"),
    "mac_array": ("1", "row", "word", "column", "entry", "sum", "product"),
    "mac_chain": ("product",),
    "mac_unit": ("1", "row", "word"),
    "norm_buffer": ("1",),
    "param_buffer": ("1",),
    "post_lane": ("lane",),
    "post_process": ("1", "row", "group", "lane", "word"),
    "round_clamp": ("lane",),
    "scratchpad": ("1", "word"),
    "sequencer": ("1", "beat"),
    "softmax_unit": ("1", "row", "lane", "lane_keys", "row_keys"),
    "table_ram": ("lane",),
    "weight_buffer": ("ports", "column", "entry"),
    "weight_loader": ("1", "ports", "port_beat"),
}
"""Terms of every module; a module is called what its source calls it, and counts with all its instances."""


@cache
def coefficients() -> dict[str, dict[str, dict[str, float]]]:
    """By family and multiplier: for LUT and FF, a coefficient per term, of all modules together."""
    path = Path(__file__).with_name("coefficients.json")
    by_module = json.loads(path.read_text(encoding="utf-8"))["coefficients"]
    return {
        key: {kind: _summed(modules, kind) for kind in ("lut", "ff")} for key, modules in by_module.items()
    }


def _summed(modules: dict[str, dict[str, dict[str, float]]], kind: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for module in modules.values():
        for term, value in module[kind].items():
            total[term] = total.get(term, 0) + value
    return total


def fabric(c: AcceleratorConfig, family: str) -> tuple[int, int]:
    """LUT and FF of the accelerator."""
    known = coefficients()[f"{family} {c.multiplier}"]
    sizes = terms(c)
    lut, ff = (sum(value * sizes[name] for name, value in known[kind].items()) for kind in ("lut", "ff"))
    return round(lut), round(ff)
