"""What the dialects share: replace nodes one by one, in place, with fresh tensor names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

Rule = Callable[["Rewriter", onnx.NodeProto], None]


class Rewriter:
    """Builds replacement nodes for one graph; constants that they need become initializers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._count = 0
        self._nodes: list[onnx.NodeProto] = []
        self._source = ""
        self._constants = _constants(model.graph)

    def node(self, op: str, inputs: Iterable[str], output: str = "", **attrs: Any) -> str:
        """Append `op`; return the name of its output (a fresh one unless given)."""
        name = output or self._fresh(op)
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=self._source, **attrs))
        return name

    def keep(self, node: onnx.NodeProto) -> None:
        """Append `node` as it is."""
        self._nodes.append(node)

    def constant(self, value: ArrayLike, dtype: Any) -> str:
        """A new initializer with `value`."""
        name = self._fresh("const")
        tensor = numpy_helper.from_array(np.asarray(value, dtype), name)
        self.model.graph.initializer.append(tensor)
        self._constants[name] = self.model.graph.initializer[-1]
        return name

    def value(self, name: str) -> np.ndarray[Any, Any] | None:
        """The array of a constant input, or None if `name` is computed (a Constant node counts as constant)."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def apply(self, rules: Mapping[tuple[str, str], Rule]) -> None:
        """Replace every node whose (domain, op) has a rule by what the rule appends."""
        if not any((node.domain, node.op_type) in rules for node in self.model.graph.node):
            return
        done: list[onnx.NodeProto] = []
        for node in list(self.model.graph.node):
            rule = rules.get((node.domain, node.op_type))
            if rule is None:
                done.append(node)
                continue
            self._nodes, self._source = [], node.name or node.output[0]
            rule(self, node)
            done.extend(self._nodes)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in done]
        del self.model.graph.node[:]
        self.model.graph.node.extend(copies)

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{self._source}/{stem}_{self._count}"


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initializers and the tensors of Constant nodes, by name."""
    constants = {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute[:1]
        if attribute.name == "value"
    }
    return constants | {tensor.name: tensor for tensor in graph.initializer}


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
