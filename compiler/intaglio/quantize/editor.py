"""Edits of a QDQ graph: Q/DQ after an activation, DQ before a weight; scales may be filled in later."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]

QDQ = ("QuantizeLinear", "DequantizeLinear")


def _zero(zero_point: int, dtype: str) -> Array:
    """The zero point as it is stored: 8-bit activations unsigned, the same grid shifted by 128.

    ONNX Runtime's x86 kernels take u8 x s8; at opset 21 it rewrites s8 activations into models that it then refuses.
    """
    return np.asarray(zero_point + 128, np.uint8) if dtype == "int8" else np.asarray(zero_point, dtype)


class Editor:
    """Inserts nodes into `model`, in place. Nodes and tensors that were there keep their names."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self._names = {name for node in self.graph.node for name in (*node.input, *node.output)}
        self._names |= {tensor.name for tensor in self.graph.initializer}
        self._grids: dict[str, list[str]] = {}

    # --- activations -----------------------------------------------------------------------------------------------

    def quantize(self, tensor: str, scale: float, dtype: str) -> None:
        """Let everyone who reads `tensor` read it rounded to a grid, which `set_grid` may change later.

        A quantizer that reads `tensor` already keeps its own grid; it reads the new, finer one first.
        """
        grid = [
            self._constant(self._fresh(f"{tensor}/scale"), np.float32(scale)),
            self._constant(self._fresh(f"{tensor}/zero"), _zero(0, dtype)),
        ]
        self._grids[tensor] = grid
        source, target = self._split(tensor)
        quantized = self._fresh(f"{tensor}/quantized")
        pair = [
            helper.make_node(QDQ[0], [source, *grid], [quantized], name=f"{tensor}/{QDQ[0]}"),
            helper.make_node(QDQ[1], [quantized, *grid], [target], name=f"{tensor}/{QDQ[1]}"),
        ]
        self._insert(self._after(source), pair)

    def set_grid(self, tensor: str, scale: float, zero_point: int, dtype: str) -> None:
        """Give the pair that `quantize` inserted its grid."""
        names = self._grids[tensor]
        self._replace(names[0], np.float32(scale))
        self._replace(names[1], _zero(zero_point, dtype))

    def own_pair(self, tensor: str) -> str | None:
        """Output of the DequantizeLinear of a pair that quantizes `tensor` already, if there is one."""
        outputs = [
            node.output[0] for node in self.graph.node if node.op_type == QDQ[0] and node.input[0] == tensor
        ]
        pairs = [node for node in self.graph.node if node.op_type == QDQ[1] and node.input[0] in outputs]
        return str(pairs[0].output[0]) if pairs else None

    def share(self, tensor: str, rounded: str) -> None:
        """Let the readers of `tensor`, except its quantizers, read `rounded`, its own rounded values."""
        self._rewire(tensor, rounded, skip=("Shape", QDQ[0]))
        self._sort(rounded)

    def _split(self, tensor: str) -> tuple[str, str]:
        """Names before and after the new pair. A graph output keeps its name, so its producer gets another."""
        if any(value.name == tensor for value in self.graph.output):
            source = self._fresh(f"{tensor}/exact")
            for node in self.graph.node:
                for index, name in enumerate(node.output):
                    if name == tensor:
                        node.output[index] = source
            return source, tensor
        target = self._fresh(f"{tensor}/rounded")
        self._rewire(tensor, target, skip=("Shape",))
        return tensor, target

    def _rewire(self, tensor: str, target: str, skip: tuple[str, ...]) -> None:
        for node in self.graph.node:
            if node.op_type in skip:
                continue
            for index, name in enumerate(node.input):
                if name == tensor:
                    node.input[index] = target

    # --- weights ---------------------------------------------------------------------------------------------------

    def quantize_weight(self, output: str, index: int, values: Array, scale: Array, axis: int) -> None:
        """Replace input `index` of the node that computes `output` by int8 `values` and a DequantizeLinear."""
        node = next(node for node in self.graph.node if output in node.output)
        stem = node.input[index]
        inputs = [
            self._constant(self._fresh(f"{stem}/int8"), values),
            self._constant(self._fresh(f"{stem}/scale"), scale),
            self._constant(self._fresh(f"{stem}/zero"), np.zeros(scale.shape, np.int8)),
        ]
        name = self._fresh(f"{stem}/weight")
        attributes = {"axis": axis} if scale.ndim else {}
        node.input[index] = name
        position = next(i for i, other in enumerate(self.graph.node) if output in other.output)
        self._insert(position, [helper.make_node(QDQ[1], inputs, [name], name=name, **attributes)])

    # --- the graph -------------------------------------------------------------------------------------------------

    def prune(self) -> None:
        """Remove nodes and constants that nothing reads any more, and types that may be stale."""
        wanted = {value.name for value in self.graph.output}
        live = []
        for node in reversed(self.graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                live.append(node)
        self._set_nodes(live[::-1])
        for index in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[index].name not in wanted:
                del self.graph.initializer[index]
        del self.graph.value_info[:]

    def _after(self, tensor: str) -> int:
        return next((i + 1 for i, node in enumerate(self.graph.node) if tensor in node.output), 0)

    def _sort(self, moved: str) -> None:
        """Bring the pair that computes `moved` forward, right behind what it reads."""
        dequantize = next(node for node in self.graph.node if moved in node.output)
        quantize = next(node for node in self.graph.node if dequantize.input[0] in node.output)
        rest = [node for node in self.graph.node if node.output[0] not in (moved, quantize.output[0])]
        grid = {*dequantize.input[1:], *quantize.input[1:], quantize.input[0]}
        place = max((i + 1 for i, node in enumerate(rest) if grid.intersection(node.output)), default=0)
        self._set_nodes([*rest[:place], quantize, dequantize, *rest[place:]])

    def _insert(self, position: int, nodes: list[onnx.NodeProto]) -> None:
        for offset, node in enumerate(nodes):
            self.graph.node.insert(position + offset, node)

    def _set_nodes(self, nodes: list[onnx.NodeProto]) -> None:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def _fresh(self, stem: str) -> str:
        name = next(
            n for n in (stem, *(f"{stem}_{i}" for i in range(len(self._names) + 1))) if n not in self._names
        )
        self._names.add(name)
        return name

    def _constant(self, name: str, value: ArrayLike) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _replace(self, name: str, value: ArrayLike) -> None:
        tensor = next(tensor for tensor in self.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))
