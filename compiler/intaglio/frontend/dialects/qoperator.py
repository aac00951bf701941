"""ONNX Runtime's QOperator form: each quantized op becomes DequantizeLinear, the float op, QuantizeLinear."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from intaglio.errors import UnsupportedError
from intaglio.frontend.dialects.contrib import DOMAIN
from intaglio.frontend.dialects.rewriter import Rewriter, Rule, attributes
from intaglio.frontend.load import describe


def rewrite_qoperator(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite QLinear* and QGemm."""
    contrib: dict[str, Rule] = {
        "QGemm": _gemm,
        "QLinearAdd": _binary("Add"),
        "QLinearMul": _binary("Mul"),
        "QLinearConcat": _concat,
        "QLinearSoftmax": _unary("Softmax", drop=("opset",)),
        "QLinearSigmoid": _unary("Sigmoid"),
        "QLinearLeakyRelu": _unary("LeakyRelu"),
        "QLinearAveragePool": _unary("AveragePool", drop=("channels_last",)),
        "QLinearGlobalAveragePool": _unary("GlobalAveragePool", drop=("channels_last",)),
        "QLinearReduceMean": _unary("ReduceMean"),
        "DynamicQuantizeMatMul": _dynamic,
        "DynamicQuantizeLSTM": _dynamic,
        "MatMulIntegerToFloat": _dynamic,
    }
    rules: dict[tuple[str, str], Rule] = {(DOMAIN, name): rule for name, rule in contrib.items()}
    rules |= {
        ("", "QLinearMatMul"): _matmul,
        ("", "QLinearConv"): _conv,
        ("", "DynamicQuantizeLinear"): _dynamic,
        ("", "MatMulInteger"): _dynamic,
        ("", "ConvInteger"): _dynamic,
    }
    Rewriter(model).apply(rules)
    return model


def _dequantize(rewriter: Rewriter, x: str, scale: str, zero: str, axis: int = 0) -> str:
    scales = rewriter.value(scale)
    attrs: dict[str, Any] = {"axis": axis} if scales is not None and scales.size > 1 else {}
    return rewriter.node("DequantizeLinear", [x, scale, zero] if zero else [x, scale], **attrs)


def _matmul(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.input
    operands = [_dequantize(rewriter, a, a_scale, a_zero), _dequantize(rewriter, b, b_scale, b_zero, axis=1)]
    product = rewriter.node("MatMul", operands)
    rewriter.node("QuantizeLinear", [product, y_scale, y_zero], node.output[0])


def _bias(rewriter: Rewriter, bias: str, x_scale: str, w_scale: str) -> str:
    """int32 bias on the accumulator's grid, x_scale * w_scale."""
    x, w = rewriter.value(x_scale), rewriter.value(w_scale)
    if x is None or w is None:
        raise UnsupportedError(f"scales {x_scale!r} and {w_scale!r} must be constants")
    scale = rewriter.constant((x.astype(np.float64) * w.astype(np.float64)).squeeze(), "float32")
    return rewriter.node("DequantizeLinear", [bias, scale], axis=0)


def _conv(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.input[:8]
    inputs = [_dequantize(rewriter, x, x_scale, x_zero), _dequantize(rewriter, w, w_scale, w_zero)]
    if len(node.input) > 8 and node.input[8]:
        inputs.append(_bias(rewriter, node.input[8], x_scale, w_scale))
    product = rewriter.node("Conv", inputs, **attributes(node))
    rewriter.node("QuantizeLinear", [product, y_scale, y_zero], node.output[0])


def _gemm(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, c = node.input[:7]
    attrs = attributes(node)
    axis = 0 if attrs.get("transB", 0) else 1
    inputs = [_dequantize(rewriter, a, a_scale, a_zero), _dequantize(rewriter, b, b_scale, b_zero, axis)]
    if c:
        inputs.append(_bias(rewriter, c, a_scale, b_scale))
    if len(node.input) < 8 or not node.input[7]:
        rewriter.node("Gemm", inputs, node.output[0], **attrs)
        return
    product = rewriter.node("Gemm", inputs, **attrs)
    rewriter.node("QuantizeLinear", [product, *node.input[7:9]], node.output[0])


def _binary(op: str) -> Rule:
    def rule(rewriter: Rewriter, node: onnx.NodeProto) -> None:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale = node.input[:7]
        y_zero = list(node.input[7:8])
        operands = [_dequantize(rewriter, a, a_scale, a_zero), _dequantize(rewriter, b, b_scale, b_zero)]
        rewriter.node("QuantizeLinear", [rewriter.node(op, operands), y_scale, *y_zero], node.output[0])

    return rule


def _unary(op: str, drop: tuple[str, ...] = ()) -> Rule:
    def rule(rewriter: Rewriter, node: onnx.NodeProto) -> None:
        attrs: dict[str, Any] = {k: v for k, v in attributes(node).items() if k not in drop}
        if attributes(node).get("channels_last"):
            raise UnsupportedError(
                f"node {describe(node)}: channels_last is not supported; export it channels first"
            )
        x, x_scale, x_zero, y_scale = node.input[:4]
        result = rewriter.node(op, [_dequantize(rewriter, x, x_scale, x_zero)], **attrs)
        rewriter.node("QuantizeLinear", [result, y_scale, *node.input[4:5]], node.output[0])

    return rule


def _concat(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    y_scale, y_zero, *rest = node.input
    parts = [_dequantize(rewriter, *rest[i : i + 3]) for i in range(0, len(rest), 3)]
    joined = rewriter.node("Concat", parts, **attributes(node))
    rewriter.node("QuantizeLinear", [joined, y_scale, y_zero], node.output[0])


def _dynamic(_rewriter: Rewriter, node: onnx.NodeProto) -> None:
    raise UnsupportedError(
        f"node {describe(node)}: dynamic quantization computes scales in floating point at run time; "
        "quantize the float model statically with `intaglio quantize --calibrate`"
    )
