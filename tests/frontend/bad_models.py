"""Models that nobody can compile, and what must be said about each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.frontend.graphs import Array, Graph

Build = Callable[[], onnx.ModelProto]


@dataclass(frozen=True)
class Bad:
    """A model that is refused. `error` is the class of the refusal, `says` what its sentence must hold."""

    name: str
    build: Build
    error: str
    says: tuple[str, ...]


BAD: list[Bad] = []


def bad(error: str, *says: str) -> Callable[[Build], Build]:
    """Enter a model into the table."""

    def enter(build: Build) -> Build:
        BAD.append(Bad(build.__name__, build, error, says))
        return build

    return enter


def _linear(g: Graph, x: str | None = None) -> onnx.ModelProto:
    return g.model(g.linear(g.q("x") if x is None else x, 32))


def _graph() -> Graph:
    return Graph(1, 8, 24)


def _with_grid(scale: Array, zero: Array | None = None, **attrs: int) -> onnx.ModelProto:
    """x -> Q/DQ on the given grid -> linear."""
    g = _graph()
    grid = [g.constant(scale)]
    if zero is not None:
        grid.append(g.constant(zero, None))
    x = g.op("DequantizeLinear", g.op("QuantizeLinear", "x", *grid, **attrs), *grid, **attrs)
    y = g.op("MatMul", x, g.weight(g.normal(24, 32), axis=1))
    return g.model(g.q(y, scale=0.1, zero=0))


def _with_weight(integers: Array, scale: Array, zero: Array | None = None, **attrs: int) -> onnx.ModelProto:
    """A linear whose weight is dequantized as given."""
    g = _graph()
    names = [g.constant(integers, None), g.constant(scale)]
    if zero is not None:
        names.append(g.constant(zero, None))
    y = g.op("MatMul", g.q("x"), g.op("DequantizeLinear", *names, **attrs))
    return g.model(g.q(y, scale=0.1, zero=0))


INT8 = np.asarray(0, np.int8)
WEIGHTS = np.ones((24, 32), np.int8)


# --- operators ----------------------------------------------------------------------------------------------


@bad("UnsupportedError", "'Hardswitch_", "(Hardswitch)", "replace")
def an_unknown_op() -> onnx.ModelProto:
    g = _graph()
    return g.model(g.op("Hardswitch", g.q("x", scale=0.1, zero=0)))


@bad("UnsupportedError", "(my.ops::MatMul)", "replace")
def an_unknown_domain() -> onnx.ModelProto:
    g = _graph()
    return g.model(g.op("MatMul", g.q("x"), g.constant(np.ones((24, 24))), domain="my.ops"))


@bad("UnsupportedError", "(Det)", "replace")
def a_known_op_without_meaning() -> onnx.ModelProto:
    g = Graph(1, 8, 8)
    return g.model(g.op("Det", g.q("x")))


@bad("UnsupportedError", "ReduceMax_", "replace it in the model")
def an_imported_op_without_meaning() -> onnx.ModelProto:
    g = _graph()
    return g.model(g.q(g.op("ReduceMax", g.q("x"), g.constant([2], "int64"))))


@bad("UnsupportedError", "multiply", "combines two activations elementwise")
def a_product_of_two_activations() -> onnx.ModelProto:
    g = _graph()
    x = g.q("x")
    return g.model(g.q(g.op("Mul", g.linear(x, 24), g.linear(x, 24))))


@bad("UnsupportedError", "If")
def control_flow() -> onnx.ModelProto:
    g = _graph()
    x = g.q("x")
    branches = {}
    for name in ("then_branch", "else_branch"):
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, 8, 24])
        node = helper.make_node("Tanh" if name[0] == "t" else "Relu", [x], [out.name])
        branches[name] = helper.make_graph([node], name, [], [out])
    any_above = g.op("ReduceMax", x, keepdims=0)
    return g.model(
        g.q(g.op("If", g.op("Greater", any_above, g.constant(0.0)), **branches), scale=0.1, zero=0)
    )


@bad("UnsupportedError", "RandomNormal")
def random_numbers() -> onnx.ModelProto:
    g = _graph()
    noise = g.op("RandomNormal", shape=[1, 8, 24])
    return g.model(g.q(g.op("Add", g.q("x"), noise), scale=0.1, zero=0))


@bad("UnsupportedError", "Dropout_", "no integer meaning")
def dropout_in_training() -> onnx.ModelProto:
    g = _graph()
    dropped = g.op("Dropout", g.q("x"), g.constant(0.5), g.constant(True, "bool"))
    return g.model(g.q(g.op("Tanh", dropped), scale=0.1, zero=0))


# --- convolutions -------------------------------------------------------------------------------------------


def _conv(
    weight: tuple[int, ...], image: tuple[int, ...] = (1, 4, 16, 16), **attrs: object
) -> onnx.ModelProto:
    g = Graph(*image)
    return g.model(g.q(g.op("Conv", g.q("x"), g.weight(np.ones(weight), axis=0), **attrs), scale=1.0, zero=0))


@bad("UnsupportedError", "Conv_", "stride [2, 2]", "stride = kernel")
def an_overlapping_convolution() -> onnx.ModelProto:
    return _conv((8, 4, 4, 4), strides=[2, 2])


@bad("UnsupportedError", "Conv_", "padding [1, 1, 1, 1]", "no padding")
def a_padded_convolution() -> onnx.ModelProto:
    return _conv((8, 4, 3, 3), (1, 4, 16, 16), strides=[3, 3], pads=[1, 1, 1, 1])


@bad("UnsupportedError", "Conv_", "one group")
def a_grouped_convolution() -> onnx.ModelProto:
    return _conv((8, 2, 4, 4), strides=[4, 4], group=2)


@bad("UnsupportedError", "Conv_")
def a_dilated_convolution() -> onnx.ModelProto:
    return _conv((8, 4, 2, 2), strides=[2, 2], dilations=[2, 2])


@bad("UnsupportedError", "Conv_", "[1, 4, 18, 18]")
def patches_that_do_not_fill_the_image() -> onnx.ModelProto:
    return _conv((8, 4, 4, 4), (1, 4, 18, 18), strides=[4, 4])


# --- grids --------------------------------------------------------------------------------------------------


@bad("UnsupportedError", "QuantizeLinear_", "scale", "positive")
def a_scale_of_zero() -> onnx.ModelProto:
    return _with_grid(np.asarray(0.0), INT8)


@bad("UnsupportedError", "QuantizeLinear_", "scale", "positive")
def a_negative_scale() -> onnx.ModelProto:
    return _with_grid(np.asarray(-0.1), INT8)


@bad("UnsupportedError", "QuantizeLinear_", "scale", "nan", "positive")
def a_scale_that_is_nan() -> onnx.ModelProto:
    return _with_grid(np.asarray(np.nan), INT8)


@bad("UnsupportedError", "QuantizeLinear_", "scale", "inf", "positive")
def an_infinite_scale() -> onnx.ModelProto:
    return _with_grid(np.asarray(np.inf), INT8)


@bad("UnsupportedError", "DequantizeLinear_", "scale", "nan")
def a_weight_scale_that_is_nan() -> onnx.ModelProto:
    return _with_weight(WEIGHTS, np.asarray(np.nan))


@bad("UnsupportedError", "DequantizeLinear_", "-0.05", "positive")
def one_negative_weight_scale() -> onnx.ModelProto:
    scale = np.ones(32)
    scale[3] = -0.05
    return _with_weight(WEIGHTS, scale, axis=1)


@bad("UnsupportedError", "Add_", "'constant_", "nan")
def a_bias_that_is_nan() -> onnx.ModelProto:
    g = _graph()
    y = g.op("Add", g.linear(g.q("x"), 32, quantize=False), g.constant(np.full(32, np.nan)))
    return g.model(g.q(y, scale=0.1, zero=0))


@bad("UnsupportedError", "Add_", "'constant_", "-inf")
def a_mask_of_minus_infinity() -> onnx.ModelProto:
    g = _graph()
    y = g.q(g.op("Add", g.q("x"), g.constant(np.full((8, 24), -np.inf))), scale=0.1, zero=0)
    return g.model(g.q(g.op("Softmax", y, axis=-1), scale=0.1, zero=0))


@bad("UnsupportedError", "DequantizeLinear_", "scale", "inf")
def one_infinite_weight_scale() -> onnx.ModelProto:
    scale = np.ones(32)
    scale[3] = np.inf
    return _with_weight(WEIGHTS, scale, axis=1)


@bad("UnsupportedError", "QuantizeLinear_", "per channel", "one scale per activation")
def an_activation_per_channel() -> onnx.ModelProto:
    return _with_grid(np.full(24, 0.1), np.zeros(24, np.int8), axis=2)


@bad("UnsupportedError", "int32 activations", "8 or 16 bits")
def activations_of_32_bits() -> onnx.ModelProto:
    return _with_grid(np.asarray(0.1), np.asarray(0, np.int32))


@bad("UnsupportedError", "int4 activations", "8 or 16 bits")
def activations_of_4_bits() -> onnx.ModelProto:
    model = _with_grid(np.asarray(0.1), INT8)
    zero = next(t for t in model.graph.initializer if t.data_type == TensorProto.INT8 and not t.dims)
    zero.CopyFrom(helper.make_tensor(zero.name, TensorProto.INT4, [], [0]))
    return model


@bad("UnsupportedError", "float8e4m3fn", "QuantizeLinear_")
def activations_in_float8() -> onnx.ModelProto:
    model = _with_grid(np.asarray(0.1), INT8)
    zero = next(t for t in model.graph.initializer if t.data_type == TensorProto.INT8 and not t.dims)
    zero.CopyFrom(helper.make_tensor(zero.name, TensorProto.FLOAT8E4M3FN, [], [0.0]))
    return model


@bad("UnsupportedError", "float8", "DequantizeLinear_")
def weights_in_float8() -> onnx.ModelProto:
    g = _graph()
    weight = helper.make_tensor("w8", TensorProto.FLOAT8E4M3FN, [24, 32], np.ones(24 * 32))
    g.initializers.append(weight)
    y = g.op("MatMul", g.q("x"), g.op("DequantizeLinear", "w8", g.constant(0.1)))
    return g.model(g.q(y, scale=0.1, zero=0))


@bad("UnsupportedError", "weight must be", "within int16")
def weights_of_32_bits() -> onnx.ModelProto:
    return _with_weight(WEIGHTS.astype(np.int32) * 100_000, np.asarray(1e-6))


@bad("UnsupportedError", "blocked quantization")
def blocked_quantization() -> onnx.ModelProto:
    return _with_weight(WEIGHTS, np.ones((3, 32)), axis=0, block_size=8)


@bad("UnsupportedError", "summed over", "per output channel")
def weights_per_input_channel() -> onnx.ModelProto:
    return _with_weight(WEIGHTS, 1 + np.arange(24), axis=0)


@bad("UnsupportedError", "DequantizeLinear_", "24 scales")
def scales_of_another_axis() -> onnx.ModelProto:
    return _with_weight(WEIGHTS, 1 + np.arange(24), axis=1)


@bad("UnsupportedError", "DequantizeLinear_")
def an_axis_out_of_range() -> onnx.ModelProto:
    return _with_weight(WEIGHTS, 1 + np.arange(32), axis=5)


@bad("UnsupportedError", "DequantizeLinear_", "zero point")
def more_zero_points_than_scales() -> onnx.ModelProto:
    return _with_weight(WEIGHTS, np.asarray(0.1), np.zeros(32, np.int8))


@bad("UnsupportedError", "run time", "statically")
def a_dynamic_scale() -> onnx.ModelProto:
    g = _graph()
    scale = g.op("Div", g.op("ReduceMax", "x", keepdims=0), g.constant(127.0))
    zero = g.constant(0, "int8")
    return g.model(g.op("DequantizeLinear", g.op("QuantizeLinear", "x", scale, zero), scale, zero))


@bad("UnsupportedError", "DynamicQuantizeLinear", "run time", "intaglio quantize")
def dynamic_quantization() -> onnx.ModelProto:
    g = _graph()
    x, scale, zero = g.multi("DynamicQuantizeLinear", "x", outputs=3)
    return g.model(g.op("DequantizeLinear", x, scale, zero))


def _qonnx(bits: float, op: str = "Quant", **attrs: object) -> onnx.ModelProto:
    g = _graph()
    grid = (g.constant(0.1), g.constant(0.0))
    extra = (g.constant(bits),) if op == "Quant" else ()
    domain = "qonnx.custom_op.general"
    x = g.op(op, "x", *(grid + extra if op == "Quant" else grid[:1]), domain=domain, **attrs)
    y = g.op("MatMul", x, g.weight(g.normal(24, 32), axis=1))
    return g.model(g.q(y, scale=0.1, zero=0))


@bad("UnsupportedError", "Quant_", "1-bit activations", "2 to 8 or 16")
def qonnx_of_one_bit() -> onnx.ModelProto:
    return _qonnx(1)


@bad("UnsupportedError", "Quant_", "32-bit activations", "2 to 8 or 16")
def qonnx_of_32_bits() -> onnx.ModelProto:
    return _qonnx(32)


@bad("UnsupportedError", "Quant_", "bit width")
def qonnx_of_half_a_bit() -> onnx.ModelProto:
    return _qonnx(3.5)


@bad("UnsupportedError", "Quant_", "rounding mode 'FLOOR'")
def qonnx_that_rounds_down() -> onnx.ModelProto:
    return _qonnx(8, rounding_mode="FLOOR")


@bad("UnsupportedError", "BipolarQuant")
def qonnx_bipolar() -> onnx.ModelProto:
    return _qonnx(1, "BipolarQuant")


# --- calibration --------------------------------------------------------------------------------------------


@bad("CalibrationError", "tensors", "intaglio quantize")
def no_quantization_at_all() -> onnx.ModelProto:
    g = _graph()
    y = g.op("Relu", g.op("MatMul", "x", g.constant(g.normal(24, 32))))
    return g.model(g.op("MatMul", y, g.constant(g.normal(32, 10))))


@bad("CalibrationError", "(activation input)", "--calibrate")
def a_missing_scale() -> onnx.ModelProto:
    g = _graph()
    return g.model(g.q(g.op("Tanh", g.linear(g.q("x"), 32, quantize=False))))


@bad("CalibrationError", "(output)", "--calibrate")
def an_output_without_a_scale() -> onnx.ModelProto:
    g = _graph()
    return g.model(g.linear(g.q("x"), 32, quantize=False))


@bad("CalibrationError", "(weight)", "--calibrate")
def a_weight_without_a_scale() -> onnx.ModelProto:
    g = _graph()
    return g.model(g.q(g.op("MatMul", g.q("x"), g.constant(g.normal(24, 32)))))


# --- the graph ----------------------------------------------------------------------------------------------


@bad("UnsupportedError", "2 inputs and 1 outputs", "cut the graph")
def two_inputs() -> onnx.ModelProto:
    g = _graph()
    g.inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8, 24]))
    return g.model(
        g.q(g.op("Add", g.q("x", scale=0.1, zero=0), g.q("z", scale=0.1, zero=0)), scale=0.1, zero=0)
    )


@bad("UnsupportedError", "1 inputs and 2 outputs", "cut the graph")
def two_outputs() -> onnx.ModelProto:
    g = _graph()
    x = g.q("x")
    first, second = g.linear(x, 32), g.linear(x, 16)
    model = g.model(first)
    model.graph.output.append(onnx.ValueInfoProto(name=second))
    return model


@bad("UnsupportedError", "0 inputs")
def no_input() -> onnx.ModelProto:
    g = _graph()
    g.inputs = []
    return g.model(g.op("DequantizeLinear", g.constant(np.ones(3), "int8"), g.constant(0.1)))


@bad("UnsupportedError", "nothing to compile")
def nothing_but_a_quantizer() -> onnx.ModelProto:
    g = _graph()
    return g.model(g.q("x"))


@bad("UnsupportedError", "output", "not computed from the input")
def an_output_that_does_not_depend_on_the_input() -> onnx.ModelProto:
    g = _graph()
    g.q("x")
    return g.model(g.weight(g.normal(24, 32)))


@bad("UnsupportedError", "'x'", "dynamic shape", "'H'", "--batch")
def an_unbound_image_size() -> onnx.ModelProto:
    g = Graph(1, 3, 16, 16)
    x = g.q("x")
    y = g.op("Conv", x, g.weight(g.normal(32, 3, 4, 4), axis=0), strides=[4, 4])
    model = g.model(g.q(y))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"]))
    return model


@bad("UnsupportedError", "'x'", "no shape")
def an_input_without_a_shape() -> onnx.ModelProto:
    model = _linear(_graph())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


@bad("UnsupportedError", "'x'", "sequence")
def an_input_that_is_no_tensor() -> onnx.ModelProto:
    model = _linear(_graph())
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 8, 24])
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(kind))
    return model


@bad("UnsupportedError", "'x'", "[1, 0, 24]")
def an_empty_input() -> onnx.ModelProto:
    model = _linear(_graph())
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0
    return model


@bad("UnsupportedError", "'x'", "-8")
def a_negative_dimension() -> onnx.ModelProto:
    model = _linear(_graph())
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -8
    return model


@bad("UnsupportedError", "NonZero")
def a_shape_that_depends_on_values() -> onnx.ModelProto:
    g = _graph()
    return g.model(g.op("NonZero", g.q("x")))


@bad("ModelError", "MatMul_", "does not fit")
def matrices_that_do_not_fit() -> onnx.ModelProto:
    g = _graph()
    weight = g.weight(g.normal(23, 32), axis=1)
    return g.model(g.q(g.op("MatMul", g.q("x"), weight), scale=0.1, zero=0))


@bad("ModelError", "reads 'nothing'", "nothing before it defines")
def a_tensor_that_nobody_defines() -> onnx.ModelProto:
    g = _graph()
    return g.model(g.q(g.op("Add", g.q("x"), "nothing"), scale=0.1, zero=0))


@bad("ModelError", "topological order")
def nodes_out_of_order() -> onnx.ModelProto:
    model = _linear(_graph())
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@bad("ModelError", "graph output 'nothing'", "never computed")
def an_output_that_nobody_computes() -> onnx.ModelProto:
    model = _linear(_graph())
    model.graph.output[0].name = "nothing"
    return model


@bad("ModelError", "twice")
def one_name_twice() -> onnx.ModelProto:
    model = _linear(_graph())
    model.graph.node[-1].output[0] = model.graph.node[0].output[0]
    model.graph.output[0].name = model.graph.node[0].output[0]
    return model


@bad("ModelError", "opset 11", "13 to")
def an_old_opset() -> onnx.ModelProto:
    model = _linear(_graph())
    model.opset_import[0].version = 11
    return model


@bad("ModelError", "opset 0", "13 to")
def no_opset() -> onnx.ModelProto:
    model = _linear(_graph())
    del model.opset_import[:]
    return model


@bad("ModelError", "opset 999", "13 to")
def an_opset_of_the_future() -> onnx.ModelProto:
    model = _linear(_graph())
    model.opset_import[0].version = 999
    return model


@bad("ModelError", "no graph with nodes")
def no_nodes() -> onnx.ModelProto:
    model = _linear(_graph())
    del model.graph.node[:]
    return model


@bad("ModelError", "'constant_", "5")
def a_constant_with_too_few_values() -> onnx.ModelProto:
    model = _linear(_graph())
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.raw_data = tensor.raw_data[:5]
    return model


@bad("ModelError", "'constant_")
def a_constant_of_an_unknown_type() -> onnx.ModelProto:
    model = _linear(_graph())
    max(model.graph.initializer, key=lambda t: len(t.raw_data)).data_type = 99
    return model


@bad("ModelError", "MatMul_", "input")
def a_node_without_inputs() -> onnx.ModelProto:
    model = _linear(_graph())
    del next(n for n in model.graph.node if n.op_type == "MatMul").input[:]
    return model


@bad("ModelError", "QuantizeLinear_", "input")
def a_quantizer_without_a_scale() -> onnx.ModelProto:
    model = _linear(_graph())
    del model.graph.node[0].input[1:]
    return model


@bad("ModelError", "output")
def a_node_without_outputs() -> onnx.ModelProto:
    model = _linear(_graph())
    node = model.graph.node.add()
    node.op_type = "Relu"
    node.input.append("x")
    return model


@bad("ModelError", "Transpose_", "perm")
def an_attribute_of_another_type() -> onnx.ModelProto:
    g = _graph()
    y = g.op("Transpose", g.q("x"), perm=[0, 2, 1])
    model = g.model(g.q(y))
    node = next(n for n in model.graph.node if n.op_type == "Transpose")
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("perm", "abc"))
    return model


@bad("ModelError", "external data")
def external_data_that_is_not_there() -> onnx.ModelProto:
    model = _linear(_graph())
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return model


@bad("ModelError", "Gather_", "99")
def an_index_out_of_range() -> onnx.ModelProto:
    g = _graph()
    picked = g.op("Gather", g.q("x"), g.constant([0, 99], "int64"), axis=1)
    return g.model(g.q(g.op("Tanh", picked), scale=0.1, zero=0))


@bad("UnsupportedError", "Gather_", "[1, 0, 24]")
def an_empty_result() -> onnx.ModelProto:
    g = _graph()
    picked = g.op("Gather", g.q("x"), g.constant(np.zeros(0), "int64"), axis=1)
    return g.model(g.q(g.op("Tanh", picked), scale=0.1, zero=0))
