"""QCDQ (Brevitas): a Clip between QuantizeLinear and DequantizeLinear, for activations of fewer bits than their type.

It clips integers: it becomes a clip of the real values that they stand for, between Q/DQ pairs on the same grid.
"""

from __future__ import annotations

import numpy as np
import onnx

from intaglio.frontend.dialects.rewriter import Rewriter


def rewrite_qcdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite Clip of what QuantizeLinear computes from an activation, where grid and bounds are constants."""
    quantizers = {
        node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.output
    }

    def clip(rewriter: Rewriter, node: onnx.NodeProto) -> None:
        source = quantizers.get(node.input[0])
        rewritten = source is not None and _clip(rewriter, node, source)
        if not rewritten:
            rewriter.keep(node)

    if quantizers:
        Rewriter(model).apply({("", "Clip"): clip})
    return model


def _clip(rewriter: Rewriter, node: onnx.NodeProto, source: onnx.NodeProto) -> bool:
    if len(source.input) < 3 or rewriter.value(source.input[0]) is not None:
        return False
    scale, zero = (rewriter.value(name) for name in source.input[1:3])
    bounds = [rewriter.value(name) if name else None for name in [*node.input[1:3], "", ""][:2]]
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or any(b is None for b in bounds):
        return False
    offset, step = int(zero.item()), float(scale.item())
    reals = [rewriter.constant((int(b.item()) - offset) * step, np.float32) for b in bounds if b is not None]
    grid = list(source.input[1:3])
    clipped = rewriter.node("Clip", [rewriter.node("DequantizeLinear", [node.input[0], *grid]), *reals])
    rewriter.node("QuantizeLinear", [clipped, *grid], node.output[0])
    return True
