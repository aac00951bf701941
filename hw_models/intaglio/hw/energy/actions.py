"""What a program does, per descriptor: products, results, bytes moved (their meaning: docs/accelerator.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BYTES, Descriptor


@dataclass(frozen=True)
class Actions:
    """Counts of one descriptor, or of several.

    `products`: int8 multiply-accumulates that the array makes, those of padding included; `results`: values that
    requantization, LayerNorm or softmax make; `scratchpad`, `weight_buffer`, `tables`: bytes read and written on the
    chip; `memory`: bytes read from and written to external memory.
    """

    products: int = 0
    results: int = 0
    scratchpad: int = 0
    weight_buffer: int = 0
    tables: int = 0
    memory: int = 0

    def __add__(self, other: Actions) -> Actions:
        return Actions(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Actions)))

    def as_json(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(Actions)}


Rows = Callable[[int, Descriptor], int]
"""Rows that a descriptor (its position in the program, itself) works on: its field, but for expert queues."""


def count(
    program: Sequence[Descriptor], config: AcceleratorConfig, rows: Rows | None = None
) -> list[Actions]:
    """The actions of every descriptor of a program. `rows` says how long expert queues are; default: the longest.

    What depends on an empty queue is fetched and does nothing.
    """
    of = rows or (lambda _, d: d["rows"])
    fetch = Actions(memory=BYTES)
    idle = [rows is not None and d["queue"] > 0 and not of(i, d) for i, d in enumerate(program)]
    return [fetch if idle[i] else fetch + _actions(d, config, of(i, d)) for i, d in enumerate(program)]


def _actions(d: Descriptor, config: AcceleratorConfig, rows: int) -> Actions:
    tiles = -(-rows // config.rows)
    match d.kind:
        case "GEMM":
            return _gemm(d, config, tiles)
        case "ATTENTION":
            return _attention(d, config, tiles)
        case "COMBINE":
            read = tiles * d["groups"] * d["k"] * config.lanes
            return Actions(results=tiles * d["groups"] * config.lanes, scratchpad=read) + _written(
                d, config, tiles
            )
        case "LAYERNORM":
            values = tiles * config.rows * d["channels"]
            return Actions(
                results=values,
                scratchpad=values * (2 * (1 + d["x_wide"]) + 1),
                tables=16 * d["channels"] * tiles,
            )
        case "ROUTE":
            return Actions(
                results=rows * d["experts"],
                scratchpad=2 * rows * d["experts"],
                tables=4 * rows * d["experts"],
            )
        case "MOVE_ROWS":
            return Actions(scratchpad=2 * rows * d["chunks"] * config.depth)
        case "COPY_KV":
            moved = tiles * d["chunks"] * config.word_bytes
            return Actions(scratchpad=moved, weight_buffer=moved)
        case _:
            return _transfer(d, config)


def _gemm(d: Descriptor, config: AcceleratorConfig, tiles: int) -> Actions:
    steps = tiles * -(-d["groups"] // config.tile_groups) * d["k_steps"]
    results = tiles * d["groups"] * config.lanes
    parameters = tiles * d["groups"] * config.group * 8
    lookups = 2 * results * d["table"]
    return (
        _steps(config, steps)
        + Actions(results=results, tables=parameters + lookups)
        + _written(d, config, tiles)
    )


def _written(d: Descriptor, config: AcceleratorConfig, tiles: int) -> Actions:
    """A product's results in a bank, and the residual that was read for them."""
    results = tiles * d["groups"] * config.lanes
    residual = results * (1 + d["r_wide"]) * d["residual"]
    return Actions(scratchpad=results * (1 + d["o_wide"]) + residual)


def _attention(d: Descriptor, config: AcceleratorConfig, tiles: int) -> Actions:
    scores = -(-d["keys"] // config.cols) * d["qk_steps"]
    # The exponentials take two passes, high part and low part.
    values = 2 * -(-d["v_words"] * config.depth // config.cols) * -(-d["keys"] // config.depth)
    count = d["heads"] * tiles
    exponentials = count * config.rows * d["keys"]
    out = count * config.word_bytes * d["v_words"]
    # Scores and exponentials pass through buffers: a byte and two bytes, written and read.
    extra = Actions(results=exponentials + out, scratchpad=6 * exponentials + out, tables=2 * exponentials)
    return _steps(config, count * (scores + values)) + extra


def _steps(config: AcceleratorConfig, steps: int) -> Actions:
    return Actions(
        products=steps * config.macs,
        scratchpad=steps * config.word_bytes,
        weight_buffer=steps * config.entry_bytes,
    )


def _transfer(d: Descriptor, config: AcceleratorConfig) -> Actions:
    depth = config.depth
    match d.kind:
        case "LOAD_WEIGHTS":
            moved = d["entries"] * config.entry_bytes
            return Actions(memory=moved, weight_buffer=moved)
        case "LOAD_PARAMS":
            moved = d["groups"] * 4 * depth
            return Actions(memory=moved, tables=moved)
        case "LOAD_NORM":
            return Actions(memory=16 * d["channels"], tables=16 * d["channels"])
        case "LOAD_TABLE":
            return Actions(memory=512, tables=512)
        case "LOAD_ROWS":
            moved = d["words"] * config.word_bytes
            return Actions(memory=moved, scratchpad=moved)
        case "LOAD_IMAGE":
            moved = d["channels"] * d["patch_h"] * d["patch_w"] * d["grid_h"] * d["grid_w"]
            return Actions(memory=moved, scratchpad=moved, tables=moved)
        case "STORE":
            moved = d["words"] * (config.word_bytes if d["all_rows"] else depth)
            return Actions(memory=moved, scratchpad=moved)
        case _:
            raise ValueError(f"descriptor kind {d.kind!r} is unknown to the energy model.")
