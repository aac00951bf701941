"""ai.onnx ``Attention`` (opset 23 and later) -> MatMul, Softmax, MatMul."""

from __future__ import annotations

import onnx

from intaglio.errors import UnsupportedError
from intaglio.frontend.dialects.rewriter import Rewriter, attributes
from intaglio.frontend.load import describe

MODES = ("is_causal", "softcap")


def expand_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Expand plain scaled dot-product attention; masks, caches and soft caps are refused by name."""
    Rewriter(model).apply({("", "Attention"): _expand})
    return model


def _expand(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    attrs = attributes(node)
    extras = [name for name in node.input[3:] if name] + [name for name in node.output[1:] if name]
    modes = [mode for mode in MODES if attrs.get(mode)]
    if extras or modes:
        raise UnsupportedError(
            f"node {describe(node)}: attention with {', '.join(extras + modes)} is not supported; "
            "export plain scaled dot-product attention (no mask, no cache)"
        )
    q, k, v = node.input[:3]
    heads, kv_heads = attrs.get("q_num_heads", 0), attrs.get("kv_num_heads", 0)
    if heads != kv_heads:
        raise UnsupportedError(f"node {describe(node)}: grouped-query attention is not supported")
    if heads:
        q, v = (_split(rewriter, x, heads, [0, 2, 1, 3]) for x in (q, v))
        k = _split(rewriter, k, heads, [0, 2, 3, 1])
    else:
        k = rewriter.node("Transpose", [k], perm=[0, 1, 3, 2])
    scores = _scaled(rewriter, rewriter.node("MatMul", [q, k]), q, attrs.get("scale"))
    probabilities = rewriter.node("Softmax", [scores], axis=-1)
    if not heads:
        rewriter.node("MatMul", [probabilities, v], node.output[0])
        return
    joined = rewriter.node("Transpose", [rewriter.node("MatMul", [probabilities, v])], perm=[0, 2, 1, 3])
    rewriter.node("Reshape", [joined, rewriter.constant([0, 0, -1], "int64")], node.output[0])


def _split(rewriter: Rewriter, x: str, heads: int, perm: list[int]) -> str:
    split = rewriter.node("Reshape", [x, rewriter.constant([0, 0, heads, -1], "int64")])
    return rewriter.node("Transpose", [split], perm=perm)


def _scaled(rewriter: Rewriter, scores: str, q: str, scale: float | None) -> str:
    if scale is not None:
        return rewriter.node("Mul", [scores, rewriter.constant(scale, "float32")])
    depth = rewriter.node("Shape", [q], start=-1)
    root = rewriter.node("Sqrt", [rewriter.node("Cast", [depth], to=onnx.TensorProto.FLOAT)])
    return rewriter.node("Div", [scores, root])
