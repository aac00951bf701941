"""QONNX ``Quant`` nodes (Brevitas and others) -> QuantizeLinear, DequantizeLinear.

Source: the QONNX operator definitions: ``y = scale * (clip(round(x / scale + zero_point), min, max) - zero_point)``.
"""

from __future__ import annotations

import numpy as np
import onnx

from intaglio.errors import UnsupportedError
from intaglio.frontend.dialects.rewriter import Rewriter, attributes
from intaglio.frontend.load import describe

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")


def rewrite_qonnx(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite Quant; BipolarQuant and Trunc are refused by name."""
    rules = {(domain, "Quant"): _quant for domain in DOMAINS}
    rules |= {(domain, "IntQuant"): _quant for domain in DOMAINS}
    rules |= {(domain, op): _refuse for domain in DOMAINS for op in ("BipolarQuant", "Trunc", "FloatQuant")}
    Rewriter(model).apply(rules)
    return model


def _refuse(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    raise UnsupportedError(
        f"node {describe(node)}: only integer Quant nodes of 2 to 8 or 16 bits are supported"
    )


def _quant(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    x, scale_name, zero_name, bits_name = node.input
    scale, zero, bits_array = (rewriter.value(name) for name in (scale_name, zero_name, bits_name))
    if scale is None or zero is None or bits_array is None:
        raise UnsupportedError(f"node {describe(node)}: scale, zero point and bit width must be constants")
    attrs = attributes(node)
    mode = attrs.get("rounding_mode", b"ROUND").decode()
    if mode.upper() not in ("ROUND", "HALF_EVEN"):
        raise UnsupportedError(f"node {describe(node)}: rounding mode {mode!r} is not ROUND (half to even)")
    bits, signed, narrow = int(bits_array.item()), bool(attrs.get("signed", 1)), bool(attrs.get("narrow", 0))
    weight = rewriter.value(x)
    if weight is not None:
        _constant(rewriter, node, weight, scale, zero, bits, signed, narrow)
    else:
        _activation(rewriter, node, scale, zero, bits, signed, narrow)


def _limits(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    low = -(1 << (bits - 1)) if signed else 0
    high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    if narrow:
        return (low + 1, high) if signed else (low, high - 1)
    return low, high


def _axis(scale: np.ndarray, node: onnx.NodeProto) -> tuple[np.ndarray, int]:  # type: ignore[type-arg]
    """Flatten a per-channel scale of any broadcast shape to (vector, axis)."""
    if scale.size == 1:
        return scale.reshape(()), 0
    axes = [i for i, n in enumerate(scale.shape) if n > 1]
    if len(axes) != 1:
        raise UnsupportedError(
            f"node {describe(node)}: scale shape {scale.shape} is neither per tensor nor per channel"
        )
    return scale.reshape(-1), axes[0] - scale.ndim


def _constant(
    rewriter: Rewriter,
    node: onnx.NodeProto,
    weight: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray,  # type: ignore[type-arg]
    bits: int,
    signed: bool,
    narrow: bool,
) -> None:
    if not 2 <= bits <= 32:
        raise UnsupportedError(f"node {describe(node)}: {bits}-bit constants are not supported (2 to 32 are)")
    low, high = _limits(bits, signed, narrow)
    values = np.clip(np.rint(weight / scale + zero), low, high)
    name = (
        "int8"
        if low >= -128 and high <= 127
        else "uint8"
        if low >= 0 and high <= 255
        else "int16"
        if bits <= 16
        else "int32"
    )
    vector, axis = _axis(scale, node)
    zeros = np.broadcast_to(zero.reshape(-1) if zero.size > 1 else zero.reshape(()), vector.shape)
    inputs = [
        rewriter.constant(values, name),
        rewriter.constant(vector, "float32"),
        rewriter.constant(zeros, name),
    ]
    rewriter.node("DequantizeLinear", inputs, node.output[0], axis=axis + weight.ndim if axis < 0 else axis)


def _activation(
    rewriter: Rewriter,
    node: onnx.NodeProto,
    scale: np.ndarray,
    zero: np.ndarray,  # type: ignore[type-arg]
    bits: int,
    signed: bool,
    narrow: bool,
) -> None:
    if bits not in (8, 16) and not 2 <= bits <= 8:
        raise UnsupportedError(
            f"node {describe(node)}: {bits}-bit activations are not supported (2 to 8 or 16 are)"
        )
    if scale.size != 1 or zero.size != 1:
        raise UnsupportedError(f"node {describe(node)}: activations are quantized per tensor only")
    low, high = _limits(bits, signed, narrow)
    x = node.input[0]
    width = 8 if bits <= 8 else 16
    full = _limits(width, signed, False)
    if (low, high) != full:
        step = float(scale.item())
        bounds = [rewriter.constant((v - zero.item()) * step, "float32") for v in (low, high)]
        x = rewriter.node("Clip", [x, *bounds])
    dtype = f"{'' if signed else 'u'}int{width}"
    grid = [rewriter.constant(scale.item(), "float32"), rewriter.constant(zero.item(), dtype)]
    quantized = rewriter.node("QuantizeLinear", [x, *grid])
    rewriter.node("DequantizeLinear", [quantized, *grid], node.output[0])
