"""From what was seen of a tensor to the grid it gets: type by role, range by method."""

from __future__ import annotations

from dataclasses import dataclass
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
# Below this signal-to-noise ratio on 8 bits (dB), `auto` takes 16.
ENOUGH_DB = 20.0
# How far a range may be shrunk in search of the least error, and in how many steps.
SHRINK = np.linspace(1.0, 0.3, 29)


@dataclass(frozen=True)
class Rule:
    """What a role asks for when the type is `auto`."""

    dtype: str
    symmetric: bool


INT8 = Rule("int8", False)
INT16 = Rule("int16", True)

ROLES = {
    "linear input": INT8,
    "matmul input": Rule("int8", True),  # zero points of both operands would cost sums at run time
    "attention scores": INT8,
    "activation input": INT8,
    "softmax": INT8,
    "layernorm input": INT16,
    "residual": INT16,
    "scale input": INT16,
    "pooling input": INT16,
    "output": INT16,
}


def rule(role: str, activations: str) -> Rule:
    """The rule of `role` under the user's choice of types."""
    wanted = ROLES.get(role, INT16)
    if activations == "int16":
        return INT16
    return Rule("int8", wanted.symmetric and wanted.dtype == "int8") if activations == "int8" else wanted


@dataclass(frozen=True)
class Seen:
    """What calibration saw of one tensor: the least and greatest value, a histogram, the range the method chose."""

    low: float
    high: float
    counts: NDArray[np.int64]
    centers: Real
    clipped: tuple[float, float] | None = None


def grid(seen: Seen, wanted: Rule, activations: str) -> Grid:
    """The grid of an activation. A tensor that was always zero gets a scale of 1."""
    if wanted.dtype == "int8":
        low, high = seen.clipped or _least_error(seen, wanted.symmetric)
        chosen = _grid(low, high, "int8", wanted.symmetric)
        if activations != "auto" or decibels(seen, chosen) >= ENOUGH_DB:
            return chosen
    return _grid(seen.low * HEADROOM, seen.high * HEADROOM, "int16", True)


def decibels(seen: Seen, on: Grid) -> float:
    """Signal-to-noise ratio of rounding to `on`, from the histogram."""
    noise = _error(seen, on.scale, on.zero_point, on.minimum, on.maximum)
    signal = float(seen.counts @ seen.centers**2)
    return float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else float("inf")


def weight(values: NDArray[np.float32], axis: int, per_channel: bool) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 and its scales: one per index of `axis`, or one for all."""
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1) if per_channel else values.reshape(1, -1)
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


def _least_error(seen: Seen, symmetric: bool) -> tuple[float, float]:
    """The range with the least squared error among shrunk ones: what is cut off against what gets finer."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if symmetric:
        peak = max(-low, high)
        pairs = [(-peak * s, peak * s) for s in SHRINK]
    else:
        pairs = [(low * a, high * b) for a in (SHRINK if low < 0 else SHRINK[:1]) for b in (SHRINK if high > 0 else SHRINK[:1])]
    if low == high:
        return low, high
    return min(pairs, key=lambda pair: _pair_error(seen, pair))


def _pair_error(seen: Seen, pair: tuple[float, float]) -> float:
    step = (pair[1] - pair[0]) / 255
    return _error(seen, step, round(-128 - pair[0] / step), -128, 127)


def _error(seen: Seen, scale: float, zero: int, minimum: int, maximum: int) -> float:
    rounded = (np.clip(np.rint(seen.centers / scale) + zero, minimum, maximum) - zero) * scale
    return float(seen.counts @ (seen.centers - rounded) ** 2)
