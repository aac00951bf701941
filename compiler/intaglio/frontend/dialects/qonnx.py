"""QONNX ``Quant`` nodes (Brevitas and others) -> QuantizeLinear, DequantizeLinear.

Source: the QONNX operator definitions: ``y = scale * (clip(round(x / scale + zero_point), min, max) - zero_point)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from intaglio.errors import UnsupportedError
from intaglio.frontend.dialects.rewriter import Rewriter, Rule, attributes
from intaglio.frontend.load import describe

Array = NDArray[Any]

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")


def rewrite_qonnx(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite Quant; BipolarQuant, Trunc and FloatQuant are refused by name."""
    rules: dict[str, Rule] = {
        "Quant": _quant,
        "IntQuant": _quant,
        "BipolarQuant": _refuse,
        "Trunc": _refuse,
        "FloatQuant": _refuse,
    }
    Rewriter(model).apply({(domain, op): rule for domain in DOMAINS for op, rule in rules.items()})
    return model


@dataclass(frozen=True)
class _Quantizer:
    """The constant operands and attributes of one Quant node."""

    scale: Array
    zero: Array
    bits: int
    signed: bool
    narrow: bool

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        low, high = _range(self.bits, self.signed)
        if self.narrow:
            return (low + 1, high) if self.signed else (low, high - 1)
        return low, high


def _refuse(_rewriter: Rewriter, node: onnx.NodeProto) -> None:
    raise UnsupportedError(
        f"node {describe(node)}: only integer Quant nodes of 2 to 8 or 16 bits are supported"
    )


def _quant(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    quantizer = _quantizer(rewriter, node)
    weight = rewriter.value(node.input[0])
    if weight is not None:
        _constant(rewriter, node, weight, quantizer)
    else:
        _activation(rewriter, node, quantizer)


def _quantizer(rewriter: Rewriter, node: onnx.NodeProto) -> _Quantizer:
    _, scale_name, zero_name, bits_name = node.input
    scale, zero, bits = (rewriter.value(name) for name in (scale_name, zero_name, bits_name))
    if scale is None or zero is None or bits is None:
        raise UnsupportedError(f"node {describe(node)}: scale, zero point and bit width must be constants")
    attrs = attributes(node)
    mode = attrs.get("rounding_mode", b"ROUND").decode()
    if mode.upper() not in ("ROUND", "HALF_EVEN"):
        raise UnsupportedError(f"node {describe(node)}: rounding mode {mode!r} is not ROUND (half to even)")
    _check(node, scale, zero, bits)
    signed, narrow = bool(attrs.get("signed", 1)), bool(attrs.get("narrow", 0))
    return _Quantizer(scale, zero, int(bits.item()), signed, narrow)


def _check(node: onnx.NodeProto, scale: Array, zero: Array, bits: Array) -> None:
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise UnsupportedError(f"node {describe(node)}: scales must be positive numbers, not {scale.min()}")
    for name, values in (("zero point", zero), ("bit width", bits)):
        if not (values == np.rint(values)).all():
            shown = values[values != np.rint(values)][0]
            raise UnsupportedError(f"node {describe(node)}: the {name} {shown} is not a whole number")
    if bits.size != 1:
        raise UnsupportedError(
            f"node {describe(node)}: one bit width for all channels is needed, not {bits.size}"
        )


def _check_zero(node: onnx.NodeProto, zero: Array, dtype: str) -> None:
    info = np.iinfo(dtype)
    if zero.min() < info.min or zero.max() > info.max:
        raise UnsupportedError(
            f"node {describe(node)}: a zero point is outside {dtype}, which holds the integers"
        )


def _range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _axis(scale: Array, node: onnx.NodeProto) -> tuple[Array, int]:
    """Flatten a per-channel scale of any broadcast shape to (vector, axis)."""
    if scale.size == 1:
        return scale.reshape(()), 0
    axes = [i for i, n in enumerate(scale.shape) if n > 1]
    if len(axes) != 1:
        raise UnsupportedError(
            f"node {describe(node)}: scale shape {scale.shape} is neither per tensor nor per channel"
        )
    return scale.reshape(-1), axes[0] - scale.ndim


def _storage(bits: int, low: int, high: int) -> str:
    """The type that a constant of these limits is stored in."""
    if low >= -128 and high <= 127:
        return "int8"
    if low >= 0 and high <= 255:
        return "uint8"
    return "int16" if bits <= 16 else "int32"


def _constant(rewriter: Rewriter, node: onnx.NodeProto, weight: Array, quantizer: _Quantizer) -> None:
    bits, scale, zero = quantizer.bits, quantizer.scale, quantizer.zero
    if not 2 <= bits <= 32:
        raise UnsupportedError(f"node {describe(node)}: {bits}-bit constants are not supported (2 to 32 are)")
    low, high = quantizer.limits
    values = np.clip(np.rint(weight / scale + zero), low, high)
    dtype = _storage(bits, low, high)
    _check_zero(node, zero, dtype)
    vector, axis = _axis(scale, node)
    zeros = np.broadcast_to(zero.reshape(-1) if zero.size > 1 else zero.reshape(()), vector.shape)
    inputs = [
        rewriter.constant(values, dtype),
        rewriter.constant(vector, "float32"),
        rewriter.constant(zeros, dtype),
    ]
    rewriter.node("DequantizeLinear", inputs, node.output[0], axis=axis + weight.ndim if axis < 0 else axis)


def _activation(rewriter: Rewriter, node: onnx.NodeProto, quantizer: _Quantizer) -> None:
    bits, scale, zero = quantizer.bits, quantizer.scale, quantizer.zero
    if bits != 16 and not 2 <= bits <= 8:
        raise UnsupportedError(
            f"node {describe(node)}: {bits}-bit activations are not supported (2 to 8 or 16 are)"
        )
    if scale.size != 1 or zero.size != 1:
        raise UnsupportedError(f"node {describe(node)}: activations are quantized per tensor only")
    width = 8 if bits <= 8 else 16
    dtype = f"{'' if quantizer.signed else 'u'}int{width}"
    _check_zero(node, zero, dtype)
    grid = [rewriter.constant(scale.item(), "float32"), rewriter.constant(zero.item(), dtype)]
    x = node.input[0]
    if quantizer.limits != _range(width, quantizer.signed):
        # Rounded to the whole type first: then the clip is a function of integers. Its bounds are on the grid.
        step = float(scale.item())
        bounds = [rewriter.constant((v - zero.item()) * step, "float32") for v in quantizer.limits]
        rounded = rewriter.node("DequantizeLinear", [rewriter.node("QuantizeLinear", [x, *grid]), *grid])
        x = rewriter.node("Clip", [rounded, *bounds])
    quantized = rewriter.node("QuantizeLinear", [x, *grid])
    rewriter.node("DequantizeLinear", [quantized, *grid], node.output[0])
