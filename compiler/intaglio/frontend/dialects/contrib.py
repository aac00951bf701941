"""``com.microsoft`` ops that have a standard twin: Q/DQ (Quark, 16-bit ORT models), Gelu and its relatives."""

from __future__ import annotations

import math

import onnx

from intaglio.errors import UnsupportedError
from intaglio.frontend.dialects.rewriter import Rewriter, attributes
from intaglio.frontend.load import describe

DOMAIN = "com.microsoft"


def rewrite_contrib(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move the contrib twins to ai.onnx."""
    Rewriter(model).apply(
        {
            (DOMAIN, "QuantizeLinear"): _same,
            (DOMAIN, "DequantizeLinear"): _same,
            (DOMAIN, "Gelu"): _gelu,
            (DOMAIN, "FastGelu"): _fast_gelu,
            (DOMAIN, "BiasGelu"): _bias_gelu,
            (DOMAIN, "QuickGelu"): _quick_gelu,
            (DOMAIN, "FusedMatMul"): _fused_matmul,
        }
    )
    return model


def _same(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    rewriter.node(node.op_type, node.input, node.output[0], **attributes(node))


def _erf_gelu(rewriter: Rewriter, x: str, output: str) -> None:
    scaled = rewriter.node("Mul", [x, rewriter.constant(2.0**-0.5, "float32")])
    one_plus = rewriter.node("Add", [rewriter.node("Erf", [scaled]), rewriter.constant(1.0, "float32")])
    half = rewriter.node("Mul", [x, rewriter.constant(0.5, "float32")])
    rewriter.node("Mul", [half, one_plus], output)


def _gelu(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    _erf_gelu(rewriter, node.input[0], node.output[0])


def _bias_gelu(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    _erf_gelu(rewriter, rewriter.node("Add", list(node.input)), node.output[0])


def _fast_gelu(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    x = node.input[0]
    if len(node.input) > 1 and node.input[1]:
        x = rewriter.node("Add", list(node.input))
    tanh_gelu(rewriter, x, node.output[0])


def tanh_gelu(rewriter: Rewriter, x: str, output: str = "") -> str:
    """GELU's tanh form."""
    cube = rewriter.node("Mul", [rewriter.node("Mul", [x, x]), x])
    cubic = rewriter.node("Mul", [cube, rewriter.constant(0.044715, "float32")])
    total = rewriter.node("Add", [x, cubic])
    inner = rewriter.node("Mul", [total, rewriter.constant((2 / math.pi) ** 0.5, "float32")])
    one_plus = rewriter.node("Add", [rewriter.node("Tanh", [inner]), rewriter.constant(1.0, "float32")])
    half = rewriter.node("Mul", [x, rewriter.constant(0.5, "float32")])
    return rewriter.node("Mul", [half, one_plus], output)


def _quick_gelu(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    alpha = attributes(node).get("alpha", 1.702)
    scaled = rewriter.node("Mul", [node.input[0], rewriter.constant(alpha, "float32")])
    rewriter.node("Mul", [node.input[0], rewriter.node("Sigmoid", [scaled])], node.output[0])


def _fused_matmul(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    attrs = attributes(node)
    if attrs.get("transBatchA") or attrs.get("transBatchB"):
        raise UnsupportedError(f"node {describe(node)}: transBatchA and transBatchB are not supported")
    operands = list(node.input)
    for index, key in enumerate(("transA", "transB")):
        if attrs.get(key):
            rank = _rank(rewriter, operands[index], node)
            perm = [*range(rank - 2), rank - 1, rank - 2]
            operands[index] = rewriter.node("Transpose", [operands[index]], perm=perm)
    product = rewriter.node("MatMul", operands)
    rewriter.node("Mul", [product, rewriter.constant(attrs.get("alpha", 1.0), "float32")], node.output[0])


def _rank(rewriter: Rewriter, name: str, node: onnx.NodeProto) -> int:
    """Rank of `name` by the graph's own annotations."""
    for value in [*rewriter.model.graph.value_info, *rewriter.model.graph.input]:
        if value.name == name and value.type.tensor_type.HasField("shape"):
            return len(value.type.tensor_type.shape.dim)
    constant = rewriter.value(name)
    if constant is None:
        raise UnsupportedError(
            f"node {describe(node)}: the rank of {name!r} is not annotated; run ONNX shape inference"
        )
    return constant.ndim
