"""The matrix product of all products: 6 x 16 tiles of int32, two int16 products per multiply-add."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx

from intaglio.backends.cpu.ir import (
    Buffer,
    Expr,
    bind,
    bits,
    cast,
    const,
    load,
    local,
    loop,
    splat,
    store,
    when,
)
from intaglio.backends.cpu.isa import Isa
from intaglio.program import Array

# Twelve accumulators, two registers of weights, one of activations and one of products: all sixteen of AVX2.
TILE_ROWS = 6
PANEL = 16
_HALF = 8

Read = Callable[[int, int], Expr]
Write = Callable[[int, int, Expr], None]


def even(depth: int) -> int:
    """The next even number: a depth in whole pairs."""
    return depth + depth % 2


def emit_tile(
    isa: Isa,
    rows: int,
    pairs: Expr,
    a: tuple[Buffer, Callable[[int], Expr]],
    panel: tuple[Buffer, Expr],
    first: Read,
    last: Write,
) -> None:
    """One tile of `rows` x 16 sums over `pairs` pairs.

    `a`: int16 activations, and where each row begins; `panel`: weights, and where the first 16 pairs of them begin, 32
    elements for every pair. `first(row, half)` gives the value a sum starts from and `last(row, half, sum)` takes it;
    halves are eight columns.
    """
    tile = [(row, half) for row in range(rows) for half in range(2)]
    acc = local(rows * PANEL, "int32")
    for row, half in tile:
        store(acc, row * PANEL + half * _HALF, first(row, half), _HALF)
    # With 32-bit indices LLVM computes every address anew in the loop; of 64 bits they are pointers that advance.
    starts = [bind(_wide(a[1](row))) for row in range(rows)]
    start = bind(_wide(panel[1]))
    with loop(const(0, "int64"), _wide(pairs)) as pair:
        weights = [_weights(panel[0], start + pair * (2 * PANEL) + half * PANEL) for half in range(2)]
        for row in range(rows):
            x = bits(bind(splat(_pair_at(a[0], starts[row] + pair * 2), _HALF)), "int16x16")
            for half in range(2):
                at = row * PANEL + half * _HALF
                store(acc, at, acc[tirx.Ramp(at, 1, _HALF)] + isa.pair_dot(x, weights[half]), _HALF)
    for row, half in tile:
        last(row, half, load(acc, row * PANEL + half * _HALF, _HALF))


def _weights(panel: Buffer, index: Expr) -> Expr:
    values = load(panel, index, PANEL)
    return values if panel.dtype == "int16" else bind(cast(values, "int16x16"))


def emit_rows(total: int, rows: Expr, tile: Callable[[int, Expr], None]) -> None:
    """Cover `rows` rows: `tile(height, first)` for whole tiles, then for the rest.

    Only the last block of the `total` rows may end in a partial tile, so the rest has one height.
    """
    if total >= TILE_ROWS:
        with loop(0, rows // TILE_ROWS) as index:
            tile(TILE_ROWS, index * TILE_ROWS)
    rest = total % TILE_ROWS
    if rest:
        with when(rows % TILE_ROWS > 0):
            tile(rest, (rows // TILE_ROWS) * TILE_ROWS)


def emit_any_rows(rows: Expr, tile: Callable[[int, Expr], None]) -> None:
    """As `emit_rows`, for a number of rows that is known at run time only: every height has code of its own."""
    with loop(0, rows // TILE_ROWS) as index:
        tile(TILE_ROWS, index * TILE_ROWS)
    for rest in range(1, TILE_ROWS):
        with when(rows % TILE_ROWS == rest):
            tile(rest, rows - rest)


def _wide(index: Expr) -> Expr:
    return const(index, "int64") if isinstance(index, int) else cast(index, "int64")


def _pair_at(buffer: Buffer, index: Expr) -> Expr:
    """Two neighbouring int16 as one int32."""
    return bits(load(buffer, index, 2), "int32")


def emit_widen(
    source: Buffer, start: Expr, target: Buffer, to: Expr, length: int, zero: Expr | None = None
) -> None:
    """Copy `length` elements as int16, less `zero`, and a zero behind an odd number of them."""

    def centred(index: Expr, lanes: int) -> Expr:
        value = cast(load(source, start + index, lanes), "int16" if lanes == 1 else f"int16x{lanes}")
        return value if zero is None else value - (splat(zero, lanes) if lanes > 1 else zero)

    whole = length // PANEL
    with loop(0, whole) as i:
        store(target, to + i * PANEL, centred(i * PANEL, PANEL), PANEL)
    with loop(whole * PANEL, length) as i:
        store(target, to + i, centred(i, 1))
    if length % 2:
        store(target, to + length, const(0, "int16"))


def panel_starts(channels: int) -> list[int]:
    """First channel of every panel. The last one overlaps its neighbour where channels are no multiple of 16, so that
    no panel is partial: a few outputs are computed twice.
    """
    return [min(start, channels - PANEL) for start in range(0, channels, PANEL)]


def by_panel(array: Array) -> Array:
    """``[channels, ...]`` to ``[panels, 16, ...]``."""
    return np.stack([array[start : start + PANEL] for start in panel_starts(len(array))])


def pack_weights(weight: Array) -> Array:
    """``[N, K]`` to ``[panels, pairs, 16, 2]``: what one multiply-add reads lies together."""
    padded = np.pad(weight, ((0, 0), (0, weight.shape[1] % 2)))
    panels = by_panel(padded)
    return np.ascontiguousarray(panels.reshape(len(panels), PANEL, -1, 2).transpose(0, 2, 1, 3))
