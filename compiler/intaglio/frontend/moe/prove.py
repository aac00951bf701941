"""Proof by numbers: a region and what it is taken for are run on the same random inputs, roundings left out of both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from intaglio.frontend.moe import mixture
from intaglio.frontend.moe.view import View

Real = NDArray[np.float32]

DRAWS = 8
TOLERANCE = 1e-4
"""Of the largest result: two orders of summation in float32 are nearer, two meanings further apart."""


class Region:
    """What computes `output` from `inputs` (tensors of known shape), ready to run."""

    def __init__(
        self,
        view: View,
        nodes: Iterable[onnx.NodeProto],
        inputs: list[str],
        output: str,
        constants: Iterable[onnx.TensorProto] = (),
    ) -> None:
        """Raises ValueError with ONNX Runtime's sentence if it cannot run that."""
        self.inputs = inputs
        known = view.constants | {tensor.name: tensor for tensor in constants}
        bare, made = _without_roundings(nodes, known)
        used = {name for node in bare for name in names(node)}
        graph = helper.make_graph(
            bare,
            "region",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, view.shapes[name]) for name in inputs],
            [helper.make_value_info(output, onnx.TypeProto())],
            [known[name] for name in sorted(used & known.keys() - set(made))] + list(made.values()),
        )
        graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
        model = helper.make_model(
            graph, opset_imports=view.model.opset_import, ir_version=min(view.model.ir_version, 11)
        )
        model.functions.extend(view.model.functions)
        self._session = _session(mixture.declare(model))

    def run(self, feeds: dict[str, Real]) -> Real:
        """The output. Raises ValueError with ONNX Runtime's sentence."""
        try:
            return np.asarray(self._session.run(None, {name: feeds[name] for name in self.inputs})[0])
        except Exception as error:  # its exceptions have no common base but Exception
            raise ValueError(_sentence(error)) from error


def draws(tokens: tuple[int, ...], logits: tuple[int, ...], k: int) -> list[tuple[Real, Real]]:
    """Random inputs [.., K] and logits [.., E], until every expert has been among the k best of some token."""
    random = np.random.default_rng(0)
    used = np.zeros(logits[-1], bool)
    pairs: list[tuple[Real, Real]] = []
    for _ in range(DRAWS):
        scores = random.normal(0, 2, logits)
        scores = np.where(used, scores, scores + 4.0) if pairs else scores
        pairs.append((random.normal(0, 1, tokens).astype(np.float32), scores.astype(np.float32)))
        chosen = np.argsort(-scores.reshape(-1, logits[-1]), axis=1)[:, :k]
        used[chosen] = True
        if used.all() and len(pairs) > 1:
            break
    return pairs


def difference(found: Real, wanted: Real) -> float:
    """The largest difference, as a share of the largest value; infinite where there is nothing to compare."""
    if found.size != wanted.size or not np.isfinite(found).all():
        return float("inf")
    peak = float(np.abs(found).max(initial=0))
    return (
        float(np.abs(found.reshape(-1) - wanted.reshape(-1)).max()) / peak if peak > 1e-12 else float("inf")
    )


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no common base but Exception
        raise ValueError(_sentence(error)) from error


def _without_roundings(
    nodes: Iterable[onnx.NodeProto], constants: dict[str, onnx.TensorProto]
) -> tuple[list[onnx.NodeProto], dict[str, onnx.TensorProto]]:
    """The nodes with Q and DQ of activations as identities, and what DQ of constants gives as constants."""
    bare, made = [], dict[str, onnx.TensorProto]()
    for node in nodes:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            with contextlib.suppress(KeyError):
                made[node.output[0]] = _dequantized(node, constants)
                continue
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            bare.append(helper.make_node("Identity", node.input[:1], node.output))
        else:
            bare.append(node)
    return bare, made


def _dequantized(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> onnx.TensorProto:
    arrays = [numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input if name]
    values, scale, zero = (*arrays, np.zeros(()))[:3]
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if scale.size > 1:
        along = [-1 if index == axis % values.ndim else 1 for index in range(values.ndim)]
        scale, zero = scale.reshape(along), zero.reshape(along) if zero.size > 1 else zero
    return numpy_helper.from_array(((values - zero) * scale).astype(np.float32), node.output[0])


def names(node: onnx.NodeProto) -> Iterable[str]:
    """What a node reads, and what is read inside its branches."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from names(inner)
        yield from (value.name for value in attribute.g.output)


def _sentence(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
