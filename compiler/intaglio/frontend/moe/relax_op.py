"""`mixture_of_experts`: what a `mixture.py` node is in Relax, until it is made integer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax

NAME = "intaglio_moe.mixture"


def _register() -> None:
    if NAME in set(tvm.ir.Op.list_op_names()):
        return
    tvm.ir._ffi_api.RegisterOp(NAME, "The k best of E results, weighted by the gate.")
    operator = tvm.ir.Op.get(NAME)

    def infer(call: relax.Call, _context: Any) -> relax.TensorType:
        return relax.TensorType([int(n) for n in call.args[1].ty.shape], "float32")

    operator.set_attr("FInferType", infer)
    operator.set_attr("FPurity", True)


def call(logits: relax.Expr, results: Sequence[relax.Expr], *, k: int, normalize: bool) -> relax.Call:
    """The mixture of `results` (each [T, N]) by `logits` [T, E]."""
    attrs = tvm.ir.make_node("ir.DictAttrs", k=k, normalize=int(normalize))
    return relax.Call(tvm.ir.Op.get(NAME), [logits, *results], attrs)


_register()
