"""The integer ops: one meaning each (docs/integer-semantics.md), executed here in NumPy, without TVM."""

from __future__ import annotations

import difflib

from intaglio.ops import (
    add,
    argmax,
    attention,
    broadcast,
    concat,
    gather,
    layernorm,
    linear,
    matmul,
    mean,
    moe,
    patch_embed,
    quantize_input,
    rescale,
    reshape,
    softmax,
    table,
    topk,
    transpose,
)
from intaglio.ops import (
    slice as slice_op,
)
from intaglio.ops.base import Built, Cost, Grid, IntegerOp, TensorType

__all__ = ["OPS", "Built", "Cost", "Grid", "IntegerOp", "TensorType", "get"]

OPS: dict[str, IntegerOp] = {
    "quantize_input": quantize_input.OP,
    "patch_embed": patch_embed.OP,
    "linear": linear.OP,
    "matmul": matmul.OP,
    "attention": attention.OP,
    "softmax": softmax.OP,
    "moe": moe.OP,
    "layernorm": layernorm.OP,
    "table": table.OP,
    "add": add.OP,
    "rescale": rescale.OP,
    "mean": mean.OP,
    "reshape": reshape.OP,
    "transpose": transpose.OP,
    "slice": slice_op.OP,
    "concat": concat.OP,
    "gather": gather.OP,
    "broadcast": broadcast.OP,
    "argmax": argmax.OP,
    "topk": topk.OP,
}


def get(name: str) -> IntegerOp:
    """The op called `name` (without the `intaglio.` prefix). Raises ValueError naming the nearest op."""
    if name in OPS:
        return OPS[name]
    near = difflib.get_close_matches(name, OPS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"ops: there is no integer op {name!r}{hint}")
