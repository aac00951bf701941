"""Which tensors of a standard ONNX graph the integer graph finds without a scale, and the weights among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from intaglio.compiler import missing_scales
from intaglio.errors import ModelError, UnsupportedError
from intaglio.frontend.load import describe
from intaglio.frontend.simplify import simplify
from intaglio.frontend.tasks import bound, selector

WEIGHT_INPUT = {"MatMul": 1, "Gemm": 1, "Conv": 1}

# Ops that copy or scale values: quantizing their source quantizes their result.
CARRIERS = {
    "Cast", "Div", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Mul", "Reshape", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
}  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """A tensor and what needs it on a grid."""

    tensor: str
    role: str


@dataclass(frozen=True)
class Weight:
    """A float constant of the node that computes `output`: its input `index`, one channel per index of `axis`."""

    output: str
    index: int
    values: NDArray[Any]
    axis: int


@dataclass(frozen=True)
class Gaps:
    """What to quantize next."""

    activations: list[Activation]
    weights: list[Weight]

    def __bool__(self) -> bool:
        return bool(self.activations or self.weights)


def gaps(model: onnx.ModelProto) -> Gaps:
    """What `model` (standard, not changed) lacks. Tensors that follow from another missing one wait for it.

    Raises what compiling would raise: UnsupportedError or ModelError.
    """
    chosen = selector(model)
    one = _copy(model) if chosen is None else bound(model, chosen, 0)
    static = _constants_first(simplify(one))
    missing = missing_scales(_copy(static))
    nodes = {name: node for node in static.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in static.graph.initializer}
    activations = {
        entry.tensor: Activation(entry.tensor, entry.role) for entry in missing if entry.role != "weight"
    }
    roots = [
        entry for name, entry in activations.items()
        if activations.keys().isdisjoint(_sources(name, nodes, set(constants)))
    ]  # fmt: skip
    weights = [_weight(entry.tensor, nodes, constants) for entry in missing if entry.role == "weight"]
    if chosen is not None:
        weights = [_of_all_tasks(model, weight, chosen.name) for weight in weights]
    return Gaps(roots, weights)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def _constants_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """What does not depend on the input, first: a tensor without a name of its own is named after what follows it."""
    constants = {tensor.name for tensor in model.graph.initializer} | {""}
    fixed, computed = [], []
    for node in model.graph.node:
        if constants.issuperset(node.input):
            constants.update(node.output)
            fixed.append(node)
        else:
            computed.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in fixed + computed]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def _sources(tensor: str, nodes: dict[str, onnx.NodeProto], constants: set[str]) -> Iterator[str]:
    """The tensors that `tensor` is a copy or a multiple of, nearest first."""
    while (node := nodes.get(tensor)) is not None and node.op_type in CARRIERS:
        computed = [name for name in node.input if name and name not in constants]
        if len(computed) != 1 or (node.op_type == "Div" and node.input[0] != computed[0]):
            return
        tensor = computed[0]
        yield tensor


def _of_all_tasks(model: onnx.ModelProto, weight: Weight, task: str) -> Weight:
    """The stack that `weight` is picked from by the task, if it is: that of task 0 was looked at."""
    nodes = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    tensor = nodes[weight.output].input[weight.index]
    while (node := nodes.get(tensor)) is not None and node.op_type != "Gather":
        tensor = node.input[0]
    if node is None or not _derived(node.input[1], task, nodes) or node.input[0] not in constants:
        return weight
    stack = np.asarray(numpy_helper.to_array(constants[node.input[0]]), np.float32)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    wanted = weight.values.take(0, axis=weight.axis).size
    first = stack.take(0, axis=axis)
    same = first.shape == weight.values.shape and np.array_equal(first, weight.values)
    if axis != 0 or stack.ndim != 3 or not (same or np.array_equal(first.T, weight.values)):
        raise UnsupportedError(
            f"node {describe(node)}: picks weights of a task along axis {axis} of {list(stack.shape)}, {wanted} per "
            "channel; intaglio quantizes matrices stacked along the first axis"
        )
    return Weight(node.output[0], 0, stack, 1 + (weight.axis if same else 1 - weight.axis))


def _derived(tensor: str, task: str, nodes: dict[str, onnx.NodeProto]) -> bool:
    """Whether `tensor` is computed from the task."""
    if tensor == task:
        return True
    node = nodes.get(tensor)
    return node is not None and any(_derived(name, task, nodes) for name in node.input)


def _weight(output: str, nodes: dict[str, onnx.NodeProto], constants: dict[str, onnx.TensorProto]) -> Weight:
    node = nodes.get(output)
    index = WEIGHT_INPUT.get(node.op_type) if node is not None else None
    tensor = constants.get(node.input[index]) if node is not None and index is not None else None
    if node is None or index is None or tensor is None:
        what = describe(node) if node is not None else repr(output)
        raise UnsupportedError(
            f"node {what}: its float weights are not a constant of MatMul, Gemm or Conv; quantize them"
        )
    values = np.asarray(numpy_helper.to_array(tensor), np.float32)
    if not np.isfinite(values).all():
        raise ModelError(f"node {describe(node)}: its weights hold NaN or infinity")
    transposed = any(a.name == "transB" and helper.get_attribute_value(a) for a in node.attribute)
    axis = 0 if node.op_type == "Conv" or transposed else values.ndim - 1
    return Weight(output, index, values, axis)
