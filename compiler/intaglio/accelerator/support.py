"""Which integer ops the accelerator executes, by operand types and attributes; where it cannot, why and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Reason = tuple[str, str]
"""Why, and what to do."""

SIXTEEN = "quantize this tensor to 8 bits"
OTHER_TARGET = "compile for target cpu or c, which execute every op"


def sentence(op: str, onnx_nodes: Sequence[str], why: str, what_to_do: str) -> str:
    """A refusal: the op, where it comes from, why, what to do."""
    nodes = [n for n in onnx_nodes if "QuantizeLinear" not in n and "DequantizeLinear" not in n]
    names = ", ".join(map(repr, (nodes or list(onnx_nodes))[:3]))
    return f"{op} (ONNX node {names}) does not run on the accelerator: {why}; {what_to_do}."


def reason(op: str, dtypes: Sequence[str], attrs: Mapping[str, Any]) -> Reason | None:
    """Why an op of these operand types and attributes cannot run, and what to do; None if it can."""
    if op in _ABSENT:
        return _ABSENT[op], OTHER_TARGET
    rule = _RULES.get(op)
    return None if rule is None else rule(dtypes, attrs)


def _product(dtypes: Sequence[str], attrs: Mapping[str, Any]) -> Reason | None:
    if dtypes[0] != "int8":
        return f"its input is {dtypes[0]}, the array multiplies int8 only", SIXTEEN
    if dtypes[1] != "int8":
        return (
            f"its weights are {dtypes[1]}, the array multiplies int8 only",
            "quantize the weights to 8 bits",
        )
    if attrs["acc_dtype"] != "int32":
        return "its accumulator may exceed 32 bits", "use 8-bit weights and biases that fit their accumulator"
    return None


def _moe(dtypes: Sequence[str], attrs: Mapping[str, Any]) -> Reason | None:
    if dtypes[0] != "int8":
        return f"its input is {dtypes[0]}, the array multiplies int8 only", SIXTEEN
    for number, weight in ((1, dtypes[3]), (2, dtypes[-4])):
        if weight != "int8":
            return (
                f"weights of its experts are {weight}, the array multiplies int8 only",
                "quantize the weights to 8 bits",
            )
        if attrs[f"acc{number}_dtype"] != "int32":
            return (
                "an accumulator of its experts may exceed 32 bits",
                "use 8-bit weights and biases that fit their accumulator",
            )
    return None


def _attention(dtypes: Sequence[str], attrs: Mapping[str, Any]) -> Reason | None:
    if set(dtypes[:3]) != {"int8"}:
        return f"q, k and v are {', '.join(dtypes[:3])}, the array multiplies int8 only", SIXTEEN
    if attrs["score_dtype"] != "int8":
        return "its scores are int16", "quantize the scores to 8 bits"
    if attrs["e_bits"] != 15 or attrs["dtype"] != "int8":
        return "its output is 16-bit", SIXTEEN
    if attrs["acc_dtype"] != "int32":
        return "its accumulator may exceed 32 bits", OTHER_TARGET
    return None


def _layernorm(_dtypes: Sequence[str], attrs: Mapping[str, Any]) -> Reason | None:
    if attrs["mean"] != "exact":
        return "it rounds its mean (I-ViT)", "compile with --nonlinear exact"
    if attrs["dtype"] != "int8":
        return "its output is int16, the LayerNorm unit writes int8", SIXTEEN
    return None


def _table(dtypes: Sequence[str], _attrs: Mapping[str, Any]) -> Reason | None:
    if dtypes[0] != "int8":
        return "its table has 65536 entries, a table memory holds 256", SIXTEEN
    return None


_ABSENT = {
    "rescale": "there is no unit for a rescale",
    "mean": "there is no unit for pooling",
    "gather": "gathering tokens is not implemented",
    "broadcast": "broadcasting is not implemented",
    "matmul": "a product of two activations runs only inside attention",
    "softmax": "softmax runs only inside attention",
    "topk": "there is no unit for ranking; let the host rank the logits",
    "argmax": "there is no unit for ranking; let the host rank the logits",
}

_RULES = {
    "linear": _product,
    "patch_embed": _product,
    "moe": _moe,
    "attention": _attention,
    "layernorm": _layernorm,
    "table": _table,
}
