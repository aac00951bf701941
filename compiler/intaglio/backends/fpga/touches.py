"""What a descriptor reads and writes, from its fields alone (docs/accelerator.md): the checker's own view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.accelerator.progress import growth
from intaglio.backends.fpga.graph import Ints

BANKS = ("A", "X")
TABLES = ("activation", "exponential", "pixel")


@dataclass(frozen=True)
class Touch:
    """Cells of one memory: row i for substep i, or one row for the whole descriptor."""

    space: str
    write: bool
    cells: Ints


def touches(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    """Everything that `d` reads and writes in memories the program manages."""
    return _KINDS[d.kind](d, config)


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


def _load_rows(d: Descriptor, _: AcceleratorConfig) -> list[Touch]:
    return [_range(BANKS[d["bank"]], True, d["addr"], d["words"])]


def _load_image(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    depth = d["channels"] * d["patch_h"] * d["patch_w"]
    out = _tiles("A", True, d["addr"], d["stride"], growth(d, config), -(-depth // config.depth))
    return [_range("pixel", False, 0, d["channels"]), out]


def _store(d: Descriptor, _: AcceleratorConfig) -> list[Touch]:
    return [_range(BANKS[d["bank"]], False, d["addr"], d["words"])]


def _copy_kv(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    source = _tiles("A", False, d["addr"], d["stride"], -(-d["rows"] // config.rows), d["chunks"])
    if d["values"]:
        entries = -(-d["chunks"] * config.depth // config.cols) * -(-d["rows"] // config.depth)
    else:
        entries = -(-d["rows"] // config.cols) * d["chunks"]
    return [
        Touch("A", False, source.cells.reshape(1, -1)),
        _range("weights", True, d["entry"], entries),
    ]


def _gemm(d: Descriptor, config: AcceleratorConfig) -> list[Touch]:
    tiles = growth(d, config)
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
    "GEMM": _gemm,
    "ATTENTION": _attention,
    "LAYERNORM": _layernorm,
}
