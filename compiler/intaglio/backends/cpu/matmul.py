"""matmul: the product of two activations, requantized."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from tvm import tirx

from intaglio.backends.cpu import gemm
from intaglio.backends.cpu.elementwise import numbers
from intaglio.backends.cpu.gemm import PANEL, TILE_ROWS
from intaglio.backends.cpu.ir import (
    Body,
    Expr,
    Kernel,
    PrimFunc,
    bind,
    cast,
    const,
    kernel,
    load,
    loop,
    splat,
    store,
    when,
)
from intaglio.backends.cpu.isa import Isa
from intaglio.backends.cpu.lanes import LANES, fits, requantize, saturate, uniform_numbers, uniform_scale
from intaglio.backends.cpu.launch import Constant, Launch, Scratch, Site
from intaglio.backends.cpu.packing import PackShape, centred_fits, pack, reach
from intaglio.backends.cpu.plain import ProductShape, matmul_plain_kernel

BLOCK_ROWS = 8 * TILE_ROWS


class FastProduct(NamedTuple):
    """What `matmul_kernel` is specialized for, beside the product itself."""

    product: ProductShape
    isa: Isa

    @property
    def height(self) -> int:
        return min(self.product.rows, BLOCK_ROWS)

    @property
    def blocks(self) -> int:
        """Row blocks of one matrix of the batch."""
        return -(-self.product.rows // self.height)

    @property
    def right(self) -> PackShape:
        p = self.product
        return PackShape(p.batch, p.columns, p.depth, p.b, by_column=p.transpose_b)


def matmul_kernel(symbol: str, shape: FastProduct) -> PrimFunc:
    """Items are blocks of rows of the batch. `numbers`: a_zero, then the scale as `uniform_scale` reads it."""
    p, right = shape.product, shape.right
    buffers = {
        "a": (p.a, p.batch * p.rows * p.depth),
        "b": ("int16", right.size),
        "numbers": ("int64", 5),
        "wide_a": ("int16", shape.height * right.pairs * 2),
        "acc": ("int32", shape.height * PANEL),
        "y": (p.result, shape.height * PANEL),
        "out": (p.result, p.batch * p.rows * p.columns),
    }
    with kernel(symbol, **buffers) as body, loop(body.begin, body.end) as item:
        zero = bind(cast(load(body["numbers"], 0), "int16"))
        matrix = bind(item // shape.blocks)
        top = bind((item % shape.blocks) * shape.height)
        count = bind(tirx.min(const(p.rows, "int32") - top, const(shape.height, "int32")))
        first = bind(matrix * p.rows + top)
        with loop(0, count) as row:
            gemm.emit_widen(
                body["a"], (first + row) * p.depth, body["wide_a"], row * right.pairs * 2, p.depth, zero
            )
        with loop(0, right.panels) as panel:
            _emit_tiles(body, shape, matrix * right.panels + panel, count)
            _emit_results(body, shape, first, panel * PANEL, count)
    return body.func


def _emit_tiles(body: Body, shape: FastProduct, panel: Expr, count: Expr) -> None:
    right = shape.right

    def tile(height: int, top: Expr) -> None:
        gemm.emit_tile(
            shape.isa,
            height,
            right.pairs,
            (body["wide_a"], lambda row: (top + row) * (right.pairs * 2)),
            (body["b"], panel * right.panel_size),
            lambda _row, _half: splat(const(0, "int32"), LANES),
            lambda row, half, total: store(body["acc"], (top + row) * PANEL + half * LANES, total, LANES),
        )

    gemm.emit_rows(shape.product.rows, count, tile)


def _emit_results(body: Body, shape: FastProduct, first: Expr, column: Expr, count: Expr) -> None:
    """Requantize one panel and store the columns that exist."""
    p = shape.product
    scale = uniform_scale(body["numbers"], 1)
    with loop(0, count) as row:
        for half in range(2):
            at = row * PANEL + half * LANES
            y = requantize([(load(body["acc"], at, LANES), scale.multiplier)], scale)
            store(body["y"], at, saturate(y, p.result), LANES)
    start = first * p.columns + column
    with when(column + PANEL <= p.columns), loop(0, count) as row:
        store(body["out"], start + row * p.columns, load(body["y"], row * PANEL, PANEL), PANEL)
    with when(column + PANEL > p.columns), loop(0, count) as row, loop(0, p.columns % PANEL) as n:
        store(body["out"], start + row * p.columns + n, load(body["y"], row * PANEL + n))


def lower_matmul(site: Site) -> list[Launch]:
    """Launches of one matmul."""
    a, b = site.inputs
    transpose_b = bool(site.attr("transpose_b"))
    batch = math.prod(a.shape[:-2])
    columns = b.shape[-2] if transpose_b else b.shape[-1]
    shape = ProductShape(
        batch, a.shape[-2], a.shape[-1], columns, a.dtype, b.dtype, transpose_b, site.output.dtype
    )
    if _is_fast(site, shape):
        return _lower_fast(site, FastProduct(shape, site.isa))
    attrs = numbers(site, "a_zero", "b_zero", "multiplier", "shift", "zero_point")
    operands = (site.operand(0), site.operand(1), attrs, Scratch(8 * columns), site.result)
    return [Launch(Kernel(matmul_plain_kernel, (shape,)), operands, batch * shape.rows)]


def _is_fast(site: Site, shape: ProductShape) -> bool:
    """Whether int16 operands and int32 sums suffice, whatever the values."""
    a_zero, b_zero = site.attr("a_zero"), site.attr("b_zero")
    bound = shape.depth * reach(shape.a, a_zero) * reach(shape.b, b_zero)
    centred = centred_fits(shape.a, a_zero) and centred_fits(shape.b, b_zero)
    product = bound * site.attr("multiplier")
    return centred and bound < 1 << 31 and fits(product, site.attr("shift"), site.attr("zero_point"))


def _lower_fast(site: Site, fast: FastProduct) -> list[Launch]:
    scale = uniform_numbers(site.attr("multiplier"), site.attr("shift"), site.attr("zero_point"))
    attrs = Constant(np.array([site.attr("a_zero"), *scale], np.int64))
    packed, b = pack(site.operand(1), numbers(site, "b_zero"), fast.right, f"{site.step.name}.right")
    scratch = (
        Scratch(fast.height * fast.right.pairs * 4),
        Scratch(fast.height * PANEL * 4),
        Scratch(fast.height * PANEL * 2),
    )
    operands = (site.operand(0), b, attrs, *scratch, site.result)
    return [packed, Launch(Kernel(matmul_kernel, (fast,)), operands, fast.product.batch * fast.blocks)]
