"""TVM's ONNX importer, extended: Q/DQ of every width, provenance of every value, clear refusals."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, _get_convert_map

from intaglio.errors import IntaglioError, ModelError, UnsupportedError
from intaglio.frontend.dialects import to_standard
from intaglio.frontend.load import describe, load, opset_of
from intaglio.frontend.moe import mixture, relax_op
from intaglio.frontend.moe.recognise import recognise_moe
from intaglio.frontend.simplify import simplify

Array = NDArray[Any]

ACTIVATION_TYPES = ("int8", "uint8", "int16", "uint16")
# Of any number of operands; TVM's importer stacks and reduces them.
PAIRWISE = {"Max": relax.op.maximum, "Min": relax.op.minimum, "Sum": relax.op.add}
REAL_TYPES = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
)
UNBOUNDED = ("Clip", "Max", "Min", "Where", "QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Imported:
    """A model in Relax, still in QDQ form.

    `provenance` maps a Relax variable's name to the ONNX tensor it stands for, `nodes` an ONNX tensor to the name of
    the node that computes it (the exporter's own name).
    """

    module: tvm.IRModule
    provenance: dict[str, str]
    nodes: dict[str, str]
    input_name: str
    output_name: str


def import_model(path: Path, batch: int = 1) -> Imported:
    """Read `path` and bring it into Relax. Raises ModelError or UnsupportedError with one sentence."""
    model = load(path)
    model = standardize(model, batch)
    return to_relax(model)


def standardize(model: onnx.ModelProto, batch: int = 1) -> onnx.ModelProto:
    """Rewrite dialects to QDQ, mixtures of experts to one node each, and make the graph static; in place."""
    return simplify(recognise_moe(to_standard(model), batch), batch)


def to_relax(model: onnx.ModelProto) -> Imported:
    """Import a standardized model. Its initializers are released as they are converted, to bound memory."""
    _refuse_unknown(model)
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UnsupportedError(
            f"the model has {len(inputs)} inputs and {len(model.graph.output)} outputs; intaglio compiles models "
            "with one image input and one output: cut the graph to them"
        )
    _refuse_constant_output(model, inputs[0].name)
    _refuse_widths(model)
    _refuse_infinite(model)
    names = {out: node.name or node.output[0] for node in model.graph.node for out in node.output}
    # TVM's importer prints on errors.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        importer = _Importer()
        module = importer.from_onnx(model.graph, opset_of(model))
    return Imported(module, importer.provenance, names, inputs[0].name, model.graph.output[0].name)


def _refuse_constant_output(model: onnx.ModelProto, source: str) -> None:
    reached = {source}
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    output = model.graph.output[0].name
    if output not in reached:
        raise UnsupportedError(f"the output {output!r} is not computed from the input {source!r}")


def _refuse_widths(model: onnx.ModelProto) -> None:
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        kind = {"QuantizeLinear": node.output[:1], "DequantizeLinear": node.input[:1]}.get(node.op_type, [])
        for name in kind:
            code = types.get(name, onnx.TensorProto.INT8)
            dtype = onnx.TensorProto.DataType.Name(code).lower()
            if node.op_type == "QuantizeLinear" and dtype not in ACTIVATION_TYPES:
                raise UnsupportedError(
                    f"node {describe(node)}: {dtype} activations are not supported; use 8 or 16 bits"
                )
            if not dtype.lstrip("u").startswith("int"):
                raise UnsupportedError(
                    f"node {describe(node)}: {dtype} constants are not supported; quantize them to integers"
                )


def _refuse_infinite(model: onnx.ModelProto) -> None:
    """Bounds may be infinite, and conditions choose between any numbers; Q/DQ check their grids themselves."""
    readers = {
        name: node for node in model.graph.node if node.op_type not in UNBOUNDED for name in node.input
    }
    for tensor in model.graph.initializer:
        if tensor.name not in readers or tensor.data_type not in REAL_TYPES:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if not np.isfinite(values).all():
            wrong = values[~np.isfinite(values)][0]
            raise UnsupportedError(
                f"node {describe(readers[tensor.name])} reads the constant {tensor.name!r}, which holds {wrong}; "
                "integers have no such value"
            )


def _refuse_unknown(model: onnx.ModelProto) -> None:
    known = set(_get_convert_map())
    unknown = [
        node
        for node in model.graph.node
        if not mixture.is_mixture(node) and (node.domain not in ("", "ai.onnx") or node.op_type not in known)
    ]
    if unknown:
        listed = ", ".join(describe(node) for node in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise UnsupportedError(
            f"ops without an integer meaning here: {listed}{more}; replace them in the model"
        )


class _Importer(ONNXGraphImporter):
    """Names each result after its ONNX tensor and converts Q/DQ itself (TVM's refuse some widths)."""

    def __init__(self) -> None:
        super().__init__({}, "float32", keep_params_in_input=False, sanitize=False)
        self.provenance: dict[str, str] = {}

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """TVM's own check does not know our ops; `_refuse_unknown` has looked."""

    def from_onnx(self, graph: onnx.GraphProto, opset: int) -> tvm.IRModule:
        """Convert `graph`, whose nodes are renamed after their outputs: TVM tells `_convert_operator` only that."""
        self._dtype = {v.name: _dtype_name(v.type.tensor_type.elem_type) for v in graph.input}
        for node in graph.node:
            node.name = node.output[0]
        self._outputs = {node.name: list(node.output) for node in graph.node}
        self._shapes = {
            value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.value_info
        }
        try:
            return super().from_onnx(graph, opset)
        except Exception:
            with contextlib.suppress(Exception):
                self.bb._end_block()  # left open by the exception; TVM would complain on standard error
            raise

    def _parse_array(self, tensor_proto: onnx.TensorProto) -> Any:
        array = _widened(onnx.numpy_helper.to_array(tensor_proto))
        tensor_proto.ClearField("raw_data")
        try:
            return tvm.runtime.tensor(array)
        except Exception as error:  # types that NumPy and TVM lay out differently, or that TVM does not have
            raise UnsupportedError(
                f"the constant {tensor_proto.name!r} has the type {array.dtype}, which is not supported"
            ) from error

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> relax.Expr:
        tensor = attrs["tvm_custom"]["name"]
        try:
            result = self._converted(op_name, inputs, attrs)
            if result is None:
                result = super()._convert_operator(op_name, inputs, attrs, opset)
            return self._all_named(result, tensor)
        except IntaglioError:
            raise
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UnsupportedError(
                f"node {tensor!r} ({op_name}): TVM's importer does not take it: {why}"
            ) from error

    def _converted(self, op_name: str, inputs: Any, attrs: dict[str, Any]) -> relax.Expr | None:
        """The operators that are converted here; None for what is left to TVM."""
        tensor = attrs["tvm_custom"]["name"]
        if op_name in ("QuantizeLinear", "DequantizeLinear"):
            return _convert_qdq(op_name, inputs, attrs)
        if op_name == "Gather" and isinstance(inputs[1], GenericConst):
            return _convert_gather(inputs, attrs)
        if op_name in ("ArgMax", "ArgMin") and attrs.get("select_last_index"):
            raise UnsupportedError(
                f"node {tensor!r} ({op_name}): select_last_index is not supported; ties go to the lower index"
            )
        if op_name == "LayerNormalization" and len(self._outputs.get(tensor, [tensor])) == 1:
            return _convert_layer_norm(inputs, attrs)
        if op_name == "Clip" and all(
            bound is None or isinstance(bound, GenericConst) for bound in inputs[1:3]
        ):
            return _convert_clip(inputs)
        if op_name.startswith(mixture.PREFIX):
            return relax_op.call(inputs[0], list(inputs[1:]), k=attrs["k"], normalize=attrs["normalize"])
        if op_name in PAIRWISE:
            return functools.reduce(lambda a, b: self.bb.normalize(PAIRWISE[op_name](a, b)), inputs)
        return None

    def _all_named(self, result: relax.Expr, tensor: str) -> relax.Expr:
        if not isinstance(result, relax.Tuple):
            return self._named(result, tensor)
        fields = zip(result.fields, self._names(tensor, result), strict=True)
        return relax.Tuple([self._named(item, name) for item, name in fields])

    def _names(self, tensor: str, result: relax.Tuple) -> list[str]:
        outputs = self._outputs.get(tensor, [tensor])
        return outputs + [f"{tensor}.{i}" for i in range(len(outputs), len(result.fields))]

    def _named(self, result: relax.Expr, tensor: str) -> relax.Expr:
        """Bind a call to a variable named after its ONNX tensor; note what every variable stands for."""
        if isinstance(result, relax.Call):
            result = self.bb.normalize(result)
            result = self.bb.emit(result, name_hint=tensor)
        if isinstance(result, relax.Var):
            self.provenance.setdefault(result.name, tensor)
        self._check_shape(result, tensor)
        return result

    def _check_shape(self, result: relax.Expr, tensor: str) -> None:
        """What ONNX infers and what TVM infers must agree, or the two mean different things."""
        if not isinstance(result.ty, relax.TensorType) or tensor not in self._shapes:
            return
        here, there = [int(n) for n in result.ty.shape], self._shapes[tensor]
        if here != there:
            raise UnsupportedError(f"node {tensor!r}: ONNX infers the shape {there}, TVM's importer {here}")


def _dtype_name(elem_type: int) -> str:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type)).name


def _widened(array: Array) -> Array:
    """4-bit constants as 8-bit ones: same values, a type NumPy has."""
    narrow = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8, "uint2": np.uint8}.get(array.dtype.name)
    return np.asarray(array.astype(narrow) if narrow else array, order="C")


def _convert_gather(inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Gather by constant indices: no index arithmetic at run time."""
    x, indices = inputs[0], inputs[1].value.numpy()
    axis = attrs.get("axis", 0) % len(x.ty.shape)
    size = int(x.ty.shape[axis])
    counted = np.where(indices < 0, indices + size, indices).astype("int64")
    if counted.min(initial=0) < 0 or counted.max(initial=0) >= size:
        node = attrs["tvm_custom"]["name"]
        raise ModelError(
            f"node {node!r} (Gather): its indices run from {indices.min()} to {indices.max()}, on an axis of {size}"
        )
    return relax.op.take(x, relax.const(counted), axis=axis)


def _convert_clip(inputs: Any) -> relax.Expr:
    """A clip between numbers, which stays one operator; a missing bound, or NaN, does not bound."""
    bounds = [-np.inf, np.inf]
    for index, bound in enumerate(inputs[1:3]):
        if bound is not None and not np.isnan(bound.value.numpy()):
            bounds[index] = float(bound.value.numpy())
    return relax.op.clip(inputs[0], *bounds)


def _convert_layer_norm(inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """One result instead of TVM's three: the items of a tuple lose their names."""
    x, gamma = inputs[0], inputs[1]
    beta = inputs[2] if len(inputs) > 2 else None
    if beta is None:
        beta = relax.const(np.zeros([int(n) for n in gamma.ty.shape], "float32"))
    rank = len(x.ty.shape)
    axes = list(range(attrs.get("axis", -1) % rank, rank))
    return relax.op.nn.layer_norm(x, gamma, beta, axes, attrs.get("epsilon", 1e-5))


def _convert_qdq(op_name: str, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    node = attrs["tvm_custom"]["name"]
    x, scale = inputs[0], inputs[1]
    zero = inputs[2] if len(inputs) > 2 else None
    if attrs.get("block_size", 0):
        raise UnsupportedError(f"node {node!r}: blocked quantization is not supported")
    if not isinstance(scale, GenericConst) or not (zero is None or isinstance(zero, GenericConst)):
        raise UnsupportedError(
            f"node {node!r}: its scale or zero point is computed at run time; quantize the model statically"
        )
    scales = scale.value.numpy()
    zeros = (
        zero.value.numpy()
        if zero is not None
        else np.zeros(scales.shape, _quantized_dtype(op_name, x, attrs))
    )
    axis = attrs.get("axis", 1)
    _check_grid(node, scales, zeros, tuple(int(n) for n in x.ty.shape), axis)
    if scales.size == 1:
        scales, zeros, axis = scales.reshape(()).astype("float32"), zeros.reshape(()), -1
    if op_name == "DequantizeLinear":
        return relax.op.dequantize(x, relax.const(scales), relax.const(zeros), axis=axis)
    return relax.op.quantize(
        x, relax.const(scales), relax.const(zeros), axis=axis, out_dtype=str(zeros.dtype)
    )


def _check_grid(node: str, scales: Array, zeros: Array, shape: tuple[int, ...], axis: int) -> None:
    wrong = scales[~(np.isfinite(scales) & (scales >= 0))]
    if wrong.size:
        raise UnsupportedError(f"node {node!r} has the scale {wrong[0]}, which is not a positive number")
    if zeros.size != scales.size:
        raise UnsupportedError(
            f"node {node!r} has {zeros.size} zero points and {scales.size} scales, not as many"
        )
    if scales.size > 1 and (not -len(shape) <= axis < len(shape) or scales.shape != (shape[axis],)):
        raise UnsupportedError(f"node {node!r} has {scales.size} scales, on axis {axis} of {list(shape)}")


def _quantized_dtype(op_name: str, x: relax.Expr, attrs: dict[str, Any]) -> str:
    if op_name == "DequantizeLinear":
        return str(x.ty.dtype.dtype)
    code = attrs.get("output_dtype", 0)
    return _dtype_name(code) if code else "uint8"
