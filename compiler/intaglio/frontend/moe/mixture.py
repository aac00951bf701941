"""The one spelling of a mixture of experts here: a node that is an ONNX function, so that anybody can run it.

``MixtureOfExperts_<E>_<k>_<raw|renormalised>(logits [T, E], y_0 [T, N], .., y_{E-1} [T, N]) -> [T, N]``: of every token
the sum of the k results whose logits are largest, weighted by the softmax over all logits (raw) or over the k chosen
ones (renormalised).
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

DOMAIN = "intaglio"
PREFIX = "MixtureOfExperts_"
MAX_K = 4


def node(logits: str, results: Sequence[str], output: str, *, k: int, normalize: bool) -> onnx.NodeProto:
    """The node that weights and sums the `results` of every expert."""
    name = f"{PREFIX}{len(results)}_{k}_{'renormalised' if normalize else 'raw'}"
    return helper.make_node(
        name, [logits, *results], [output], name=output, domain=DOMAIN, k=k, normalize=int(normalize)
    )


def is_mixture(candidate: onnx.NodeProto) -> bool:
    """Whether a node is such a mixture."""
    return candidate.domain == DOMAIN and candidate.op_type.startswith(PREFIX)


def attributes(mixture: onnx.NodeProto) -> tuple[int, bool]:
    """`k` and `normalize` of a mixture's node."""
    values = {a.name: a.i for a in mixture.attribute}
    return int(values["k"]), bool(values["normalize"])


def declare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add to `model`, in place, the functions that its mixtures call."""
    known = {function.name for function in model.functions if function.domain == DOMAIN}
    for candidate in model.graph.node:
        if is_mixture(candidate) and candidate.op_type not in known:
            model.functions.append(_function(candidate, model))
            known.add(candidate.op_type)
    if known and all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def _function(mixture: onnx.NodeProto, model: onnx.ModelProto) -> onnx.FunctionProto:
    k, normalize = attributes(mixture)
    results = [f"y_{index}" for index in range(len(mixture.input) - 1)]
    weights = (
        [helper.make_node("Softmax", ["largest"], ["weights"], axis=-1)]
        if normalize
        else [
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
            helper.make_node("GatherElements", ["probabilities", "chosen"], ["weights"], axis=-1),
        ]
    )
    body = [
        helper.make_node("Constant", [], ["k"], value_ints=[k]),
        helper.make_node("Constant", [], ["one"], value_ints=[1]),
        helper.make_node("TopK", ["logits", "k"], ["largest", "chosen"], axis=-1),
        *weights,
        helper.make_node("Sub", ["logits", "logits"], ["zeros"]),
        helper.make_node("ScatterElements", ["zeros", "chosen", "weights"], ["shares"], axis=-1),
        *(helper.make_node("Unsqueeze", [y, "one"], [f"{y}_row"]) for y in results),
        helper.make_node("Concat", [f"{y}_row" for y in results], ["stack"], axis=1),
        helper.make_node("Unsqueeze", ["shares", "one"], ["row"]),
        helper.make_node("MatMul", ["row", "stack"], ["sums"]),
        helper.make_node("Squeeze", ["sums", "one"], ["mixed"]),
    ]
    standard = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return helper.make_function(
        DOMAIN,
        mixture.op_type,
        ["logits", *results],
        ["mixed"],
        body,
        [helper.make_opsetid("", standard[0].version)],
        ["k", "normalize"],
    )
