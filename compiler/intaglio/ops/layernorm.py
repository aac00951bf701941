"""layernorm: integer LayerNorm over the last axis, with an exact integer square root.

Accuracy: sqrt and reciprocal are within 2^-22 relative, the normalized value within 2^-21 absolute, so the output
is within 1 LSB of the QDQ value. eps is rounded to a whole number of C^2 steps^2; for rows with a single differing
element of 1 LSB and C < 64 that alone may cost 1 LSB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from intaglio.ops.arith import (
    Int64,
    bit_length,
    clamp,
    isqrt,
    multiplier_bits,
    round_shift,
    scaled,
    shared_shift,
)
from intaglio.ops.base import (
    ACTIVATIONS,
    Array,
    Attrs,
    Built,
    Cost,
    Grid,
    IntegerOp,
    TensorType,
    check_count,
    check_dtype,
    check_rank,
    check_type,
    choice,
    integer,
    output_grid,
)
from intaglio.ops.exponential import NONLINEAR

MAX_CHANNELS = 4096
_EPS_LIMIT = 1 << 61
_FRACTION_BITS = 20


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: x [.., C], gain int32 [C], offset int64 [C] -> [.., C]."""
    check_count("layernorm", types, 3)
    check_dtype("layernorm", "x", types[0], ACTIVATIONS)
    check_rank("layernorm", "x", types[0], 1)
    channels = types[0].shape[-1]
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"layernorm: the last axis must have 1..{MAX_CHANNELS} elements, not {channels}.")
    check_type("layernorm", "gain", types[1], ("int32",), (channels,))
    check_type("layernorm", "offset", types[2], ("int64",), (channels,))
    integer("layernorm", attrs, "eps", 0, _EPS_LIMIT)
    integer("layernorm", attrs, "shift", 1, 62)
    choice("layernorm", attrs, "mean", ("exact", "rounded"))
    return TensorType(types[0].shape, output_grid("layernorm", attrs))


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """``(x - mean) / sqrt(var + eps)`` to 20 fractional bits, then gain and offset."""
    x, gain, offset = (array.astype(np.int64) for array in inputs)
    y = _normalize(*_moments(x, attrs["mean"] == "rounded", attrs["eps"]))
    return clamp(round_shift(y * gain + offset, attrs["shift"]) + attrs["zero_point"], attrs["dtype"])


def _moments(x: Int64, rounded: bool, eps: int) -> tuple[Int64, Int64]:
    """C times the deviation from the mean, and C^2 times the variance plus eps; both below 2^62."""
    channels = x.shape[-1]
    total = x.sum(axis=-1, keepdims=True)
    if not rounded:
        squares = (x * x).sum(axis=-1, keepdims=True)
        return channels * x - total, channels * squares - total * total + eps
    deviation = x - (2 * total + channels) // (2 * channels)
    return channels * deviation, channels * (deviation * deviation).sum(axis=-1, keepdims=True) + eps


def _normalize(centred: Int64, variance: Int64) -> Int64:
    """``centred / sqrt(variance)`` with 20 fractional bits; 0 where the variance is 0 (centred is 0 there too)."""
    safe = np.maximum(variance, 1)
    j = (62 - bit_length(safe)) >> 1
    r = (np.int64(1) << np.int64(54)) // isqrt(safe << (2 * j))
    return round_shift(centred * r, 54 - _FRACTION_BITS - j)


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    rows = int(np.prod(out.shape[:-1], dtype=np.int64))
    return Cost(
        multiplies=3 * out.size,
        divides=2 * rows,
        bytes_weights=types[1].nbytes + types[2].nbytes,
        bytes_moved=types[0].nbytes + out.nbytes,
    )


def parameters(
    x: Grid,
    gamma: NDArray[np.float64],
    beta: NDArray[np.float64] | None,
    epsilon: float,
    out: Grid,
    nonlinear: str = "exact",
) -> Built:
    """Constants (gain, offset) and attributes; `gamma`, `beta`: real [C]; `nonlinear`: exact or ivit.

    Raises ValueError where epsilon is so large against x's scale that eps would not fit 61 bits.
    """
    if nonlinear not in NONLINEAR:
        raise ValueError(f"layernorm: nonlinear must be exact or ivit, not {nonlinear!r}.")
    gamma = np.asarray(gamma, np.float64)
    real_eps = epsilon * gamma.size**2 / x.scale**2 if nonlinear == "exact" else 0.0
    if not real_eps <= _EPS_LIMIT:
        raise ValueError(f"layernorm: epsilon {epsilon!r} is too large against the input scale {x.scale!r}.")
    ratio = gamma / (out.scale * 2.0**_FRACTION_BITS)
    shift = shared_shift(ratio, multiplier_bits(out.dtype))
    offset = np.zeros(gamma.shape) if beta is None else np.asarray(beta, np.float64) / out.scale
    attrs = {
        "eps": int(np.rint(real_eps)),
        "shift": shift,
        "zero_point": out.zero_point,
        "dtype": out.dtype,
        "mean": "exact" if nonlinear == "exact" else "rounded",
    }
    return Built([scaled(ratio, shift).astype(np.int32), scaled(offset, shift)], attrs)


OP = IntegerOp(
    "layernorm", "LayerNorm over the last axis with an exact integer square root.", infer, reference, cost
)
