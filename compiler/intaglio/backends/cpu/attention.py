"""attention: scores, exponentials and weighted values of a block of rows, without leaving the cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tvm import tirx

from intaglio.backends.cpu import gemm
from intaglio.backends.cpu.arith import rescale, wide
from intaglio.backends.cpu.elementwise import numbers
from intaglio.backends.cpu.exponential import exponential, row_reciprocal
from intaglio.backends.cpu.gemm import PANEL, TILE_ROWS
from intaglio.backends.cpu.ir import (
    Body,
    Cell,
    Expr,
    Kernel,
    PrimFunc,
    bind,
    cast,
    const,
    kernel,
    load,
    loop,
    minimum,
    splat,
    store,
)
from intaglio.backends.cpu.isa import Isa
from intaglio.backends.cpu.lanes import LANES, fits, requantize, saturate, uniform_numbers, uniform_scale
from intaglio.backends.cpu.launch import Constant, Launch, Operand, Scratch, Site
from intaglio.backends.cpu.packing import PackShape, centred_fits, pack, reach
from intaglio.backends.cpu.plain import ATTENTION_NUMBERS, AttentionShape, attention_plain_kernel
from intaglio.program import Array

# Rows that share one pass over the packed keys and values; a multiple of the tile.
BLOCK_ROWS = 4 * TILE_ROWS
# Fewer pairs of keys per int32 sum are not worth a tile.
MIN_PAIRS = 16


class FastAttention(NamedTuple):
    """What `attention_kernel` is specialized for, beside the attention itself.

    `value_pairs`: pairs of keys whose weighted values are summed in int32 before they join an int64 sum, or all.
    """

    attention: AttentionShape
    isa: Isa
    value_pairs: int

    @property
    def height(self) -> int:
        return min(self.attention.rows, BLOCK_ROWS)

    @property
    def blocks(self) -> int:
        """Row blocks of one head."""
        return -(-self.attention.rows // self.height)

    @property
    def keys(self) -> PackShape:
        a = self.attention
        return PackShape(a.heads, a.keys, a.depth, a.k, by_column=True)

    @property
    def values(self) -> PackShape:
        a = self.attention
        return PackShape(a.heads, a.value_depth, a.keys, a.v, by_column=False)

    @property
    def wide(self) -> bool:
        return self.value_pairs < self.values.pairs

    @property
    def padded_keys(self) -> int:
        return self.keys.panels * PANEL

    def scratch(self) -> dict[str, tuple[str, int]]:
        a, height = self.attention, self.height
        return {
            "wide_q": ("int16", height * self.keys.pairs * 2),
            "acc": ("int32", height * PANEL),
            "wide_acc": ("int64", height * PANEL if self.wide else 1),
            "scores": (a.score, height * self.padded_keys),
            "weights": ("int16", height * self.padded_keys),
            "ratios": ("int64", height),
        }


def attention_kernel(symbol: str, shape: FastAttention) -> PrimFunc:
    """Items are blocks of rows of all heads.

    `numbers`: q_zero, multiplier, then the scales of scores and of results as `uniform_scale` reads them, then the
    shift and the zero point of the result. `table` is reversed for int8 scores: entry 255 is the weight of the maximum.
    """
    a = shape.attention
    buffers = {
        "q": (a.q, a.heads * a.rows * a.depth),
        "k": ("int16", shape.keys.size),
        "v": ("int16", shape.values.size),
        "table": ("int16", 256) if a.score == "int8" else ("uint32", 512),
        "numbers": ("int64", 12),
        **shape.scratch(),
        "out": (a.result, a.heads * a.rows * a.value_depth),
    }
    with kernel(symbol, **buffers) as body, loop(body.begin, body.end) as item:
        head = bind(item // shape.blocks)
        first = bind((item % shape.blocks) * shape.height)
        count = bind(tirx.min(const(a.rows, "int32") - first, const(shape.height, "int32")))
        row = bind(head * a.rows + first)
        _emit_scores(body, shape, head, row, count)
        _emit_weights(body, shape, count)
        _emit_values(body, shape, head, row, count)
    return body.func


def _emit_scores(body: Body, shape: FastAttention, head: Expr, first: Expr, count: Expr) -> None:
    a, keys = shape.attention, shape.keys
    zero = bind(cast(load(body["numbers"], 0), "int16"))
    scale = uniform_scale(body["numbers"], 2)
    with loop(0, count) as row:
        gemm.emit_widen(
            body["q"], (first + row) * a.depth, body["wide_q"], row * keys.pairs * 2, a.depth, zero
        )
    acc = body["acc"]
    with loop(0, keys.panels) as panel:
        start = bind((head * keys.panels + panel) * keys.panel_size)

        def tile(height: int, top: Expr) -> None:
            gemm.emit_tile(
                shape.isa,
                height,
                keys.pairs,
                (body["wide_q"], lambda row: (top + row) * (keys.pairs * 2)),
                (body["k"], start),
                lambda _row, _half: splat(const(0, "int32"), LANES),
                lambda row, half, total: store(acc, (top + row) * PANEL + half * LANES, total, LANES),
            )

        gemm.emit_rows(a.rows, count, tile)
        with loop(0, count) as row:
            for half in range(2):
                y = requantize([(load(acc, row * PANEL + half * LANES, LANES), scale.multiplier)], scale)
                at = row * shape.padded_keys + panel * PANEL + half * LANES
                store(body["scores"], at, saturate(y, a.score), LANES)


def _emit_weights(body: Body, shape: FastAttention, count: Expr) -> None:
    """Scores to exponentials, and one division per row."""
    a = shape.attention
    with loop(0, count) as row:
        start = bind(row * shape.padded_keys)
        for pad in range(a.keys, shape.padded_keys):
            store(body["scores"], start + pad, const(minimum(a.score), a.score))
        top = _row_maximum(body, shape, start)
        with loop(0, a.keys) as i:
            store(body["weights"], start + i, _weight(body, a, top, load(body["scores"], start + i)))
        for pad in range(a.keys, shape.padded_keys):
            store(body["weights"], start + pad, const(0, "int16"))
        total = _row_total(body, shape, start)
        store(body["ratios"], row, row_reciprocal(wide(total), load(body["numbers"], 1), a.e_bits))


def _weight(body: Body, a: AttentionShape, top: Expr, score: Expr) -> Expr:
    if a.score == "int8":
        return load(body["table"], cast(score, "int32") + (const(255, "int32") - top))
    return cast(exponential(body["table"], top - cast(score, "int32"), a.score, a.e_bits), "int16")


def _row_maximum(body: Body, shape: FastAttention, start: Expr) -> Expr:
    dtype = shape.attention.score
    best = Cell(splat(const(minimum(dtype), dtype), PANEL), dtype, PANEL)
    with loop(0, shape.keys.panels) as panel:
        best.set(tirx.max(best.get(), load(body["scores"], start + panel * PANEL, PANEL)))
    return bind(cast(best.reduced(tirx.max), "int32"))


def _row_total(body: Body, shape: FastAttention, start: Expr) -> Expr:
    total = Cell(splat(const(0, "int32"), LANES), "int32", LANES)
    ones = splat(const(1, "int16"), PANEL)
    with loop(0, shape.keys.panels) as panel:
        total.set(total.get() + shape.isa.pair_dot(load(body["weights"], start + panel * PANEL, PANEL), ones))
    return total.reduced(lambda x, y: x + y)


def _emit_values(body: Body, shape: FastAttention, head: Expr, first: Expr, count: Expr) -> None:
    values = shape.values
    with loop(0, values.panels) as panel:
        start = bind((head * values.panels + panel) * values.panel_size)
        if shape.wide:
            with loop(0, count) as row:
                store(body["wide_acc"], row * PANEL, splat(const(0, "int64"), PANEL), PANEL)
        for pair in range(0, values.pairs, shape.value_pairs):
            _emit_value_tiles(body, shape, start, count, pair)
        _emit_results(body, shape, panel, first, count)


def _emit_value_tiles(body: Body, shape: FastAttention, start: Expr, count: Expr, pair: int) -> None:
    """Add the weighted values of `value_pairs` pairs of keys from `pair` on."""
    pairs = min(shape.value_pairs, shape.values.pairs - pair)

    def tile(height: int, top: Expr) -> None:
        def finish(row: int, half: int, total: Expr) -> None:
            at = (top + row) * PANEL + half * LANES
            if shape.wide:
                total = load(body["wide_acc"], at, LANES) + cast(total, f"int64x{LANES}")
            store(body["wide_acc" if shape.wide else "acc"], at, total, LANES)

        gemm.emit_tile(
            shape.isa,
            height,
            pairs,
            (body["weights"], lambda row: (top + row) * shape.padded_keys + pair * 2),
            (body["v"], start + pair * (2 * PANEL)),
            lambda _row, _half: splat(const(0, "int32"), LANES),
            finish,
        )

    gemm.emit_rows(shape.attention.rows, count, tile)


def _emit_results(body: Body, shape: FastAttention, panel: Expr, first: Expr, count: Expr) -> None:
    """Divide the sums of one panel and store the columns that exist."""
    a = shape.attention
    column = panel * PANEL
    width = bind(tirx.min(const(a.value_depth, "int32") - column, const(PANEL, "int32")))
    with loop(0, count) as row:
        start = bind((first + row) * a.value_depth + column)
        if shape.wide or a.value_depth % LANES:
            _emit_result_columns(body, shape, row, start, width)
        else:
            with loop(0, width // LANES) as half:
                store(body["out"], start + half * LANES, _eight_results(body, shape, row, half), LANES)


def _eight_results(body: Body, shape: FastAttention, row: Expr, half: Expr) -> Expr:
    scale = uniform_scale(body["numbers"], 6)
    ratio = bind(splat(load(body["ratios"], row), 4))
    acc = load(body["acc"], row * PANEL + half * LANES, LANES)
    return saturate(requantize([(acc, (ratio, ratio))], scale), shape.attention.result)


def _emit_result_columns(body: Body, shape: FastAttention, row: Expr, start: Expr, width: Expr) -> None:
    a = shape.attention
    shift, zero = load(body["numbers"], 10), load(body["numbers"], 11)
    with loop(0, width) as n:
        scaled = wide(load(body["wide_acc" if shape.wide else "acc"], row * PANEL + n)) * load(
            body["ratios"], row
        )
        store(body["out"], start + n, rescale(scaled, shift, zero, a.result))


def attention_shape(site: Site) -> AttentionShape:
    """Sizes and types of the step."""
    q, k, v = site.inputs[:3]
    return AttentionShape(
        heads=q.shape[0] * q.shape[1],
        rows=q.shape[2],
        keys=k.shape[2],
        depth=q.shape[3],
        value_depth=v.shape[3],
        q=q.dtype,
        k=k.dtype,
        v=v.dtype,
        score=site.step.attrs["score_dtype"],
        e_bits=site.attr("e_bits"),
        acc_shift=site.attr("acc_shift"),
        result=site.output.dtype,
    )


def lower_attention(site: Site) -> list[Launch]:
    """Launches of one attention."""
    shape = attention_shape(site)
    fast = _fast_shape(site, shape)
    if fast is None:
        attrs = numbers(site, *ATTENTION_NUMBERS)
        scratch: tuple[Operand, ...] = (
            Scratch(8 * max(shape.keys, shape.value_depth)),
            Scratch(4 * shape.keys),
        )
        operands = (*map(site.operand, range(4)), attrs, *scratch, site.result)
        return [Launch(Kernel(attention_plain_kernel, (shape,)), operands, shape.heads * shape.rows)]
    pack_k, k = pack(site.operand(1), numbers(site, "k_zero"), fast.keys, f"{site.step.name}.keys")
    pack_v, v = pack(site.operand(2), numbers(site, "v_zero"), fast.values, f"{site.step.name}.values")
    scratch = tuple(Scratch(np.dtype(dtype).itemsize * size) for dtype, size in fast.scratch().values())
    operands = (site.operand(0), k, v, Constant(_table(site, shape)), _numbers(site), *scratch, site.result)
    return [pack_k, pack_v, Launch(Kernel(attention_kernel, (fast,)), operands, shape.heads * fast.blocks)]


def _fast_shape(site: Site, shape: AttentionShape) -> FastAttention | None:
    """How to run on tiles, or None where int16 and int32 do not suffice."""
    types = {"q": shape.q, "k": shape.k, "v": shape.v}
    zeros = {name: site.attr(f"{name}_zero") for name in types}
    q, k, v = (reach(dtype, zeros[name]) for name, dtype in types.items())
    scores = shape.depth * q * k
    centred = all(centred_fits(dtype, zeros[name]) for name, dtype in types.items())
    if not centred or scores >= 1 << 31 or shape.e_bits != 15 or shape.keys >= 1 << 16:
        return None
    score_fits = fits(
        scores * site.attr("score_multiplier"), site.attr("score_shift"), site.attr("score_zero")
    )
    # A result is at most v's reach times the row's total, times multiplier << 14 over the total.
    result_fits = fits(v * site.attr("multiplier") << 14, site.attr("shift") + 14, site.attr("zero_point"))
    value_pairs = ((1 << 31) - 1) // (2 * 32767 * v)
    if not score_fits or not result_fits or value_pairs < MIN_PAIRS:
        return None
    return FastAttention(shape, site.isa, min(value_pairs, gemm.even(shape.keys) // 2))


def _table(site: Site, shape: AttentionShape) -> Array:
    table = site.constant(3)
    return table[0, ::-1].astype(np.int16) if shape.score == "int8" else table


def _numbers(site: Site) -> Constant:
    shift, zero = site.attr("shift") + 14, site.attr("zero_point")
    score = uniform_numbers(site.attr("score_multiplier"), site.attr("score_shift"), site.attr("score_zero"))
    result = uniform_numbers(0, shift, zero)
    return Constant(
        np.array([site.attr("q_zero"), site.attr("multiplier"), *score, *result, shift, zero], np.int64)
    )
