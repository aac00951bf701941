"""moe: tokens queued by expert, each expert's two products over exactly its queue, and the weighted sum per token.

The gate fills `queue`: token * k + slot of every choice, sorted by expert, where expert e has the positions from
`offsets[e]` up to `offsets[e + 1]`. Threads share positions, so that an expert without tokens costs nothing, not even
its weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tvm import tirx

from intaglio.backends.cpu import gemm
from intaglio.backends.cpu.arith import rescale, wide
from intaglio.backends.cpu.elementwise import numbers
from intaglio.backends.cpu.exponential import row_reciprocal
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
    when,
)
from intaglio.backends.cpu.lanes import (
    GROUP_WORDS,
    LANES,
    Scale,
    fits,
    requantize,
    saturate,
    uniform_numbers,
    uniform_scale,
)
from intaglio.backends.cpu.launch import Constant, Launch, Operand, Site, Temporary, grain, rows
from intaglio.backends.cpu.linear import (
    FastShape,
    emit_products,
    emit_requantize,
    emit_requantize_wide,
    fast_shape,
    panel_column,
    scratch,
)
from intaglio.backends.cpu.matrices import Matrices
from intaglio.backends.cpu.plain import LinearShape, int32
from intaglio.backends.cpu.table import lookup_bytes, spread
from intaglio.ops.moe import E_BITS

# The route table's two factors have 16 bits each, their product is shifted to E_BITS.
_PRODUCT_SHIFT = 17


class GateShape(NamedTuple):
    """Sizes of the gate: `normalize` as the op has it."""

    tokens: int
    experts: int
    k: int
    normalize: bool
    dtype: str


def moe_gate_kernel(symbol: str, shape: GateShape) -> PrimFunc:
    """One item: all tokens. `slots`: the expert of every choice; `next`: the next free position of every expert."""
    tokens, experts, k = shape[:3]
    buffers = {
        "logits": (shape.dtype, tokens * experts),
        "table": ("uint32", 512),
        "numbers": ("int64", 1),
        "slots": ("int32", tokens * k),
        "next": ("int32", experts),
        "weights": ("int32", tokens * k),
        "reciprocals": ("int64", tokens),
        "offsets": ("int32", experts + 1),
        "queue": ("int32", tokens * k),
    }
    with kernel(symbol, **buffers) as body, loop(body.begin, body.end):
        with loop(0, experts + 1) as expert:
            store(body["offsets"], expert, const(0, "int32"))
        with loop(0, tokens) as token:
            _emit_choices(body, shape, token)
        _emit_queue(body, shape)
    return body.func


def _emit_choices(body: Body, shape: GateShape, token: Expr) -> None:
    """One token's slots and weights; its choices are counted in `offsets`, one expert further on."""
    logits, start = body["logits"], bind(token * shape.experts)
    total = Cell(const(0, "int64"), "int64")
    last_value, last_index = (Cell(const(value, "int32"), "int32") for value in (1 << 30, -1))
    top = Cell(const(0, "int32"), "int32")
    with loop(0, shape.k) as rank:
        best, index = (Cell(const(value, "int32"), "int32") for value in (-(1 << 30), 0))
        last, after = last_value.get(), last_index.get()
        with loop(0, shape.experts) as i:
            value = bind(int32(load(logits, start + i)))
            with when(((value < last) | ((value == last) & (i > after))) & (value > best.get())):
                best.set(value)
                index.set(i)
        last_value.set(best.get())
        last_index.set(index.get())
        with when(rank == 0):
            top.set(best.get())
        expert, slot = index.get(), bind(token * shape.k + rank)
        weight = _gate_weight(body, top.get() - best.get())
        store(body["slots"], slot, expert)
        store(body["weights"], slot, weight)
        store(body["offsets"], expert + 1, load(body["offsets"], expert + 1) + 1)
        if shape.normalize:
            total.set(total.get() + wide(weight))
    if not shape.normalize:
        with loop(0, shape.experts) as i:
            weight = _gate_weight(body, top.get() - int32(load(logits, start + i)))
            total.set(total.get() + wide(weight))
    store(body["reciprocals"], token, row_reciprocal(total.get(), load(body["numbers"], 0), E_BITS))


def _gate_weight(body: Body, distance: Expr) -> Expr:
    d = bind(distance)
    coarse, fine = load(body["table"], d >> 8), load(body["table"], 256 + (d & 255))
    product = wide(coarse) * wide(fine) + const(1 << (_PRODUCT_SHIFT - 1), "int64")
    return bind(int32(product >> const(_PRODUCT_SHIFT, "int64")))


def _emit_queue(body: Body, shape: GateShape) -> None:
    """Counts to offsets, then every choice to the next position of its expert, in order of tokens."""
    total = Cell(const(0, "int32"), "int32")
    with loop(0, shape.experts) as expert:
        store(body["next"], expert, total.get())
        total.set(total.get() + load(body["offsets"], expert + 1))
        store(body["offsets"], expert + 1, total.get())
    with loop(0, shape.tokens * shape.k) as slot:
        expert = load(body["slots"], slot)
        position = load(body["next"], expert)
        store(body["queue"], position, slot)
        store(body["next"], expert, position + 1)


class ExpertShape(NamedTuple):
    """One of the two products of every expert.

    `gather`: rows are tokens, by the queue, and results go to the position; else rows are positions and results go
    to the choice. `tables`: 0, 1 or one per expert.
    """

    linear: LinearShape
    experts: int
    tokens: int
    k: int
    gather: bool
    tables: int

    @property
    def buffers(self) -> dict[str, tuple[str, int]]:
        """What comes before the constants, and after them."""
        source = self.tokens if self.gather else self.linear.rows
        return {
            "x": (self.linear.x, source * self.linear.depth),
            "offsets": ("int32", self.experts + 1),
            "queue": ("int32", self.linear.rows),
        }

    def source(self, body: Body, position: Expr) -> Expr:
        """The row of x that a position reads."""
        return bind(load(body["queue"], position) // self.k) if self.gather else position

    def target(self, body: Body, position: Expr) -> Expr:
        """The row of the result that a position writes."""
        return position if self.gather else load(body["queue"], position)


def moe_product_kernel(symbol: str, shape: ExpertShape, fast: FastShape) -> PrimFunc:
    """Items are positions of the queue; scratch is `wide_x`, `acc` and `y`."""
    panels, height, linear = fast.panels, fast.height, shape.linear
    buffers = {
        **shape.buffers,
        "weight": (linear.weight, shape.experts * panels * fast.pairs * 2 * PANEL),
        "bias": ("int64" if fast.wide else "int32", shape.experts * panels * PANEL),
        "scales": ("int64", shape.experts * panels * 2 * GROUP_WORDS),
        "numbers": ("int64", 1),
        "table": ("int8", max(shape.tables, 1) * (512 if fast.bytes_table else 256)),
        "wide_x": ("int16", height * 2 * fast.pairs),
        "acc": ("int64" if fast.wide else "int32", height * PANEL),
        "y": (linear.dtype, (height + 1) * PANEL),
        "out": (linear.result, linear.rows * linear.channels),
    }
    with kernel(symbol, **buffers) as body, loop(0, shape.experts) as expert:
        begin = bind(tirx.max(body.begin, load(body["offsets"], expert)))
        end = bind(tirx.min(body.end, load(body["offsets"], expert + 1)))
        with when(end > begin), loop(0, (end - begin + (height - 1)) // height) as block:
            first = bind(begin + block * height)
            count = bind(tirx.min(end - first, const(height, "int32")))
            _emit_block(body, shape, fast, expert, first, count)
    return body.func


def _emit_block(
    body: Body, shape: ExpertShape, fast: FastShape, expert: Expr, first: Expr, count: Expr
) -> None:
    depth, channels = shape.linear.depth, shape.linear.channels
    with loop(0, count) as row:
        start = shape.source(body, first + row) * depth
        gemm.emit_widen(body["x"], start, body["wide_x"], row * 2 * fast.pairs, depth)
    with loop(0, fast.panels) as local:
        panel, column = bind(expert * fast.panels + local), panel_column(local, channels)
        emit_products(body, fast, panel, first, count)
        emit = emit_requantize if fast.lanes else emit_requantize_wide
        emit(body, fast, panel, column, first, count)
        if shape.tables:
            _emit_table(body, fast, expert if shape.tables > 1 else const(0, "int32"), count)
        with loop(0, count) as row:
            to = shape.target(body, first + row) * channels + column
            store(body["out"], to, load(body["y"], row * PANEL, PANEL), PANEL)


def _emit_table(body: Body, fast: FastShape, expert: Expr, count: Expr) -> None:
    """Look all of `y` up in place; by bytes two rows at a time, with room for the row behind an odd number."""
    if fast.bytes_table:
        with loop(0, (count + 1) // 2) as pair:
            y = load(body["y"], pair * (2 * PANEL), 2 * PANEL)
            found = lookup_bytes(fast.isa, body["table"], y, expert * 512)
            store(body["y"], pair * (2 * PANEL), found, 2 * PANEL)
        return
    with loop(0, count * PANEL) as i:
        index = int32(load(body["y"], i)) - minimum("int8")
        store(body["y"], i, load(body["table"], expert * 256 + index))


def moe_plain_kernel(symbol: str, shape: ExpertShape) -> PrimFunc:
    """`moe_product_kernel` without tiles: for every type and size."""
    linear = shape.linear
    channels, depth = linear.channels, linear.depth
    constants = {
        "weight": (linear.weight, shape.experts * channels * depth),
        "bias": (linear.bias, shape.experts * channels),
        "multiplier": ("int32", shape.experts * channels),
        "shift": ("int32", shape.experts * channels),
        "numbers": ("int64", 1),
        "table": ("int8", max(shape.tables, 1) * 256),
    }
    buffers = {**shape.buffers, **constants, "out": (linear.result, linear.rows * channels)}
    with kernel(symbol, **buffers) as body, loop(0, shape.experts) as expert:
        begin = bind(tirx.max(body.begin, load(body["offsets"], expert)))
        end = bind(tirx.min(body.end, load(body["offsets"], expert + 1)))
        with loop(begin, tirx.max(begin, end)) as position, loop(0, channels) as n:
            channel = bind(expert * channels + n)
            start = bind(shape.source(body, position) * depth)
            acc = Cell(wide(load(body["bias"], channel)), "int64")
            with loop(0, depth) as i:
                product = int32(load(body["x"], start + i)) * int32(load(body["weight"], channel * depth + i))
                acc.set(acc.get() + wide(product))
            scaled = acc.get() * wide(load(body["multiplier"], channel))
            shift = wide(load(body["shift"], channel))
            y = rescale(scaled, shift, load(body["numbers"], 0), linear.dtype)
            if shape.tables:
                table = expert * 256 if shape.tables > 1 else const(0, "int32")
                y = load(body["table"], table + int32(y) - minimum("int8"))
            store(body["out"], shape.target(body, position) * channels + n, y)
    return body.func


class SumShape(NamedTuple):
    """The weighted sum: `lanes`: eight channels at a time."""

    tokens: int
    k: int
    channels: int
    result: str
    lanes: bool


def moe_sum_kernel(symbol: str, shape: SumShape) -> PrimFunc:
    """Items are tokens. `numbers`: y's zero point, then multiplier (not used), addend, shift and last of `lanes`, or
    shift and zero point.
    """
    buffers = {
        "y": ("int8", shape.tokens * shape.k * shape.channels),
        "weights": ("int32", shape.tokens * shape.k),
        "reciprocals": ("int64", shape.tokens),
        "numbers": ("int64", 5),
        "out": (shape.result, shape.tokens * shape.channels),
    }
    width = LANES if shape.lanes else 1
    with kernel(symbol, **buffers) as body, loop(body.begin, body.end) as token:
        weights = [load(body["weights"], token * shape.k + slot) for slot in range(shape.k)]
        zero = bind(int32(load(body["numbers"], 0)))
        reciprocal = load(body["reciprocals"], token)
        with loop(0, -(-shape.channels // width)) as group:
            # The last group is moved back to end with the channels.
            column = bind(tirx.min(group * width, const(shape.channels - width, "int32")))
            acc = _weighted(body, shape, token, column, weights, zero, width)
            out = token * shape.channels + column
            if shape.lanes:
                value = saturate(requantize(*_uniform(body, acc, reciprocal)), shape.result)
            else:
                shift, last = load(body["numbers"], 1), load(body["numbers"], 2)
                value = rescale(wide(acc) * reciprocal, shift, last, shape.result)
            store(body["out"], out, value, width)
    return body.func


def _weighted(
    body: Body, shape: SumShape, token: Expr, column: Expr, weights: list[Expr], zero: Expr, width: int
) -> Expr:
    """``sum of E[e] * (y[e] - y_zero)`` over the token's slots: below 2^25."""
    dtype = "int32" if width == 1 else f"int32x{width}"
    spread_out = (lambda value: value) if width == 1 else (lambda value: splat(value, width))
    acc = None
    for slot, weight in enumerate(weights):
        y = load(body["y"], (token * shape.k + slot) * shape.channels + column, width)
        product = (cast(y, dtype) - spread_out(zero)) * spread_out(weight)
        acc = product if acc is None else acc + product
    return bind(acc)


def _uniform(body: Body, acc: Expr, reciprocal: Expr) -> tuple[list[tuple[Expr, tuple[Expr, Expr]]], Scale]:
    """`acc` times the token's reciprocal, which fits int32, with the step's shift."""
    multiplier = bind(splat(reciprocal, 4))
    return [(acc, (multiplier, multiplier))], uniform_scale(body["numbers"], 1)


def lower_moe(site: Site) -> list[Launch]:
    """Launches of one mixture of experts: gate, first product, second product, weighted sum."""
    names = ("weights", "reciprocals", "offsets", "queue", "hidden", "y")
    tokens, experts = rows(site.inputs[1])
    choices = tokens * site.attr("k")
    hidden, channels = site.inputs[3].shape[1], site.output.shape[-1]
    sizes = (choices * 4, tokens * 8, (experts + 1) * 4, choices * 4, choices * hidden, choices * channels)
    places = {name: Temporary(name, bytes_) for name, bytes_ in zip(names, sizes, strict=True)}
    return [
        _gate(site, places),
        _product(site, places, 1),
        _product(site, places, 2),
        _sum(site, places),
    ]


def _gate(site: Site, places: dict[str, Temporary]) -> Launch:
    tokens, experts = rows(site.inputs[1])
    k = site.attr("k")
    shape = GateShape(tokens, experts, k, bool(site.attr("normalize")), site.inputs[1].dtype)
    operands = (
        site.operand(1),
        site.operand(2),
        numbers(site, "multiplier"),
        Temporary("slots", tokens * k * 4),
        Temporary("next", experts * 4),
        *(places[name] for name in ("weights", "reciprocals", "offsets", "queue")),
    )
    return Launch(Kernel(moe_gate_kernel, (shape,)), operands, 1)


def _product(site: Site, places: dict[str, Temporary], which: int) -> Launch:
    """The first (gathering) or second (scattering) product of every expert."""
    first = which == 1
    tables = site.inputs[7].shape[0] if first and site.attr("has_table") else 0
    start = 3 if first else len(site.inputs) - 4
    linear = _linear_shape(site, start, "int8" if tables else None, first)
    tokens = rows(site.inputs[1])[0]
    shape = ExpertShape(linear, len(site.constant(start)), tokens, site.attr("k"), first, tables)
    matrices = Matrices.of(site, start, site.attr("hidden_zero" if first else "y_zero"))
    fast = fast_shape(linear, site.isa, matrices, queued=True)
    x, out = (site.operand(0), places["hidden"]) if first else (places["hidden"], places["y"])
    queue: tuple[Operand, ...] = (x, places["offsets"], places["queue"])
    zero = numbers(site, "hidden_zero" if first else "y_zero")
    if fast is None:
        constants = [*map(site.operand, range(start, start + 4)), zero, _tables(site, tables, by_bytes=False)]
        made, share = Kernel(moe_plain_kernel, (shape,)), grain(linear.depth * linear.channels)
        return Launch(made, (*queue, *constants, out), linear.rows, share)
    packed = map(Constant, matrices.packed(fast.lanes))
    operands = (*queue, *packed, zero, _tables(site, tables, by_bytes=fast.bytes_table), *scratch(fast), out)
    return Launch(Kernel(moe_product_kernel, (shape, fast)), operands, linear.rows, TILE_ROWS)


def _linear_shape(site: Site, start: int, table: str | None, first: bool) -> LinearShape:
    """Sizes and types of one expert's product over the whole queue."""
    weight, bias = site.inputs[start], site.inputs[start + 1]
    return LinearShape(
        rows=rows(site.inputs[1])[0] * site.attr("k"),
        depth=weight.shape[2],
        channels=weight.shape[1],
        x=site.inputs[0].dtype if first else "int8",
        weight=weight.dtype,
        bias=bias.dtype,
        dtype="int8",
        table=table,
        residual=None,
        result="int8",
    )


def _tables(site: Site, tables: int, *, by_bytes: bool) -> Operand:
    """The functions between the products; a placeholder where there are none."""
    if not tables:
        return Constant(np.zeros(256, np.int8))
    return Constant(np.stack([spread(t) for t in site.constant(7)])) if by_bytes else site.operand(7)


def _sum(site: Site, places: dict[str, Temporary]) -> Launch:
    tokens, channels = rows(site.output)
    shift, zero, y_zero = site.attr("shift") + E_BITS - 1, site.attr("zero_point"), site.attr("y_zero")
    # The weights of a token's slots sum to its total at most, and |y - y_zero| to 255.
    bound = 255 * (site.attr("multiplier") << (E_BITS - 1))
    lanes = channels >= LANES and fits(bound, shift, zero)
    values = uniform_numbers(0, shift, zero) if lanes else [shift, zero, 0, 0]
    shape = SumShape(tokens, site.attr("k"), channels, site.output.dtype, lanes)
    operands: tuple[Operand, ...] = (
        *(places[name] for name in ("y", "weights", "reciprocals")),
        Constant(np.array([y_zero, *values], np.int64)),
        site.result,
    )
    return Launch(Kernel(moe_sum_kernel, (shape,)), operands, tokens, grain(channels))
