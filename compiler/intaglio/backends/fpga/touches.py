"""What a descriptor reads and writes, from its fields alone (docs/accelerator.md): the checker's own view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.accelerator.progress import growth
from intaglio.backends.fpga.graph import Ints
from intaglio.backends.fpga.nodes import OUTPUT_BLOCK

BANKS = ("A", "X")
TABLES = ("activation", "exponential", "pixel", "router")


@dataclass(frozen=True)
class Touch:
    """Cells of one memory: row i for substep i, or one row for the whole descriptor."""

    space: str
    write: bool
    cells: Ints


def touches(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    """Everything that `d` reads and writes in memories the program manages.

    What depends on the routing counts as if every token had chosen the expert: less than that is ordered too.
    """
    chosen = [_range("routing", False, 0, 1)] if d["queue"] else []
    return [*chosen, *_KINDS[d.kind](d, config)]


def _range(space: str, write: bool, first: int, count: int) -> Touch:
    return Touch(space, write, np.arange(first, first + count)[None])


def _tiles(space: str, write: bool, first: int, stride: int, tiles: int, width: int) -> Touch:
    return Touch(space, write, first + stride * np.arange(tiles)[:, None] + np.arange(width))


def _words(groups: int, wide: int) -> int:
    """Words that so many groups of channels touch: one group fills an int16 word, two an int8 word."""
    return groups if wide else -(-groups // 2)


def _load_weights(d: Descriptor, _: AcceleratorConfig) -> list[Touch]:
    return [_range("weights", True, d["entry"], d["entries"])]


def _load_params(d: Descriptor, _: AcceleratorConfig) -> list[Touch]:
    return [_range("params", True, d["group"], d["groups"])]


def _load_norm(d: Descriptor, _: AcceleratorConfig) -> list[Touch]:
    return [_range("norm", True, d["channel"], d["channels"])]


def _load_table(d: Descriptor, _: AcceleratorConfig) -> list[Touch]:
    return [_range(TABLES[d["table"]], True, d["slot"], 1)]


def _load_rows(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    spilled = [_spilled(d, config, False)] if d["spilled"] else []
    return [*spilled, _range(BANKS[d["bank"]], True, d["addr"], d["words"])]


def _load_image(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    depth = d["channels"] * d["patch_h"] * d["patch_w"]
    out = _tiles("A", True, d["addr"], d["stride"], growth(d, config), -(-depth // config.depth))
    return [_range("pixel", False, 0, d["channels"]), out]


def _store(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    spilled = [_spilled(d, config, True)] if d["all_rows"] else []
    return [_range(BANKS[d["bank"]], False, d["addr"], d["words"]), *spilled]


def _spilled(d: Descriptor, config: AcceleratorConfig, write: bool) -> Touch:
    """Blocks of external memory."""
    last = d["offset"] + d["words"] * config.word_bytes - 1
    first = d["offset"] // OUTPUT_BLOCK
    return _range("output", write, first, last // OUTPUT_BLOCK + 1 - first)


def _copy_kv(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    source = _tiles("A", False, d["addr"], d["stride"], -(-d["rows"] // config.rows), d["chunks"])
    if d["values"]:
        entries = -(-d["chunks"] * config.depth // config.cols) * -(-d["rows"] // config.depth)
    else:
        entries = -(-d["rows"] // config.cols) * d["chunks"]
    return [
        _whole(source),
        _range("weights", True, d["entry"], entries),
    ]


def _route(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    width = -(-d["experts"] // (config.group if d["wide"] else config.depth))
    logits = _tiles("A", False, d["addr"], d["stride"], -(-d["rows"] // config.rows), width)
    return [_whole(logits), _range("router", False, 0, 2), _range("routing", True, 0, 1)]


def _move_rows(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    tiles = -(-d["rows"] // config.rows)
    source = _tiles("A", False, d["s_addr"], d["s_stride"], tiles, d["chunks"])
    slots = [
        _tiles("A", True, d["o_addr"] + slot * d["slot_stride"], d["o_stride"], tiles, d["chunks"])
        for slot in range(d["k"] if d["scatter"] else 1)
    ]
    return [_whole(source), *(_whole(slot) for slot in slots)]


def _whole(touch: Touch) -> Touch:
    """The same cells, for the whole descriptor."""
    return Touch(touch.space, touch.write, touch.cells.reshape(1, -1))


def _gemm(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    found = _product(d, config)
    return [_whole(touch) for touch in found] if d["queue"] else found


def _product(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    tiles = -(-d["rows"] // config.rows)
    entries = -(-d["groups"] // config.tile_groups) * d["k_steps"]
    found = [
        _tiles("A", False, d["a_addr"], d["a_stride"], tiles, d["k_steps"]),
        _range("weights", False, d["entry"], entries),
        _range("params", False, d["group"], d["groups"]),
    ]
    if d["table"]:
        found.append(_range("activation", False, d["slot"], 1))
    if d["residual"]:
        width = _words(d["groups"], d["r_wide"])
        found.append(_tiles("X", False, d["r_addr"], d["r_stride"], tiles, width))
    width = _words(d["groups"], d["o_wide"])
    return [*found, _tiles(BANKS[d["o_bank"]], True, d["o_addr"], d["o_stride"], tiles, width)]


def _combine(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    tiles = growth(d, config)
    found = [_range("routing", False, 0, 1)]
    for slot in range(d["k"]):
        addr = d["a_addr"] + slot * d["slot_stride"]
        found.append(_tiles("A", False, addr, d["a_stride"], tiles, _words(d["groups"], 0)))
    if d["residual"]:
        width = _words(d["groups"], d["r_wide"])
        found.append(_tiles("X", False, d["r_addr"], d["r_stride"], tiles, width))
    width = _words(d["groups"], d["o_wide"])
    return [*found, _tiles(BANKS[d["o_bank"]], True, d["o_addr"], d["o_stride"], tiles, width)]


def _attention(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    tiles = -(-d["rows"] // config.rows)
    head = np.repeat(np.arange(d["heads"]), tiles)[:, None]
    tile = np.tile(np.arange(tiles), d["heads"])[:, None]
    keys = -(-d["keys"] // config.cols) * d["qk_steps"]
    values = -(-d["v_words"] * config.depth // config.cols) * -(-d["keys"] // config.depth)
    slot = d["entry"] + head % 2 * d["entry_step"]
    q = d["q_addr"] + head * d["qk_steps"] + tile * d["q_stride"] + np.arange(d["qk_steps"])
    out = d["o_addr"] + head * d["v_words"] + tile * d["o_stride"] + np.arange(d["v_words"])
    return [
        Touch("A", False, q),
        Touch("weights", False, slot + np.arange(keys)),
        Touch("weights", False, slot + d["v_entry"] + np.arange(values)),
        _range("exponential", False, d["slot"], 1),
        Touch("A", True, out),
    ]


def _layernorm(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    tiles = growth(d, config)
    read = -(-d["channels"] // (config.group if d["x_wide"] else config.depth))
    return [
        _tiles("X", False, d["x_addr"], d["x_stride"], tiles, read),
        _range("norm", False, d["channel"], d["channels"]),
        _tiles("A", True, d["o_addr"], d["o_stride"], tiles, -(-d["channels"] // config.depth)),
    ]


_KINDS: dict[str, Callable[[Descriptor, AcceleratorConfig], list[Touch]]] = {
    "LOAD_WEIGHTS": _load_weights,
    "LOAD_PARAMS": _load_params,
    "LOAD_NORM": _load_norm,
    "LOAD_TABLE": _load_table,
    "LOAD_ROWS": _load_rows,
    "LOAD_IMAGE": _load_image,
    "STORE": _store,
    "COPY_KV": _copy_kv,
    "ROUTE": _route,
    "MOVE_ROWS": _move_rows,
    "GEMM": _gemm,
    "ATTENTION": _attention,
    "COMBINE": _combine,
    "LAYERNORM": _layernorm,
}
