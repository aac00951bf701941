"""Which Q/DQ ONNX Runtime has: 16-bit ones since opset 21; where it has none in ai.onnx, its own in com.microsoft."""

from __future__ import annotations

import functools

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, version_converter

from intaglio.errors import ModelError
from intaglio.frontend.load import opset_of
from intaglio.quantize.editor import QDQ
from intaglio.quantize.session import opens_optimized, run

WIDE_OPSET = 21
CONTRIB = "com.microsoft"


def raise_opset(model: onnx.ModelProto, images: NDArray[np.float32]) -> onnx.ModelProto:
    """`model` in opset 21 or later if ONNX's converter gets it there and the result computes the same, else `model`.

    Also `model` where a default session would refuse the converted one.
    """
    if opset_of(model) >= WIDE_OPSET:
        return model
    untyped = _copy(model)
    del untyped.graph.value_info[:]
    try:
        converted: onnx.ModelProto = version_converter.convert_version(untyped, WIDE_OPSET)
        same = np.array_equal(run(with_contrib(converted), images), run(with_contrib(model), images))
    except (RuntimeError, ValueError, ModelError):  # the converter lacks an adapter for some op
        return model
    names = {name for node in converted.graph.node for name in node.output}
    kept = all(name in names for node in model.graph.node for name in node.output if name)
    return converted if same and kept and opens_optimized(with_contrib(converted)) else model


def with_contrib(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` whose Q/DQ are ONNX Runtime's own where it has no others for this opset and type."""
    twin, opset = _copy(model), opset_of(model)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    foreign = [
        node for node in twin.graph.node
        if node.op_type in QDQ and not node.domain and not _known(opset, _integer_type(node, types))
    ]  # fmt: skip
    for node in foreign:
        node.domain = CONTRIB
    if foreign and all(entry.domain != CONTRIB for entry in twin.opset_import):
        twin.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return twin


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def _integer_type(node: onnx.NodeProto, types: dict[str, int]) -> int:
    """Type of the zero point, or of the constant that is dequantized, or uint8 as ONNX has it."""
    zero = node.input[2] if len(node.input) > 2 else ""
    return types.get(zero, types.get(node.input[0] if node.op_type == QDQ[1] else "", onnx.TensorProto.UINT8))


@functools.cache
def _known(opset: int, data_type: int) -> bool:
    """Whether ONNX Runtime runs ai.onnx's DequantizeLinear of this type in this opset."""
    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    zero = numpy_helper.from_array(np.zeros(1).astype(dtype), "zero")
    scale = numpy_helper.from_array(np.ones((), np.float32), "scale")
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    nodes = [
        helper.make_node(QDQ[1], ["zero", "scale"], ["real"]),
        helper.make_node("Add", ["x", "real"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "probe", [x], [y], [zero, scale])
    probe = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    try:
        run(probe, np.zeros(1, np.float32))
    except ModelError:
        return False
    return True
