"""From recognised experts to nodes: every expert an ordinary MLP on all tokens [T, K], then one mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from intaglio.frontend.moe import mixture
from intaglio.frontend.moe.experts import UNARY, Expert, Product, constant_root
from intaglio.frontend.moe.view import View


@dataclass(frozen=True)
class Block:
    """A recognised mixture: `output` of `shape` is that of `experts` for `logits`."""

    logits: str
    output: str
    shape: tuple[int, ...]
    experts: list[Expert]
    count: int
    k: int
    normalize: bool = False
    orientation: tuple[bool, bool] = (False, False)
    order: tuple[int, ...] = ()

    def variant(self, normalize: bool, orientation: tuple[bool, bool], order: Sequence[int] = ()) -> Block:
        """The same block, read in another way."""
        return replace(self, normalize=normalize, orientation=orientation, order=tuple(order))


@dataclass
class Replacement:
    """The nodes and constants that compute a block's output from its experts' input and the logits."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)


def build(view: View, block: Block) -> Replacement:
    """The block, written out."""
    return _Builder(view, block).build()


class _Builder:
    def __init__(self, view: View, block: Block) -> None:
        self.view = view
        self.block = block
        self.result = Replacement()
        self._count = 0
        self._known: dict[tuple[object, ...], str] = {}

    def build(self) -> Replacement:
        block = self.block
        rows = self._rows(block.experts[0].source)
        results = []
        for index in block.order or range(block.count):
            expert = block.experts[index] if len(block.experts) > 1 else block.experts[0]
            results.append(self._expert(expert, index, rows))
        logits = self._rows(block.logits)
        mixed = self._fresh("mixed")
        node = mixture.node(logits, results, mixed, k=block.k, normalize=block.normalize)
        self.result.nodes.append(node)
        self._node("Reshape", [mixed, self._constant(block.shape)], block.output)
        return self.result

    def _rows(self, tensor: str) -> str:
        """`tensor` as a matrix, a row for every token."""
        shape = self.view.shapes[tensor]
        if len(shape) == 2:
            return tensor
        rows = (int(np.prod(shape[:-1])), shape[-1])
        return self._node("Reshape", [tensor, self._constant(rows)])

    def _expert(self, expert: Expert, index: int, rows: str) -> str:
        now = _Clone(self, expert, index)
        hidden = now.segment(expert.before, expert.source, rows)
        hidden = self._product(expert.first, index, self.block.orientation[0], hidden)
        hidden = now.segment(expert.between, expert.first.node.output[0], hidden)
        result = self._product(expert.second, index, self.block.orientation[1], hidden)
        return now.segment(expert.after, expert.second.node.output[0], result)

    def _product(self, product: Product, index: int, transposed: bool, rows: str) -> str:
        weight = self.slice(product.weight, index) if product.stacked else product.weight
        if transposed:
            weight = self._node("Transpose", [weight], perm=[1, 0])
        result = self._node("MatMul", [rows, weight])
        if product.node.op_type == "Gemm" and len(product.node.input) > 2 and product.node.input[2]:
            result = self._node("Add", [result, self.vector(product.node.input[2], index)])
        return result

    def slice(self, tensor: str, index: int) -> str:
        """Item `index` of the first axis of a constant."""
        return self._node("Gather", [tensor, self._constant(index)], axis=0)

    def vector(self, tensor: str, index: int) -> str:
        """A constant operand of expert `index`: a scalar as it is, else its own row [H]."""
        root = constant_root(self.view, tensor) or tensor
        shape = self.view.shapes[root]
        wide = [axis for axis, size in enumerate(shape) if size > 1]
        if not wide:
            return root
        if len(wide) > 1 and shape[wide[0]] == self.block.count:
            root = self._node("Gather", [root, self._constant(index)], axis=wide[0])
        elif len(shape) == 1:
            return root
        return self._node("Reshape", [root, self._constant([-1])])

    def _constant(self, value: object) -> str:
        array = np.asarray(value, np.int64)
        key = ("constant", array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._fresh("const")
            self.result.constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def _node(self, op: str, inputs: list[str], output: str = "", **attributes: object) -> str:
        return self.copy(helper.make_node(op, inputs, [output or op], **attributes), inputs, output)

    def copy(self, node: onnx.NodeProto, inputs: list[str], output: str = "") -> str:
        """`node` once more, on other inputs; what is there already is not made twice."""
        attributes = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))
        key = (node.op_type, *inputs, attributes)
        if key in self._known and not output:
            return self._known[key]
        name = self._known[key] = output or self._fresh(node.output[0])
        twin = onnx.NodeProto.FromString(node.SerializeToString())
        del twin.input[:], twin.output[:]
        twin.input.extend(inputs)
        twin.output.append(name)
        twin.name = name
        self.result.nodes.append(twin)
        return name

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{self.block.output}/moe/{stem}_{self._count}"


class _Clone:
    """Copies the elementwise nodes of one expert."""

    def __init__(self, builder: _Builder, expert: Expert, index: int) -> None:
        self.builder = builder
        self.expert = expert
        self.index = index

    def segment(self, nodes: list[onnx.NodeProto], source: str, rows: str) -> str:
        """`nodes`, which compute something of `source`, computed of `rows` instead; the last one's result."""
        names = {source: rows}
        last = rows
        for node in nodes:
            last = self.builder.copy(node, [self._operand(node, i, names) for i in range(len(node.input))])
            names[node.output[0]] = last
        return last

    def _operand(self, node: onnx.NodeProto, position: int, names: dict[str, str]) -> str:
        tensor = node.input[position]
        view = self.builder.view
        if not tensor or (node.op_type in UNARY and position > 0):
            return tensor
        if view.is_constant(tensor) or constant_root(view, tensor) is not None:
            return self.builder.vector(tensor, self.index)
        while tensor not in names:  # what moves tokens about is passed over
            mover = view.node(tensor)
            assert mover is not None, tensor
            tensor = mover.input[0]
        return names[tensor]
