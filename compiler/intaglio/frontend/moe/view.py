"""A graph to look around in: who computes and who reads a tensor, what is constant, what leads to what.

Equal nodes are one node here: quantizers give every reader of a tensor a DequantizeLinear of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import onnx
from onnx import numpy_helper

from intaglio.frontend.simplify import RANDOM

SMALL = 64


class View:
    """A read-only copy of `model`'s graph (simplified, shapes known where they are static)."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.shapes: dict[str, tuple[int, ...]] = {
            value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in [*graph.input, *graph.value_info, *graph.output]
            if value.type.tensor_type.HasField("shape")
        }
        self.shapes |= {name: tuple(tensor.dims) for name, tensor in self.constants.items()}
        self.outputs = {value.name for value in graph.output}
        self.nodes = _distinct(graph, self.outputs)
        self.producer: dict[str, int] = {
            name: index for index, node in enumerate(self.nodes) for name in node.output if name
        }
        self._readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in set(node.input) - {""}:
                self._readers.setdefault(name, []).append(index)
        self._constant: dict[str, bool] = {}
        self._find_constants()

    def node(self, tensor: str) -> onnx.NodeProto | None:
        """The node that computes `tensor`, None for inputs and constants."""
        index = self.producer.get(tensor)
        return None if index is None else self.nodes[index]

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read `tensor`, in order."""
        return [self.nodes[index] for index in self._readers.get(tensor, [])]

    def is_constant(self, tensor: str) -> bool:
        """Whether `tensor` depends on constants only (dequantized weights count)."""
        return tensor == "" or tensor in self.constants or self._constant.get(tensor, False)

    def ancestors(self, tensors: Iterable[str], stops: Iterable[str] = ()) -> tuple[set[str], set[str]]:
        """Every tensor that `tensors` depend on, themselves included, and the graph's inputs among them.

        What lies behind `stops` is not looked at.
        """
        stopped, seen, leaves = set(stops), set[str](), set[str]()
        waiting = [name for name in tensors if name]
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            node = self.node(name)
            if name in stopped or name in self.constants:
                continue
            if node is None:
                leaves.add(name)
                continue
            waiting.extend(other for other in _reads(node) if other not in seen)
        return seen, leaves

    def between(self, tensor: str, stops: Iterable[str]) -> list[onnx.NodeProto]:
        """The nodes that compute `tensor` from `stops` and constants, in order."""
        wanted, _ = self.ancestors([tensor], stops)
        wanted -= set(stops)
        return [node for node in self.nodes if wanted.intersection(node.output)]

    def narrows(self, tensors: Sequence[str]) -> list[str]:
        """The single tensors through which alone the rest of the graph sees `tensors`, nearest first."""
        live = {name: len(self._readers.get(name, [])) for name in tensors if self._readers.get(name)}
        if any(name in self.outputs for name in tensors):
            return []
        found = []
        first = max(self.producer.get(name, -1) for name in tensors)
        for node in self.nodes[first + 1 :]:
            used = live.keys() & set(_reads(node))
            if not used:
                continue
            for name in used:
                live[name] -= 1
                if not live[name]:
                    del live[name]
            live |= {name: n for name in node.output if (n := len(self._readers.get(name, []))) > 0}
            if any(name in self.outputs for name in node.output):
                if len(live) == 0:
                    found.append(node.output[0])
                break
            if len(live) == 1:
                found.append(next(iter(live)))
        return found

    def _find_constants(self) -> None:
        for node in self.nodes:
            fixed = bool(node.input) and node.op_type not in RANDOM
            fixed = fixed and all(self.is_constant(name) for name in _reads(node))
            for name in node.output:
                self._constant[name] = fixed


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, inside its branches too."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = {name for other in attribute.g.node for name in other.output}
            inner |= {value.name for value in attribute.g.input} | {t.name for t in attribute.g.initializer}
            names += [name for other in attribute.g.node for name in _reads(other) if name not in inner]
            names += [value.name for value in attribute.g.output if value.name not in inner]
    return names


def _equal_constants(graph: onnx.GraphProto) -> dict[str, str]:
    """Small constants by the first one of the same value: every quantizer has its own copy of a scale."""
    first: dict[tuple[object, ...], str] = {}
    alias = {}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > SMALL:
            continue
        array = numpy_helper.to_array(tensor)
        key = (tensor.data_type, array.shape, array.tobytes())
        alias[tensor.name] = first.setdefault(key, tensor.name)
    return alias


def _distinct(graph: onnx.GraphProto, outputs: set[str]) -> list[onnx.NodeProto]:
    """Copies of the nodes, of equal ones only the first."""
    first: dict[tuple[object, ...], onnx.NodeProto] = {}
    alias = _equal_constants(graph)
    nodes = []
    for original in graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        for index, name in enumerate(node.input):
            node.input[index] = alias.get(name, name)
        attributes = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))
        key = (node.domain, node.op_type, tuple(node.input), len(node.output), attributes)
        twin = first.setdefault(key, node)
        if twin is node or node.op_type in RANDOM or outputs.intersection(node.output):
            nodes.append(node)
            continue
        alias.update(zip(node.output, twin.output, strict=True))
    return nodes
