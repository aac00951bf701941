"""Foreign spellings, rewritten to standard QDQ ONNX: one dialect, one file, one literal list."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from intaglio.frontend.dialects.attention import expand_attention
from intaglio.frontend.dialects.contrib import rewrite_contrib
from intaglio.frontend.dialects.experts import rewrite_experts
from intaglio.frontend.dialects.qcdq import rewrite_qcdq
from intaglio.frontend.dialects.qonnx import rewrite_qonnx
from intaglio.frontend.dialects.qoperator import rewrite_qoperator

Dialect = Callable[[onnx.ModelProto], onnx.ModelProto]

DIALECTS: list[Dialect] = [
    rewrite_contrib,  # com.microsoft Q/DQ (Quark, ORT contrib), Gelu, ... -> ai.onnx
    rewrite_experts,  # com.microsoft MoE, QMoE -> an MLP per expert, one mixture
    rewrite_qoperator,  # QLinearMatMul, QLinearConv, QGemm, QLinearAdd, ... -> DQ, op, Q
    rewrite_qonnx,  # Quant -> Q, DQ
    rewrite_qcdq,  # Q, Clip, DQ -> Q, DQ, Clip, Q, DQ
    expand_attention,  # ai.onnx Attention (opset 23) -> MatMul, Softmax, MatMul
]


def to_standard(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply every dialect to `model`, in place."""
    for dialect in DIALECTS:
        model = dialect(model)
    return model
