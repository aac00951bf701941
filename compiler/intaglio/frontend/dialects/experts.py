"""``com.microsoft`` ``MoE`` and ``QMoE`` -> an MLP per expert and one mixture (`moe/mixture.py`).

The meaning is that of ONNX Runtime's CPU kernels: GELU is its tanh form, and QMoE's weights are renormalised whatever
`normalize_routing_weights` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from intaglio.errors import UnsupportedError
from intaglio.frontend.dialects.contrib import DOMAIN, tanh_gelu
from intaglio.frontend.dialects.rewriter import Rewriter, attributes
from intaglio.frontend.load import describe
from intaglio.frontend.moe import mixture

ACTIVATIONS = ("relu", "gelu", "silu", "identity")
BITS = (4, 8)
REFUSED = ("use_sparse_mixer", "block_size", "swiglu_fusion")

MOE_INPUTS = ("x", "logits", "w1", "b1", "w2", "b2")
QMOE_INPUTS = ("x", "logits", "w1", "s1", "b1", "w2", "s2", "b2")


def rewrite_experts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write out MoE and QMoE; gated experts, block-wise scales and zero points are refused by name."""
    Rewriter(model).apply({(DOMAIN, "MoE"): _moe, (DOMAIN, "QMoE"): _qmoe})
    return mixture.declare(model)


@dataclass(frozen=True)
class _Experts:
    """Constants of all experts by the name of their operand (`MOE_INPUTS`), and what the attributes say."""

    node: onnx.NodeProto
    constants: dict[str, NDArray[Any]]
    activation: str
    k: int
    normalize: bool
    bits: int = 0


def _moe(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    attrs = attributes(node)
    normalize = bool(attrs.get("normalize_routing_weights", 0))
    _write(rewriter, _experts(rewriter, node, attrs, MOE_INPUTS, normalize))


def _qmoe(rewriter: Rewriter, node: onnx.NodeProto) -> None:
    attrs = attributes(node)
    bits = attrs.get("expert_weight_bits", 4)
    kind = attrs.get("quant_type", b"int").decode()
    widths = {attrs.get(f"fc{which}_expert_weight_bits", 0) or bits for which in (1, 2)}
    if kind != "int" or widths - set(BITS) or len(widths) > 1:
        raise UnsupportedError(
            f"node {describe(node)}: weights of {sorted(widths)} bits, quantized as {kind!r}, are not supported; "
            "use quant_type int with 4 or 8 bits"
        )
    _write(rewriter, _experts(rewriter, node, attrs, QMOE_INPUTS, True, bits))


def _experts(
    rewriter: Rewriter,
    node: onnx.NodeProto,
    attrs: dict[str, Any],
    names: tuple[str, ...],
    normalize: bool,
    bits: int = 0,
) -> _Experts:
    """Check what `node` asks for and read its constants. Raises UnsupportedError."""
    activation = attrs.get("activation_type", b"relu").decode()
    if activation not in ACTIVATIONS:
        raise UnsupportedError(
            f"node {describe(node)}: experts with {activation!r} are gated or unknown; intaglio takes two-layer MLPs "
            f"with {', '.join(ACTIVATIONS)}"
        )
    extras = [name for name in node.input[len(names) :] if name] + [key for key in REFUSED if attrs.get(key)]
    if extras:
        raise UnsupportedError(
            f"node {describe(node)}: {', '.join(extras)} of a mixture of experts is not supported; intaglio takes "
            "two-layer MLPs with symmetric weights"
        )
    given = dict(zip(names, node.input, strict=False))
    constants = {}
    for name in names[2:]:
        if given.get(name):
            value = rewriter.value(given[name])
            if value is None:
                raise UnsupportedError(
                    f"node {describe(node)}: {given[name]!r} is computed; intaglio takes constants there"
                )
            constants[name] = value
    k = attrs.get("k", 1)
    if not 1 <= k <= mixture.MAX_K:
        raise UnsupportedError(
            f"node {describe(node)}: a mixture of experts takes the 1 to {mixture.MAX_K} best experts, not {k}"
        )
    return _Experts(node, constants, activation, k, normalize, bits)


def _write(rewriter: Rewriter, experts: _Experts) -> None:
    node = experts.node
    x, logits = node.input[:2]
    w1 = _integers(experts, "w1") if experts.bits else experts.constants["w1"]
    rows = rewriter.node("Reshape", [x, rewriter.constant([-1, w1.shape[-1]], "int64")])
    results = []
    for index in range(len(w1)):
        hidden = _layer(rewriter, experts, 1, index, rows)
        hidden = _activated(rewriter, experts.activation, hidden)
        results.append(_layer(rewriter, experts, 2, index, hidden))
    mixed = f"{node.output[0]}/mixed"
    rewriter.keep(mixture.node(logits, results, mixed, k=experts.k, normalize=experts.normalize))
    shape = rewriter.node("Shape", [x])
    rewriter.node("Reshape", [mixed, shape], node.output[0])


def _layer(rewriter: Rewriter, experts: _Experts, which: int, index: int, x: str) -> str:
    """Product `which` of expert `index`, with its bias."""
    if experts.bits:
        integers = rewriter.constant(_integers(experts, f"w{which}")[index], "int8")
        scale = rewriter.constant(_scales(experts, f"s{which}")[index], "float32")
        zero = rewriter.constant(np.zeros(_scales(experts, f"s{which}")[index].shape), "int8")
        weight = rewriter.node("DequantizeLinear", [integers, scale, zero], axis=0)
        weight = rewriter.node("Transpose", [weight], perm=[1, 0])
    else:
        weight = rewriter.constant(experts.constants[f"w{which}"][index].T, "float32")
    product = rewriter.node("MatMul", [x, weight])
    bias = experts.constants.get(f"b{which}")
    return (
        product
        if bias is None
        else rewriter.node("Add", [product, rewriter.constant(bias[index], "float32")])
    )


def _activated(rewriter: Rewriter, activation: str, x: str) -> str:
    match activation:
        case "relu":
            return rewriter.node("Relu", [x])
        case "silu":
            return rewriter.node("Mul", [x, rewriter.node("Sigmoid", [x])])
        case "gelu":
            return tanh_gelu(rewriter, x)
    return x


def _integers(experts: _Experts, name: str) -> NDArray[np.int8]:
    """Signed weights [E, N, K]: stored unsigned around half the range; of 4 bits, two per byte, the low ones first."""
    stored = experts.constants[name].astype(np.uint8)
    if experts.bits == 4:
        pairs = np.stack([stored & 15, stored >> 4], axis=-1)
        stored = pairs.reshape(*stored.shape[:-1], -1)
    half = 1 << (experts.bits - 1)
    return (stored.astype(np.int16) - half).astype(np.int8)


def _scales(experts: _Experts, name: str) -> NDArray[Any]:
    """One scale per expert and channel [E, N]. Raises UnsupportedError for others."""
    scales = experts.constants.get(name)
    if scales is None or scales.ndim != 2:
        raise UnsupportedError(
            f"node {describe(experts.node)}: its weights need one scale per expert and output channel"
        )
    return scales
