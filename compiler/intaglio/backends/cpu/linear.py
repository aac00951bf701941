"""linear: a matrix product with a constant, requantized per channel, with the fused table and residual."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tvm import tirx

from intaglio.backends.cpu import gemm
from intaglio.backends.cpu.arith import rescale, wide
from intaglio.backends.cpu.elementwise import numbers
from intaglio.backends.cpu.gemm import PANEL, TILE_ROWS
from intaglio.backends.cpu.ir import (
    Body,
    Buffer,
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
from intaglio.backends.cpu.lanes import (
    GROUP_WORDS,
    LANES,
    channel_scale,
    fits,
    requantize,
    saturate,
    uniform_numbers,
    uniform_scale,
)
from intaglio.backends.cpu.launch import (
    Constant,
    Launch,
    Operand,
    Scratch,
    Site,
    TaskConstant,
    grain,
    rows,
)
from intaglio.backends.cpu.matrices import Matrices
from intaglio.backends.cpu.plain import LinearShape, linear_plain_kernel
from intaglio.backends.cpu.table import is_bytes, lookup_bytes, spread
from intaglio.ops.linear import task_flag
from intaglio.program import Array

ADD_NUMBERS = ("add_a_multiplier", "add_b_multiplier", "add_offset", "add_shift", "add_zero_point")

# Rows whose int16 activations and int32 panel stay near while the weights stream by.
BLOCK_ROWS = 96


class FastShape(NamedTuple):
    """What `linear_kernel` is specialized for, beside the linear itself.

    `blocks`: parts of the depth that are summed one after the other; `wide`: sums of blocks are int64; `lanes`: the
    requantized value is known to fit int32 before it is clamped; `by_panel`: items are panels instead of rows;
    `queued`: the rows of a block are any number of gathered ones (mixtures of experts).
    """

    linear: LinearShape
    isa: Isa
    blocks: int
    wide: bool
    lanes: bool
    by_panel: bool = False
    queued: bool = False

    @property
    def pairs(self) -> int:
        return gemm.even(self.linear.depth) // 2

    @property
    def height(self) -> int:
        """Rows of one block."""
        return min(self.linear.rows, BLOCK_ROWS)

    @property
    def panels(self) -> int:
        return len(gemm.panel_starts(self.linear.channels))

    @property
    def bytes_table(self) -> bool:
        """Whether the fused table is looked up by byte shuffles."""
        return self.linear.table is not None and is_bytes(self.isa, self.linear.dtype, self.linear.table)

    @property
    def copies(self) -> bool:
        """Whether activations are widened or padded into scratch."""
        return self.queued or self.linear.x == "int8" or self.linear.depth % 2 == 1


def linear_kernel(symbol: str, shape: FastShape) -> PrimFunc:
    """Items are rows, or panels of sixteen channels; scratch is `wide_x`, `acc` and `y`."""
    with kernel(symbol, **_buffers(shape)) as body:
        if shape.by_panel:
            _emit_block(
                body, shape, const(0, "int32"), const(shape.linear.rows, "int32"), (body.begin, body.end)
            )
        else:
            height = shape.height
            with loop(0, (body.end - body.begin + (height - 1)) // height) as block:
                first = bind(body.begin + block * height)
                count = bind(tirx.min(body.end - first, const(height, "int32")))
                _emit_block(body, shape, first, count, (0, shape.panels))
    return body.func


def _buffers(shape: FastShape) -> dict[str, tuple[str, int]]:
    linear, height = shape.linear, shape.height
    buffers = {
        "x": (linear.x, linear.rows * linear.depth),
        "weight": (linear.weight, shape.panels * shape.pairs * 2 * PANEL),
        "bias": ("int64" if shape.wide else "int32", shape.panels * PANEL),
        "scales": ("int64", shape.panels * 2 * GROUP_WORDS),
        "numbers": ("int64", 10),
    }
    if linear.table:
        buffers["table"] = (
            linear.table,
            65536 if linear.dtype == "int16" else 512 if shape.bytes_table else 256,
        )
    if linear.residual:
        buffers["residual"] = (linear.residual, linear.rows * linear.channels)
    buffers["wide_x"] = ("int16", height * 2 * shape.pairs)
    buffers["acc"] = ("int64" if shape.wide else "int32", height * PANEL)
    buffers["y"] = (linear.dtype, (height + 1) * PANEL)
    buffers["out"] = (linear.result, linear.rows * linear.channels)
    return buffers


def _emit_block(body: Body, shape: FastShape, first: Expr, count: Expr, panels: tuple[Expr, Expr]) -> None:
    depth = shape.linear.depth
    if shape.copies:
        with loop(0, count) as row:
            gemm.emit_widen(body["x"], (first + row) * depth, body["wide_x"], row * 2 * shape.pairs, depth)
    with loop(*panels) as panel:
        emit_products(body, shape, panel, first, count)
        column = panel_column(panel, shape.linear.channels)
        if shape.lanes:
            emit_requantize(body, shape, panel, column, first, count)
        else:
            emit_requantize_wide(body, shape, panel, column, first, count)
        _emit_fused(body, shape, column, first, count)


def panel_column(panel: Expr, channels: int) -> Expr:
    """First channel of a panel; the last panel is moved back to end with the channels."""
    return bind(tirx.min(panel * PANEL, const(channels - PANEL, "int32")))


def emit_products(body: Body, shape: FastShape, panel: Expr, first: Expr, count: Expr) -> None:
    """`acc`: the sums of all rows of the block with one panel."""
    split = shape.blocks > 1
    if split:
        with loop(0, count) as row:
            store(body["acc"], row * PANEL, load(body["bias"], panel * PANEL, PANEL), PANEL)
    pairs = shape.pairs // shape.blocks
    with loop(0, shape.blocks) as block:
        start = bind((panel * shape.pairs + block * pairs) * (2 * PANEL))

        def tile(height: int, row: Expr) -> None:
            _emit_tile(body, shape, height, (first, row), (block * pairs, pairs), start, panel)

        if shape.queued:
            gemm.emit_any_rows(count, tile)
        else:
            gemm.emit_rows(shape.linear.rows, count, tile)


def _emit_tile(
    body: Body,
    shape: FastShape,
    height: int,
    at: tuple[Expr, Expr],
    depth: tuple[Expr, int],
    start: Expr,
    panel: Expr,
) -> None:
    """`at`: first row of the block, first row of the tile in it; `depth`: first pair and number of pairs."""
    acc, bias = body["acc"], body["bias"]
    source, first = (body["wide_x"], at[1]) if shape.copies else (body["x"], at[0] + at[1])

    def begin(row: int) -> Expr:
        return (first + row) * (2 * shape.pairs) + depth[0] * 2

    def place(row: int, half: int) -> Expr:
        return (at[1] + row) * PANEL + half * LANES

    def before(row: int, half: int) -> Expr:
        """What the sum is added to: the bias, or the sum over the blocks so far, which began with it."""
        if shape.blocks > 1:
            return load(acc, place(row, half), LANES)
        return load(bias, panel * PANEL + half * LANES, LANES)

    def initial(row: int, half: int) -> Expr:
        return splat(const(0, "int32"), LANES) if shape.wide else before(row, half)

    def finish(row: int, half: int, total: Expr) -> None:
        if shape.wide:
            total = cast(total, f"int64x{LANES}") + before(row, half)
        store(acc, place(row, half), total, LANES)

    weights = (body["weight"], start)
    gemm.emit_tile(shape.isa, height, depth[1], (source, begin), weights, initial, finish)


def _target(body: Body, shape: FastShape, column: Expr, first: Expr) -> tuple[Buffer, Expr, int]:
    """Where requantized values go: (buffer, start, row stride), `y` if something follows."""
    linear = shape.linear
    if linear.table or linear.residual or shape.queued:
        return body["y"], 0, PANEL
    return body["out"], first * linear.channels + column, linear.channels


def emit_requantize(
    body: Body, shape: FastShape, panel: Expr, column: Expr, first: Expr, count: Expr
) -> None:
    """`acc` to the result's rows, or to `y`, eight channels at a time."""
    target, start, stride = _target(body, shape, column, first)
    for half in range(2):
        scale = channel_scale(body["scales"], (panel * 2 + half) * GROUP_WORDS)
        with loop(0, count) as row:
            acc = load(body["acc"], row * PANEL + half * LANES, LANES)
            y = requantize([(acc, scale.multiplier)], scale)
            store(target, start + row * stride + half * LANES, saturate(y, shape.linear.dtype), LANES)


def emit_requantize_wide(
    body: Body, shape: FastShape, panel: Expr, column: Expr, first: Expr, count: Expr
) -> None:
    """`scales` holds sixteen multipliers, then sixteen shifts, per panel."""
    target, start, stride = _target(body, shape, column, first)
    scales, zero = body["scales"], load(body["numbers"], 0)
    with loop(0, count) as row, loop(0, PANEL) as n:
        scaled = wide(load(body["acc"], row * PANEL + n)) * load(scales, panel * (2 * PANEL) + n)
        y = rescale(scaled, load(scales, panel * (2 * PANEL) + PANEL + n), zero, shape.linear.dtype)
        store(target, start + row * stride + n, y)


def _emit_fused(body: Body, shape: FastShape, column: Expr, first: Expr, count: Expr) -> None:
    linear = shape.linear
    if linear.table and shape.bytes_table:
        _emit_byte_table(body, shape, count)
    if linear.residual:
        _emit_residual(body, shape, column, first, count)
    elif linear.table:
        _emit_table(body, shape, column, first, count)


def _emit_byte_table(body: Body, shape: FastShape, count: Expr) -> None:
    """Look all of `y` up in place, two rows at a time; scratch has room for the row behind an odd number."""
    with loop(0, (count + 1) // 2) as pair:
        y = load(body["y"], pair * (2 * PANEL), 2 * PANEL)
        store(body["y"], pair * (2 * PANEL), lookup_bytes(shape.isa, body["table"], y), 2 * PANEL)


def _emit_table(body: Body, shape: FastShape, column: Expr, first: Expr, count: Expr) -> None:
    linear = shape.linear
    start = first * linear.channels + column
    with loop(0, count) as row:
        if shape.bytes_table:
            store(body["out"], start + row * linear.channels, load(body["y"], row * PANEL, PANEL), PANEL)
            return
        with loop(0, PANEL) as n:
            index = cast(load(body["y"], row * PANEL + n), "int32") - minimum(linear.dtype)
            store(body["out"], start + row * linear.channels + n, load(body["table"], index))


def _emit_residual(body: Body, shape: FastShape, column: Expr, first: Expr, count: Expr) -> None:
    linear = shape.linear
    scale = uniform_scale(body["numbers"], 1)
    b_multiplier = bind(splat(load(body["numbers"], 5), 4))
    with loop(0, count) as row:
        for half in range(2):
            start = bind((first + row) * linear.channels + column + half * LANES)
            y = _operand(body, shape, row * PANEL + half * LANES)
            other = bind(cast(load(body["residual"], start, LANES), f"int32x{LANES}"))
            total = requantize([(y, scale.multiplier), (other, (b_multiplier, b_multiplier))], scale)
            store(body["out"], start, saturate(total, linear.result), LANES)


def _operand(body: Body, shape: FastShape, at: Expr) -> Expr:
    """Eight values of the add's first operand, as int32: `y`, or the table's entries for it."""
    y = bind(cast(load(body["y"], at, LANES), f"int32x{LANES}"))
    if not shape.linear.table or shape.bytes_table:
        return y
    low = minimum(shape.linear.dtype)
    indices = [bind(cast(load(body["y"], at + i), "int32") - low) for i in range(LANES)]
    entries = [cast(load(body["table"], index), "int32") for index in indices]
    return bind(tirx.Shuffle(entries, [const(i, "int32") for i in range(LANES)]))


def lower_linear(site: Site) -> list[Launch]:
    """Launches of one linear."""
    shape = linear_shape(site)
    fast = _fast_shape(site, shape)
    if fast is None:
        attrs = numbers(site, "zero_point", *(ADD_NUMBERS if shape.residual else ()))
        constants = [_by_task(site, site.constant(i)) for i in range(1, 5)]
        fused = [site.operand(i) for i in range(5, 5 + bool(shape.table) + bool(shape.residual))]
        operands = (site.operand(0), *constants, attrs, *fused, site.result)
        made = Kernel(linear_plain_kernel, (shape,))
        return [Launch(made, operands, shape.rows, grain(shape.depth * shape.channels))]
    items, share = (fast.panels, 1) if fast.by_panel else (shape.rows, TILE_ROWS)
    return [Launch(Kernel(linear_kernel, (fast,)), _operands(site, fast), items, share)]


def linear_shape(site: Site) -> LinearShape:
    """Sizes and types of the step."""
    x, weight, bias = site.inputs[:3]
    count, depth = rows(x)
    has_table = site.attr("has_table")
    return LinearShape(
        rows=count,
        depth=depth,
        channels=weight.shape[-2],
        x=x.dtype,
        weight=weight.dtype,
        bias=bias.dtype,
        dtype=site.step.attrs["dtype"],
        table=site.inputs[5].dtype if has_table else None,
        residual=site.inputs[5 + has_table].dtype if site.attr("has_residual") else None,
        result=site.output.dtype,
    )


def _fast_shape(site: Site, linear: LinearShape) -> FastShape | None:
    """How to run on tiles, or None where that is not provably exact or not worth it."""
    if not _residual_fits(site, linear):
        return None
    return fast_shape(linear, site.isa, _matrices(site), by_panel=linear.rows < 2 * TILE_ROWS)


def fast_shape(
    linear: LinearShape, isa: Isa, matrices: Matrices, *, by_panel: bool = False, queued: bool = False
) -> FastShape | None:
    """How to run a product without residual on tiles, or None where that is not provably exact or not worth it."""
    blocks = matrices.blocks(linear.x)
    if linear.channels < PANEL or blocks is None:
        return None
    wide_acc, lanes = linear.bias == "int64", matrices.fit_lanes(linear.x)
    return FastShape(linear, isa, blocks, wide_acc, lanes, by_panel, queued)


def _matrices(site: Site) -> Matrices:
    return Matrices.of(site, 1, site.attr("zero_point"))


def _residual_fits(site: Site, linear: LinearShape) -> bool:
    if not linear.residual:
        return True
    peak = -minimum(linear.table or linear.dtype) * abs(site.attr("add_a_multiplier"))
    peak += -minimum(linear.residual) * abs(site.attr("add_b_multiplier")) + abs(site.attr("add_offset"))
    return fits(peak, site.attr("add_shift"), site.attr("add_zero_point"))


def _operands(site: Site, fast: FastShape) -> tuple[Operand, ...]:
    linear = fast.linear
    values = [site.attr("zero_point")]
    if linear.residual:
        a, b, offset, shift, zero = (site.attr(name) for name in ADD_NUMBERS)
        values += [*uniform_numbers(a, shift, zero, offset), b]
    has_table = linear.table is not None
    return (
        site.operand(0),
        *(_by_task(site, array) for array in _matrices(site).packed(fast.lanes)),
        Constant(np.array(values + [0] * (10 - len(values)), np.int64)),
        *([_table(site, fast)] if has_table else []),
        *([site.operand(5 + has_table)] if linear.residual else []),
        *scratch(fast),
        site.result,
    )


def _by_task(site: Site, array: Array) -> Operand:
    """A constant of the step, or of each of its tasks."""
    return TaskConstant(array) if task_flag(site.step.attrs) else Constant(array)


def scratch(fast: FastShape) -> tuple[Scratch, Scratch, Scratch]:
    """`wide_x`, `acc` and `y`."""
    return (
        Scratch(fast.height * fast.pairs * 4 if fast.copies else 64),
        Scratch(fast.height * PANEL * (8 if fast.wide else 4)),
        Scratch((fast.height + 1) * PANEL * 2),
    )


def _table(site: Site, fast: FastShape) -> Operand:
    return Constant(spread(site.constant(5))) if fast.bytes_table else site.operand(5)
