"""Bind the batch, infer every shape, and fold what depends on constants and shapes only.

Exporters leave shape arithmetic in the graph (``Shape``, ``Gather``, ``Concat``, ``Where``, ...). With static shapes
all of it is constant. One forward walk does the work: each node is evaluated if its inputs are constants, otherwise its
output type is inferred. ``DequantizeLinear`` is never folded: it is how a model says that a weight is quantized.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, TypeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from intaglio.errors import ModelError, UnsupportedError
from intaglio.frontend.load import describe, opset_of
from intaglio.frontend.moe import mixture

ALIASES = {"Identity", "Dropout"}
RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
KEEP = {"DequantizeLinear", *RANDOM}
SMALL = 4096


def simplify(model: onnx.ModelProto, batch: int = 1, *, dynamic: bool = False) -> onnx.ModelProto:
    """Return `model`, changed in place: static, folded, without unused initializers.

    With `dynamic`, shapes that depend on data stay, unknown: a later rewrite may take them out. Raises
    UnsupportedError for dynamic shapes that `batch` does not bind, ModelError for a graph that is inconsistent.
    """
    _bind_inputs(model.graph, batch)
    walker = _Walker(model, dynamic)
    nodes = [kept for node in list(model.graph.node) if (kept := walker.visit(node)) is not None]
    outputs = {walker.alias.get(o.name, o.name): o.name for o in model.graph.output}
    _replace_nodes(model.graph, nodes, walker, outputs)
    return model


def static_shape(value: TypeProto, name: str) -> tuple[int, ...]:
    """Shape of a tensor type. Raises UnsupportedError if a dimension is not bound."""
    dims = value.tensor_type.shape.dim
    if not value.tensor_type.HasField("shape") or any(not d.HasField("dim_value") for d in dims):
        shown = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims]
        raise UnsupportedError(
            f"tensor {name!r} has the dynamic shape {shown}; intaglio compiles static shapes: export the model with a "
            "fixed image size (only a symbolic batch is bound, by --batch)"
        )
    shape = tuple(d.dim_value for d in dims)
    if any(n < 1 for n in shape):
        raise UnsupportedError(
            f"tensor {name!r} has the shape {list(shape)}: there is nothing in it to compute with"
        )
    return shape


def _bind_inputs(graph: onnx.GraphProto, batch: int) -> None:
    if batch < 1:
        raise UnsupportedError(f"--batch must be at least 1, not {batch}")
    constants = {i.name for i in graph.initializer}
    for value in graph.input:
        if value.name in constants:
            continue
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise UnsupportedError(
                f"input {value.name!r} is no tensor but a {kind}; intaglio takes one image tensor"
            )
        dims = value.type.tensor_type.shape.dim
        if not dims and value.type.tensor_type.HasField("shape") and _is_integer(value):
            continue  # the number of a task
        if not dims:
            raise UnsupportedError(
                f"input {value.name!r} has no shape; export the model with a static image shape"
            )
        symbol = dims[0].dim_param
        for index, dim in enumerate(dims):
            if not dim.HasField("dim_value") and (index == 0 or (symbol and dim.dim_param == symbol)):
                dim.dim_value = batch
        static_shape(value.type, value.name)
        if dims[0].dim_value != batch and batch != 1:
            raise UnsupportedError(
                f"input {value.name!r} was exported with batch {dims[0].dim_value}; "
                f"it cannot be bound to --batch {batch}"
            )
    del graph.value_info[:]


def _is_integer(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in (TensorProto.INT32, TensorProto.INT64)


class _Walker:
    """State of the forward walk: types and small constants by name."""

    def __init__(self, model: onnx.ModelProto, dynamic: bool) -> None:
        self.dynamic = dynamic
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.opsets.setdefault("", opset_of(model))
        self.ir_version = model.ir_version
        self.initializers = {i.name: i for i in model.graph.initializer}
        self.types = {v.name: v.type for v in model.graph.input}
        self.alias: dict[str, str] = {}
        self.new: dict[str, onnx.TensorProto] = {}
        for tensor in model.graph.initializer:
            self.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)

    def visit(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node with its inputs' aliases resolved, or None if it has become an alias or a constant."""
        for index, name in enumerate(node.input):
            node.input[index] = self.alias.get(name, name)
        if self._is_alias(node):
            self.alias[node.output[0]] = node.input[0]
            return None
        if node.op_type == "Constant" and not node.domain:
            self._define(node.output[0], _constant(node))
            return None
        if node.op_type == "Shape" and not node.domain and (node.input[0] in self.types or not self.dynamic):
            self._define(node.output[0], self._shape(node))
            return None
        if node.op_type not in KEEP and all(self._is_constant(name) for name in node.input):
            return self._fold(node)
        if self.dynamic:
            self._try_infer(node)
        else:
            self._infer(node)
        return node

    def _try_infer(self, node: onnx.NodeProto) -> None:
        """Infer the types of the outputs that have a static one; forget the others."""
        if any(name and name not in self.types for name in node.input):
            return
        try:
            self._infer(node)
        except UnsupportedError:
            for name in node.output:
                self.types.pop(name, None)

    def _is_alias(self, node: onnx.NodeProto) -> bool:
        """Whether the only result of `node` is its first input: not so if it drops values, as in training."""
        if node.op_type not in ALIASES or node.domain or any(node.output[1:]):
            return False
        training = node.input[2] if len(node.input) > 2 else ""
        return not training or (
            self._is_constant(training) and not numpy_helper.to_array(self._tensor(training)).any()
        )

    def _is_constant(self, name: str) -> bool:
        return name == "" or name in self.initializers or name in self.new

    def _tensor(self, name: str) -> onnx.TensorProto:
        return self.new[name] if name in self.new else self.initializers[name]

    def _define(self, name: str, value: NDArray[np.generic]) -> None:
        self.new[name] = numpy_helper.from_array(np.asarray(value), name)
        self.types[name] = helper.make_tensor_type_proto(self.new[name].data_type, self.new[name].dims)

    def _shape(self, node: onnx.NodeProto) -> NDArray[np.int64]:
        shape = static_shape(self.types[node.input[0]], node.input[0])
        attrs = {a.name: a.i for a in node.attribute}
        return np.asarray(shape[attrs.get("start", 0) : attrs.get("end", len(shape))], np.int64)

    def _fold(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        names = [name for name in dict.fromkeys(node.input) if name]
        graph = helper.make_graph(
            [node],
            "fold",
            [helper.make_value_info(name, self.types[name]) for name in names],
            [helper.make_value_info(name, TypeProto()) for name in node.output if name],
        )
        single = helper.make_model(graph, opset_imports=self._opset_ids(), ir_version=self.ir_version)
        feeds = {name: numpy_helper.to_array(self._tensor(name)) for name in names}
        try:
            values = ReferenceEvaluator(single).run(None, feeds)
        except Exception as error:
            raise ModelError(f"constant node {describe(node)} cannot be evaluated: {error}") from error
        for name, value in zip([n for n in node.output if n], values, strict=True):
            self._define(name, value)
        return None

    def _infer_qdq(self, node: onnx.NodeProto) -> None:
        """Shapes pass through. Not left to ONNX: quantizers write 4- and 16-bit types below the opset that has them."""
        source = self.types[node.input[0]].tensor_type
        zero = node.input[2] if len(node.input) > 2 else ""
        if node.op_type == "DequantizeLinear":
            elem = onnx.TensorProto.FLOAT
        elif zero:
            elem = self.types[zero].tensor_type.elem_type
        else:
            elem = {a.name: a.i for a in node.attribute}.get("output_dtype", 0) or onnx.TensorProto.UINT8
        shape = [d.dim_value for d in source.shape.dim]
        self.types[node.output[0]] = helper.make_tensor_type_proto(elem, shape)

    def _infer(self, node: onnx.NodeProto) -> None:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            self._infer_qdq(node)
            return
        if node.domain == mixture.DOMAIN:
            self.types[node.output[0]] = self.types[node.input[1]]
            return
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opsets.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError as error:
            raise UnsupportedError(
                f"node {describe(node)}: no such op in opset {self.opsets.get(node.domain, 0)}; "
                "intaglio does not know what it computes, replace it in the model"
            ) from error
        self.types.update(self._inferred(node, schema))
        for name in filter(None, node.output):
            if name not in self.types:
                raise UnsupportedError(
                    f"the type of {name!r}, output of {describe(node)}, cannot be inferred"
                )
            static_shape(self.types[name], name)

    def _inferred(self, node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> dict[str, TypeProto]:
        """Types of the outputs of `node`, by ONNX; large constants do not decide shapes and are not looked at."""
        names = [name for name in node.input if name]
        constants = [name for name in names if self._is_constant(name)]
        try:
            return onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                {name: self.types[name] for name in names},
                {name: tensor for name in constants if _is_small(tensor := self._tensor(name))},
                opset_imports=self._opset_ids(),
                ir_version=self.ir_version,
            )
        except Exception as error:
            raise ModelError(f"node {describe(node)} does not fit its inputs: {error}") from error

    def _opset_ids(self) -> list[onnx.OperatorSetIdProto]:
        return [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]


def _is_small(tensor: onnx.TensorProto) -> bool:
    return int(np.prod(tensor.dims, dtype=np.int64)) <= SMALL


def _constant(node: onnx.NodeProto) -> NDArray[np.generic]:
    attr = node.attribute[0]
    if attr.name == "value":
        return numpy_helper.to_array(attr.t)
    value = helper.get_attribute_value(attr)
    return np.asarray(value, np.float32 if attr.name.startswith("value_float") else np.int64)


def _replace_nodes(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], walker: _Walker, outputs: dict[str, str]
) -> None:
    nodes = _live(nodes, set(outputs))
    used = {name for node in nodes for name in node.input} | set(outputs)
    for index in reversed(range(len(graph.input))):  # initializers may be listed as inputs with a default
        if graph.input[index].name in walker.initializers:
            del graph.input[index]
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]
    graph.initializer.extend(tensor for name, tensor in walker.new.items() if name in used)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.output[:]
    for inner in outputs:
        graph.output.append(helper.make_value_info(inner, walker.types.get(inner, TypeProto())))
    del graph.value_info[:]
    graph.value_info.extend(
        helper.make_value_info(name, walker.types[name])
        for node in nodes
        for name in node.output
        if name in walker.types
    )


def _live(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(name for name in node.input if name)
            kept.append(node)
    return kept[::-1]
