"""16-bit QuantizeLinear is in ai.onnx since opset 21: older models are brought there, or use the contrib twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, version_converter

from intaglio.errors import ModelError
from intaglio.frontend.load import opset_of
from intaglio.quantize.editor import QDQ
from intaglio.quantize.session import run

WIDE_OPSET = 21
CONTRIB = "com.microsoft"
_WIDE = {
    onnx.TensorProto.INT16, onnx.TensorProto.UINT16, onnx.TensorProto.INT4, onnx.TensorProto.UINT4,
}  # fmt: skip


def raise_opset(model: onnx.ModelProto, image: NDArray[np.float32]) -> onnx.ModelProto:
    """`model` in opset 21 or later if ONNX's converter gets it there and the result computes the same, else `model`."""
    if opset_of(model) >= WIDE_OPSET:
        return model
    try:
        converted: onnx.ModelProto = version_converter.convert_version(_without_types(model), WIDE_OPSET)
        same = np.array_equal(run(with_contrib(converted), image), run(with_contrib(model), image))
    except (RuntimeError, ValueError, ModelError):  # the converter lacks an adapter for some op
        return model
    names = {name for node in converted.graph.node for name in node.output}
    kept = all(name in names for node in model.graph.node for name in node.output if name)
    return converted if same and kept else model


def with_contrib(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` whose 16- and 4-bit Q/DQ are ONNX Runtime's own where the opset has none."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    if opset_of(model) >= WIDE_OPSET:
        return twin
    wide = {tensor.name for tensor in model.graph.initializer if tensor.data_type in _WIDE}
    foreign = [node for node in twin.graph.node if node.op_type in QDQ and wide.intersection(node.input)]
    for node in foreign:
        node.domain = CONTRIB
    if foreign and all(entry.domain != CONTRIB for entry in twin.opset_import):
        twin.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return twin


def _without_types(model: onnx.ModelProto) -> onnx.ModelProto:
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    del twin.graph.value_info[:]
    return twin


__all__: list[Any] = ["raise_opset", "with_contrib"]
