"""attention: softmax(q k^T) v with exact integer probabilities, one division per row.

Accuracy: the weighted sum is exact in the integer weights; these are off by at most 1/2 each, n / 2^(e_bits+1) of the
row's mass in all, and the reciprocal by n / 2^24 relative. Given the integer scores, the result is within 1 LSB of
float64 softmax and product for n <= 258 with 8-bit outputs. The scores themselves are within 1 LSB of QDQ ones: about
one in a thousand lies at a rounding tie and falls to the other side, which moves its weight by a factor exp(scale).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intaglio.ops.arith import (
    accumulator,
    dyadic_within,
    exact_matmul,
    multiplier_bits,
    requantize,
    round_shift,
)
from intaglio.ops.base import (
    ACCUMULATORS,
    ACTIVATIONS,
    Array,
    Attrs,
    Built,
    Cost,
    Grid,
    IntegerOp,
    TensorType,
    check_count,
    check_dtype,
    choice,
    integer,
    output_grid,
)
from intaglio.ops.exponential import (
    check_row_attrs,
    exp_table,
    exponentials,
    reciprocal,
    reciprocal_bits,
    row_multiplier,
    weight_bits,
)
from intaglio.ops.matmul import centred_product


def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """Type rule: q [B, H, M, D], k [B, H, n, D], v [B, H, n, Dv], exp_table -> [B, H, M, Dv]."""
    check_count("attention", types, 4)
    for name, operand in zip("qkv", types[:3], strict=True):
        check_dtype("attention", name, operand, ACTIVATIONS)
        integer("attention", attrs, f"{name}_zero", -32768, 32767)
    shape = _output_shape(*(operand.shape for operand in types[:3]))
    choice("attention", attrs, "score_acc_dtype", ACCUMULATORS)
    choice("attention", attrs, "acc_dtype", ACCUMULATORS)
    integer("attention", attrs, "score_multiplier", 0, (1 << 24) - 1)
    integer("attention", attrs, "score_shift", 1, 62)
    integer("attention", attrs, "acc_shift", 0, 7)
    integer("attention", attrs, "score_zero", -32768, 32767)
    check_row_attrs("attention", types[3], choice("attention", attrs, "score_dtype", ACTIVATIONS), attrs)
    return TensorType(shape, output_grid("attention", attrs))


def _output_shape(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> tuple[int, ...]:
    ranks = len(q) == len(k) == len(v) == 4
    if not ranks or q[:2] != k[:2] or k[:3] != v[:3] or q[3] != k[3]:
        expected = "q [B, H, M, D], k [B, H, n, D] and v [B, H, n, Dv]"
        raise ValueError(f"attention: expects {expected}, not {list(q)}, {list(k)} and {list(v)}.")
    return (*q[:3], v[3])


def reference(inputs: Sequence[Array], attrs: Attrs) -> Array:
    """Requantized scores, integer weights of each row, exact weighted sum, one division per row."""
    q, k, v, table = inputs
    acc = centred_product(q, k, attrs["q_zero"], attrs["k_zero"], True)
    score = requantize(
        acc, attrs["score_multiplier"], attrs["score_shift"], attrs["score_zero"], attrs["score_dtype"]
    )
    e = exponentials(score, table, attrs["e_bits"])
    total = e.sum(axis=-1, keepdims=True)
    values = v.astype(np.int64) - attrs["v_zero"]
    weighted = exact_matmul(e, values, int(total.max(initial=0)) * int(np.abs(values).max(initial=0)))
    return _divide(weighted, reciprocal(total, attrs["multiplier"], attrs["e_bits"]), attrs)


def _divide(weighted: Array, r: Array, attrs: Attrs) -> Array:
    """``weighted / total`` on the output grid, by the row's reciprocal."""
    acc_shift = attrs["acc_shift"]
    a = round_shift(weighted, acc_shift) if acc_shift else weighted
    shift = attrs["shift"] + attrs["e_bits"] - 1 - acc_shift
    return requantize(a, r, shift, attrs["zero_point"], attrs["dtype"])


def cost(types: Sequence[TensorType], attrs: Attrs) -> Cost:
    """The work of one call."""
    out = infer(types, attrs)
    batch, heads, rows, depth = types[0].shape
    scores = batch * heads * rows * types[1].shape[2]
    return Cost(
        macs=scores * (depth + types[2].shape[3]),
        multiplies=scores + out.size,
        lookups=scores * types[3].shape[0],
        divides=batch * heads * rows,
        bytes_weights=types[3].nbytes,
        bytes_moved=sum(t.nbytes for t in types[:3]) + out.nbytes,
    )


def parameters(
    q: Grid,
    k: Grid,
    v: Grid,
    score: Grid,
    scale_factor: float,
    out: Grid,
    *,
    depth: int,
    length: int,
    nonlinear: str = "exact",
) -> Built:
    """The exponential table and attributes.

    `scale_factor`: the scores' real factor, e.g. 1 / sqrt(D); `depth`: D; `length`: n, the number of keys.
    """
    e_bits = weight_bits(out.dtype)
    score_bound = depth * q.reach * k.reach
    score_ratio = scale_factor * q.scale * k.scale / score.scale
    # An 8-bit score at a rounding tie moves a 16-bit output by hundreds of LSB: ties must be rare.
    score_bits = multiplier_bits(score.dtype, out.dtype)
    score_multiplier, score_shift = dyadic_within(score_ratio, score_bits, score_bound)
    acc_shift = max(0, v.reach.bit_length() + reciprocal_bits(e_bits) + e_bits - 1 - 62)
    multiplier, shift = row_multiplier(v.scale / out.scale, e_bits, acc_shift)
    attrs = {
        "q_zero": q.zero_point,
        "k_zero": k.zero_point,
        "v_zero": v.zero_point,
        "score_acc_dtype": accumulator(score_bound),
        "score_multiplier": score_multiplier,
        "score_shift": score_shift,
        "score_zero": score.zero_point,
        "score_dtype": score.dtype,
        "e_bits": e_bits,
        "acc_dtype": accumulator(length * ((1 << e_bits) - 1) * v.reach),
        "acc_shift": acc_shift,
        "multiplier": multiplier,
        "shift": shift,
        "zero_point": out.zero_point,
        "dtype": out.dtype,
    }
    return Built([exp_table(score.scale, score.dtype, e_bits, nonlinear)], attrs)


OP = IntegerOp("attention", "softmax(q k^T) v with exact integer probabilities.", infer, reference, cost)
