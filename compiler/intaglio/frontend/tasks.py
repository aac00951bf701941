"""A model for several tasks: a second input, an integer, that picks among stacked constants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from intaglio.errors import UnsupportedError
from intaglio.frontend.load import describe

INTEGERS = (TensorProto.INT32, TensorProto.INT64)
SAME_SHAPE = {"DequantizeLinear", "QuantizeLinear", "Identity", "Cast"}


@dataclass(frozen=True)
class Selector:
    """The input that says which task to do: its name, and the number of tasks."""

    name: str
    count: int


def selector(model: onnx.ModelProto) -> Selector | None:
    """The task input of `model`, if it has one. Raises UnsupportedError where it does more than pick constants."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    scalars = [value for value in inputs if _is_scalar(value)]
    if len(inputs) != 2 or len(scalars) != 1:
        return None
    name = scalars[0].name
    counts = dict(_lengths(model.graph, name))
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{node}: {count}" for node, count in counts.items()) or "none"
        raise UnsupportedError(
            f"the input {name!r} is taken for the number of a task, but the axes that it picks from (Gather of "
            f"constants) have no one length: {found}"
        )
    return Selector(name, next(iter(counts.values())))


def bound(model: onnx.ModelProto, chosen: Selector, task: int) -> onnx.ModelProto:
    """A copy of `model` for one task only."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    index = next(i for i, value in enumerate(twin.graph.input) if value.name == chosen.name)
    kind = twin.graph.input[index].type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    del twin.graph.input[index]
    twin.graph.initializer.append(
        numpy_helper.from_array(np.full([1] * len(kind.shape.dim), task, dtype), chosen.name)
    )
    return twin


def _is_scalar(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return kind.elem_type in INTEGERS and [d.dim_value for d in kind.shape.dim] in ([], [1])


def _lengths(graph: onnx.GraphProto, name: str) -> Iterator[tuple[str, int]]:
    """Every Gather of constants by the task, and how many there are to pick from."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    derived = {name}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            shapes[node.output[0]] = list(node.attribute[0].t.dims)
        if node.op_type == "Constant":
            shapes.setdefault(node.output[0], [])
        if node.op_type in SAME_SHAPE and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
        if not derived.intersection(node.input):
            continue
        if node.op_type == "Gather" and node.input[1] in derived and shapes.get(node.input[0]):
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            yield describe(node), shapes[node.input[0]][axis]
        elif all(other in derived or other in shapes for other in node.input if other):
            derived.update(node.output)
        else:
            raise UnsupportedError(
                f"node {describe(node)} computes with the task {name!r}; intaglio takes a task that picks among "
                "stacked constants (Gather)"
            )
