"""The gates of mixtures of experts in an ONNX model: their logits in float, alone and within the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from intaglio.oracle import Oracle

_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
_PRODUCTS = {"MatMul", "Gemm"}


@dataclass(frozen=True)
class GateTensors:
    """The tensor that a gate's product reads and its logits, before any quantizer, in an ONNX model."""

    x: str
    logits: str


def gate_tensors(path: Path, names: Sequence[str]) -> GateTensors | None:
    """The gate that the nodes called `names` compute in the model at `path`; None if they are not there."""
    graph = onnx.load(str(path)).graph
    nodes = [n for n in graph.node if n.name in set(names) and n.op_type not in _QUANTIZERS]
    product = next((node for node in nodes if node.op_type in _PRODUCTS), None)
    return None if product is None else GateTensors(product.input[0], nodes[-1].output[0])


class FloatGate:
    """A gate cut out of its model."""

    def __init__(self, path: Path, tensors: GateTensors, task: int) -> None:
        model = onnx.load(str(path))
        graph, needed, wanted = model.graph, [], {tensors.logits}
        for node in reversed(graph.node):
            if wanted.intersection(node.output) and tensors.x not in node.output:
                needed.append(node)
                wanted.update(node.input)
        inputs = [value for value in graph.input if value.name in wanted and value.name != tensors.x]
        x = helper.make_tensor_value_info(tensors.x, onnx.TensorProto.FLOAT, None)
        logits = helper.make_tensor_value_info(tensors.logits, onnx.TensorProto.FLOAT, None)
        constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
        cut = helper.make_graph(needed[::-1], "gate", [x, *inputs], [logits], constants)
        opsets = list(model.opset_import)
        made = helper.make_model(cut, opset_imports=opsets, ir_version=model.ir_version)
        self._oracle = Oracle(path, as_written=True, task=task, model=made)

    def run(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits [N, tokens, experts] of real x [N, tokens, K]."""
        return np.concatenate([self._oracle.run(sample[None].astype(np.float32)) for sample in x])


def tapped(
    path: Path, names: Sequence[str], real: NDArray[np.float32], task: int
) -> list[NDArray[np.float64]]:
    """The values [N, ...] of float tensors within the model at `path`, run on real samples [N, ...]."""
    results = []
    for name in names:
        model = onnx.load(str(path))
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        results.append(Oracle(path, as_written=True, task=task, model=model).run(real))
    return results
