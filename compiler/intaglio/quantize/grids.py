"""From what was seen of a tensor to the grid it gets: type by role, range by method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime.quantization.quant_utils import compute_scale_zp, get_qmin_qmax_for_qType

from intaglio.ops.base import Grid

Real = NDArray[np.float64]

METHODS = ("mse", "minmax", "percentile", "entropy")
ACTIVATIONS = ("auto", "int8", "int16")

# How far 16-bit ranges reach beyond what calibration saw: one bit of 15, and new images do not saturate.
HEADROOM = 2.0
# Below these signal-to-noise ratios on 8 bits (dB), `auto` takes 16. Scores: of exp(score), a step of 0.2.
ENOUGH_DB = 20.0
ENOUGH_SCORES_DB = 25.0
BULK = 0.99
# Error norm of `mse`: more than 2, as what is cut off costs more than its squares say (Nahshan et al., LAPQ, 2021).
NORM = 2.4
# How far a range may be shrunk in search of the least error, and in how many steps.
SHRINK = np.linspace(1.0, 0.3, 29)


@dataclass(frozen=True)
class Rule:
    """What a role asks for when the type is `auto`. `exponent`: the values are read as exponents, the largest count.

    `fixed`: the integer op takes no other type.
    """

    dtype: str
    symmetric: bool
    exponent: bool = False
    fixed: bool = False


INT8 = Rule("int8", False)
INT16 = Rule("int16", True)

ROLES = {
    "linear input": INT8,
    "matmul input": Rule("int8", True),  # zero points of both operands would cost sums at run time
    "attention scores": Rule("int8", False, exponent=True),
    "activation input": INT8,
    "softmax": INT8,
    "layernorm input": INT16,
    "residual": INT16,
    "scale input": INT16,
    "pooling input": INT16,
    "output": INT16,
    "gate logits": INT16,
    "expert": Rule("int8", False, fixed=True),
}


def rule(role: str, activations: str) -> Rule:
    """The rule of `role` under the user's choice of types."""
    wanted = ROLES.get(role, INT16)
    if wanted.fixed:
        return wanted
    if activations == "int16":
        return INT16
    return replace(wanted, dtype="int8") if activations == "int8" else wanted


@dataclass(frozen=True)
class Seen:
    """What calibration saw of one tensor: the least and greatest value, a histogram, the range the method chose."""

    low: float
    high: float
    counts: NDArray[np.int64]
    centers: Real
    clipped: tuple[float, float] | None = None


def grid(seen: Seen, wanted: Rule, activations: str, method: str) -> Grid:
    """The grid of an activation. A tensor that was always zero gets a scale of 1."""
    if wanted.dtype == "int8":
        low, high = _range(seen, wanted, method)
        chosen = _grid(low, high, "int8", wanted.symmetric)
        if wanted.fixed or activations != "auto" or _enough(seen, chosen, wanted):
            return chosen
    return _grid(seen.low * HEADROOM, seen.high * HEADROOM, "int16", True)


def _enough(seen: Seen, chosen: Grid, wanted: Rule) -> bool:
    if wanted.exponent:  # rounding by up to half a step multiplies exp(score) by 1 + noise
        return float(20 * np.log10(12**0.5 / chosen.scale)) >= ENOUGH_SCORES_DB
    return decibels(seen, chosen) >= ENOUGH_DB


def decibels(seen: Seen, on: Grid) -> float:
    """Signal-to-noise ratio of rounding to `on`, from the histogram.

    The largest values count as much as the 99th percentile: a few huge ones must not hide that all others are lost.
    """
    noise = float(seen.counts @ _errors(seen, on.scale, on.zero_point, on.minimum, on.maximum) ** 2)
    sizes = np.abs(seen.centers)
    order = np.argsort(sizes)
    ranks = np.cumsum(seen.counts[order])
    bulk = sizes[order][np.searchsorted(ranks, BULK * ranks[-1])]
    signal = float(seen.counts @ np.minimum(sizes, bulk) ** 2)
    return float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else float("inf")


def weight(
    values: NDArray[np.float32], axis: int, per_channel: bool
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 and its scales: one per index of `axis`, or one for all."""
    rows = (
        np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1) if per_channel else values.reshape(1, -1)
    )
    peak = np.abs(rows).max(axis=1).astype(np.float64)
    scale = np.where(peak > 0, peak / 127, 1.0).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    shape = [-1 if i == axis else 1 for i in range(values.ndim)] if per_channel else [1] * values.ndim
    integers = np.clip(np.rint(values / scale.reshape(shape)), -127, 127).astype(np.int8)
    return integers, scale if per_channel else scale.reshape(())


def _grid(low: float, high: float, dtype: str, symmetric: bool) -> Grid:
    """ONNX Runtime's rule: the range holds zero, which is a point of the grid."""
    code = {"int8": TensorProto.INT8, "int16": TensorProto.INT16}[dtype]
    limits: list[Any] = [np.asarray(v) for v in get_qmin_qmax_for_qType(code, symmetric=symmetric)]
    bounds = [np.asarray(v, np.float32) for v in (min(low, 0.0), max(high, 0.0))]
    zero, scale = compute_scale_zp(*bounds, *limits, symmetric=symmetric)
    return Grid(float(np.float32(scale)), int(zero), dtype)


def _range(seen: Seen, wanted: Rule, method: str) -> tuple[float, float]:
    if method == "minmax" or wanted.exponent:
        return seen.low, seen.high
    return seen.clipped or _least_error(seen, wanted.symmetric)


def _least_error(seen: Seen, symmetric: bool) -> tuple[float, float]:
    """The range with the least error among shrunk ones: what is cut off against what gets finer."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if low == high:
        return low, high
    if symmetric:
        peak = max(-low, high)
        pairs = [(-peak * part, peak * part) for part in SHRINK]
    else:
        below, above = (SHRINK if bound else SHRINK[:1] for bound in (low, high))
        pairs = [(low * a, high * b) for a in below for b in above]
    return min(pairs, key=lambda pair: _cost(seen, pair))


def _cost(seen: Seen, pair: tuple[float, float]) -> float:
    step = (pair[1] - pair[0]) / 255
    return float(seen.counts @ _errors(seen, step, round(-128 - pair[0] / step), -128, 127) ** NORM)


def _errors(seen: Seen, scale: float, zero: int, minimum: int, maximum: int) -> Real:
    rounded = (np.clip(np.rint(seen.centers / scale) + zero, minimum, maximum) - zero) * scale
    return np.abs(seen.centers - rounded)
