"""layernorm: exact integer mean, variance, square root and reciprocal, one row at a time."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from intaglio.backends.cpu.arith import rescale, round_shift, wide
from intaglio.backends.cpu.elementwise import numbers
from intaglio.backends.cpu.ir import (
    Buffer,
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
    splat,
    store,
)
from intaglio.backends.cpu.lanes import (
    BIAS,
    GROUP_WORDS,
    LANES,
    Scale,
    channel_scale,
    fits,
    pack_scales,
    requantize,
    saturate,
)
from intaglio.backends.cpu.launch import Constant, Launch, Operand, Site, grain, rows

# sqrt(2^61) / 2 and 2^16 / sqrt(2): the tangent of the square root at 2^61, with V scaled by 2^-31.
_TANGENT_OFFSET = 759250125
_TANGENT_SLOPE = 46341


def int64(value: int) -> Expr:
    """An int64 constant."""
    return const(value, "int64")


def isqrt(value: Expr) -> Expr:
    """Floor of the square root, exact, of ``2^60 <= value < 2^62``.

    The tangent is at most 6.1 % too high; Newton steps square and halve the relative error (to 1.9e-3, 1.7e-6 and
    1.5e-12, less than one unit of a 31-bit root) and never fall below the floor, so one correction remains.
    """
    root = bind((((value >> int64(31)) * int64(_TANGENT_SLOPE)) >> int64(16)) + int64(_TANGENT_OFFSET + 1))
    for _ in range(3):
        root = bind((root + tirx.truncdiv(value, root)) >> int64(1))
    return bind(root - tirx.Select(root * root > value, int64(1), int64(0)))


def layernorm_kernel(
    symbol: str, count: int, columns: int, source: str, rounded: bool, result: str
) -> PrimFunc:
    """Items are rows. `numbers`: eps, shift, zero_point."""
    buffers = {
        "x": (source, count * columns),
        "gain": ("int32", columns),
        "offset": ("int64", columns),
        "numbers": ("int64", 3),
        "out": (result, count * columns),
    }
    with kernel(symbol, **buffers) as body:
        x, gain, offset, attrs, out = body.buffers(*buffers)
        eps, shift, zero = (load(attrs, i) for i in range(3))
        with loop(body.begin, body.end) as row:
            total, variance = _moments(x, row * columns, columns, rounded)
            j, r = _reciprocal(bind(variance + eps))
            with loop(0, columns) as i:
                centred = wide(load(x, row * columns + i)) * columns - total
                y = round_shift(centred * r, int64(34) - j)
                scaled = y * wide(load(gain, i)) + load(offset, i)
                store(out, row * columns + i, rescale(scaled, shift, zero, result))
    return body.func


def layernorm_lanes_kernel(
    symbol: str, count: int, columns: int, source: str, rounded: bool, result: str
) -> PrimFunc:
    """As `layernorm_kernel` for whole groups of eight channels; `scales` as `lanes.pack_scales`. `numbers`: eps."""
    buffers = {
        "x": (source, count * columns),
        "scales": ("int64", columns // LANES * GROUP_WORDS),
        "numbers": ("int64", 1),
        "out": (result, count * columns),
    }
    with kernel(symbol, **buffers) as body, loop(body.begin, body.end) as row:
        x = body["x"]
        total, variance = _moments(x, row * columns, columns, rounded)
        j, r = _reciprocal(bind(variance + load(body["numbers"], 0)))
        normal = _row_scale(r, bind(int64(34) - j))
        mean = bind(splat(cast(total, "int32"), LANES))
        with loop(0, columns // LANES) as group:
            at = row * columns + group * LANES
            value = cast(load(x, at, LANES), f"int32x{LANES}")
            centred = bind(value * splat(const(columns, "int32"), LANES) - mean)
            y = requantize([(centred, normal.multiplier)], normal)
            scale = channel_scale(body["scales"], group * GROUP_WORDS)
            store(body["out"], at, saturate(requantize([(y, scale.multiplier)], scale), result), LANES)
    return body.func


def _row_scale(r: Expr, shift: Expr) -> Scale:
    """``round_shift(centred * r, shift)``."""
    by_r, by_shift = bind(splat(r, 4)), bind(splat(shift, 4))
    rounding = bind(splat((int64(1) << (shift - 1)) + int64(BIAS), 4))
    last = bind(splat(cast(int64(0) - (int64(BIAS) >> shift), "int32"), LANES))
    return Scale((by_r, by_r), (rounding, rounding), (by_shift, by_shift), last)


def _moments(x: Buffer, start: Expr, columns: int, rounded: bool) -> tuple[Expr, Expr]:
    """The row's sum (of the rounded mean, if `rounded`) and C^2 times its variance."""
    # Squares of int8 sum up to 2^26 over 4096 channels.
    dtype = "int32" if x.dtype == "int8" else "int64"
    total, squares = Cell(const(0, "int32"), "int32"), Cell(const(0, dtype), dtype)
    with loop(0, columns) as i:
        value = bind(cast(load(x, start + i), "int32"))
        total.set(total.get() + value)
        squares.set(squares.get() + cast(value * value, dtype))
    s, ss = bind(wide(total.get())), bind(wide(squares.get()))
    if not rounded:
        return s, bind(ss * columns - s * s)
    mean = bind(tirx.floordiv(s * 2 + columns, int64(2 * columns)))
    # sum (x - m)^2 = sum x^2 - 2 m sum x + C m^2
    return bind(mean * columns), bind((ss - mean * s * 2 + mean * mean * columns) * columns)


def _reciprocal(variance: Expr) -> tuple[Expr, Expr]:
    """(j, 2^54 // isqrt(variance * 4^j)); a variance of 0 counts as 1, which leaves centred values of 0 alone."""
    safe = bind(tirx.max(variance, int64(1)))
    # The bit length L gives j = floor((62 - L) / 2), with L = 64 - leading zeros.
    j = bind((wide(tirx.clz(safe)) - 2) >> int64(1))
    return j, bind(tirx.truncdiv(int64(1 << 54), isqrt(safe << (j * 2))))


def lower_layernorm(site: Site) -> list[Launch]:
    """Launches of one layernorm."""
    x = site.inputs[0]
    count, columns = rows(x)
    rounded = site.step.attrs["mean"] == "rounded"
    shape = (count, columns, x.dtype, rounded, site.output.dtype)
    if columns % LANES == 0 and _lanes_fit(site):
        shift = np.full(columns, site.attr("shift"))
        scales = pack_scales(site.constant(1), shift, site.attr("zero_point"), site.constant(2))
        made = Kernel(layernorm_lanes_kernel, shape)
        operands: tuple[Operand, ...] = (site.operand(0), Constant(scales), numbers(site, "eps"), site.result)
    else:
        made = Kernel(layernorm_kernel, shape)
        attrs = numbers(site, "eps", "shift", "zero_point")
        operands = (site.operand(0), site.operand(1), site.operand(2), attrs, site.result)
    return [Launch(made, operands, count, grain(columns))]


def _lanes_fit(site: Site) -> bool:
    """A normalized value is below sqrt(C) <= 2^6, with 20 fractional bits."""
    gain, offset = (np.abs(site.constant(i).astype(object)) for i in (1, 2))
    return fits(gain * (1 << 27) + offset, site.attr("shift"), site.attr("zero_point"))
