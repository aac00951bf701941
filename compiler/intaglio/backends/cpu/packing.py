"""Activations on the right of a product: centred, widened to int16 and laid out as `gemm.pack_weights` does."""

from __future__ import annotations

from typing import NamedTuple

from tvm import tirx

from intaglio.backends.cpu.gemm import PANEL, even
from intaglio.backends.cpu.ir import (
    Body,
    Expr,
    Kernel,
    PrimFunc,
    bind,
    bits,
    cast,
    const,
    kernel,
    load,
    loop,
    maximum,
    minimum,
    splat,
    store,
    when,
)
from intaglio.backends.cpu.launch import Constant, Launch, Operand, Temporary


class PackShape(NamedTuple):
    """A batch of right operands, ``[batch, columns, depth]`` if `by_column`, else ``[batch, depth, columns]``."""

    batch: int
    columns: int
    depth: int
    dtype: str
    by_column: bool

    @property
    def panels(self) -> int:
        return -(-self.columns // PANEL)

    @property
    def pairs(self) -> int:
        return even(self.depth) // 2

    @property
    def panel_size(self) -> int:
        return self.pairs * 2 * PANEL

    @property
    def size(self) -> int:
        """int16 elements of the packed batch."""
        return self.batch * self.panels * self.panel_size


def pack_kernel(symbol: str, shape: PackShape) -> PrimFunc:
    """Items are panels of the whole batch. `numbers`: the zero point.

    Columns beyond the last repeat it, and so does an odd depth: their results are not used, or multiplied by zero.
    """
    buffers = {
        "x": (shape.dtype, shape.batch * shape.columns * shape.depth),
        "numbers": ("int64", 1),
        "out": ("int16", shape.size),
    }
    with kernel(symbol, **buffers) as body:
        zero = bind(cast(load(body["numbers"], 0), "int16"))
        with loop(body.begin, body.end) as item:
            start = bind((item // shape.panels) * (shape.columns * shape.depth))
            column = bind((item % shape.panels) * PANEL)
            emit = _emit_columns if shape.by_column else _emit_rows
            emit(body, shape, start, column, item * shape.panel_size, zero)
    return body.func


def _emit_columns(body: Body, shape: PackShape, start: Expr, column: Expr, to: Expr, zero: Expr) -> None:
    """Each column is contiguous."""
    with loop(0, PANEL) as j:
        source = bind(start + tirx.min(column + j, const(shape.columns - 1, "int32")) * shape.depth)
        with loop(0, shape.depth // 2) as pair:
            values = cast(load(body["x"], source + pair * 2, 2), "int16x2") - splat(zero, 2)
            store(body["out"], to + (pair * PANEL + j) * 2, values, 2)
        if shape.depth % 2:
            value = bind(cast(load(body["x"], source + shape.depth - 1), "int16") - zero)
            for side in range(2):
                store(body["out"], to + ((shape.pairs - 1) * PANEL + j) * 2 + side, value)


def _emit_rows(body: Body, shape: PackShape, start: Expr, column: Expr, to: Expr, zero: Expr) -> None:
    """Each row of columns is contiguous."""
    whole = column + PANEL <= shape.columns
    with loop(0, shape.pairs) as pair:
        rows = [bind(start + row * shape.columns) for row in _pair_rows(pair, shape.depth)]
        target = bind(to + pair * (2 * PANEL))
        with when(whole):
            first, second = (_sixteen(body, row + column, zero) for row in rows)
            low = first & splat(const(0xFFFF, "int32"), PANEL)
            store(
                body["out"],
                target,
                bits(low | (second << splat(const(16, "int32"), PANEL)), "int16x32"),
                2 * PANEL,
            )
        if shape.columns % PANEL:
            with when(column + PANEL > shape.columns), loop(0, PANEL) as j:
                at = bind(tirx.min(column + j, const(shape.columns - 1, "int32")))
                for side in range(2):
                    store(
                        body["out"],
                        target + j * 2 + side,
                        cast(load(body["x"], rows[side] + at), "int16") - zero,
                    )


def _pair_rows(pair: Expr, depth: int) -> tuple[Expr, Expr]:
    second = pair * 2 + 1
    return pair * 2, tirx.min(second, const(depth - 1, "int32")) if depth % 2 else second


def _sixteen(body: Body, at: Expr, zero: Expr) -> Expr:
    centred = cast(load(body["x"], at, PANEL), f"int16x{PANEL}") - splat(zero, PANEL)
    return bind(cast(centred, f"int32x{PANEL}"))


def pack(operand: Operand, zero: Constant, shape: PackShape, name: str) -> tuple[Launch, Temporary]:
    """The launch that packs `operand` and the memory it fills."""
    packed = Temporary(name, shape.size * 2)
    made = Kernel(pack_kernel, (shape,))
    return Launch(made, (operand, zero, packed), shape.batch * shape.panels), packed


def centred_fits(dtype: str, zero_point: int) -> bool:
    """Whether ``x - zero_point`` fits int16."""
    return dtype == "int8" or zero_point == 0


def reach(dtype: str, zero_point: int) -> int:
    """The largest ``|x - zero_point|``."""
    return max(zero_point - minimum(dtype), maximum(dtype) - zero_point)
