"""Random damage to ONNX graphs: each mutation takes a model and makes one change."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

Mutation = Callable[[onnx.ModelProto, random.Random], None]

OPS = (
    *("Add", "Sub", "Mul", "Div", "MatMul", "Softmax", "Transpose", "Relu", "Neg", "Erf", "Tanh", "Sigmoid"),
    *(
        "Reshape",
        "Concat",
        "Gather",
        "Identity",
        "Sqrt",
        "Exp",
        "LayerNormalization",
        "Max",
        "Pow",
        "ReduceMean",
    ),
    *("Squeeze", "Flatten", "Gelu", "Clip", "QuantizeLinear", "DequantizeLinear", "Expand", "Abs"),
)
TYPES = ("float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool")
SCALES = (0.0, -0.05, float("nan"), float("inf"), 1e30, 1e-30, 1e-3, 0.5, 3.0, 2.0**-149)
INTEGERS = (-(2**63), -(2**31), -129, -128, -3, -2, -1, 0, 1, 2, 3, 5, 7, 127, 128, 255, 2**31, 2**62)


def _node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    return rng.choice(model.graph.node)


def _constant(model: onnx.ModelProto, rng: random.Random) -> onnx.TensorProto:
    return rng.choice(model.graph.initializer)


def _tensors(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    return [
        *(value.name for value in graph.input),
        *(tensor.name for tensor in graph.initializer),
        *(name for node in graph.node for name in node.output),
    ]


def delete_node(model: onnx.ModelProto, rng: random.Random) -> None:
    """Without one node; its readers read its first input, or nothing."""
    index = rng.randrange(len(model.graph.node))
    node = onnx.NodeProto.FromString(model.graph.node[index].SerializeToString())
    del model.graph.node[index]
    if rng.random() < 0.8 and node.input:
        for other in model.graph.node:
            for i, name in enumerate(other.input):
                if name in node.output:
                    other.input[i] = node.input[0]


def duplicate_node(model: onnx.ModelProto, rng: random.Random) -> None:
    """One node twice in a row, the second one reading the first."""
    index = rng.randrange(len(model.graph.node))
    node = model.graph.node[index]
    second = onnx.NodeProto.FromString(node.SerializeToString())
    if not node.input or not node.output:
        return
    node.output[0] += "_first"
    second.name += "_second"
    if rng.random() < 0.8:
        second.input[0] = node.output[0]
    model.graph.node.insert(index + 1, second)


def swap_nodes(model: onnx.ModelProto, rng: random.Random) -> None:
    """Two nodes of the same number of inputs exchange their kind."""
    a, b = _node(model, rng), _node(model, rng)
    a.op_type, b.op_type = b.op_type, a.op_type
    mine, theirs = list(a.attribute), list(b.attribute)
    mine = [AttributeProto.FromString(x.SerializeToString()) for x in mine]
    theirs = [AttributeProto.FromString(x.SerializeToString()) for x in theirs]
    del a.attribute[:], b.attribute[:]
    a.attribute.extend(theirs)
    b.attribute.extend(mine)


def reorder_nodes(model: onnx.ModelProto, rng: random.Random) -> None:
    """Two nodes exchange their places."""
    i, j = (rng.randrange(len(model.graph.node)) for _ in range(2))
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    nodes[i], nodes[j] = nodes[j], nodes[i]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def rewire_input(model: onnx.ModelProto, rng: random.Random) -> None:
    """One operand becomes another tensor."""
    node = _node(model, rng)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(_tensors(model))


def swap_inputs(model: onnx.ModelProto, rng: random.Random) -> None:
    """The operands of a node in another order."""
    node = _node(model, rng)
    names = list(node.input)
    rng.shuffle(names)
    del node.input[:]
    node.input.extend(names)


def drop_input(model: onnx.ModelProto, rng: random.Random) -> None:
    """One operand less, or an empty name in its place."""
    node = _node(model, rng)
    if not node.input:
        return
    index = rng.randrange(len(node.input))
    if rng.random() < 0.5:
        node.input[index] = ""
    else:
        del node.input[index]


def add_input(model: onnx.ModelProto, rng: random.Random) -> None:
    """One operand more."""
    _node(model, rng).input.append(rng.choice(_tensors(model)))


def change_op(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another kind of node, with the same operands."""
    node = _node(model, rng)
    node.op_type = rng.choice(OPS)
    if rng.random() < 0.7:
        del node.attribute[:]


def change_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    """Other numbers in an attribute."""
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    attribute = rng.choice(rng.choice(nodes).attribute)
    if attribute.name.startswith("keepdims"):
        attribute.i = 1 - attribute.i  # ONNX does not say what other numbers mean
    elif attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(INTEGERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(SCALES)
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        values = list(attribute.ints)
        if rng.random() < 0.6:
            rng.shuffle(values)
        else:
            values[rng.randrange(len(values))] = rng.choice(INTEGERS)
        del attribute.ints[:]
        attribute.ints.extend(values)
    elif rng.random() < 0.5:
        attribute.name += "x"


def drop_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    """One attribute less: its default."""
    nodes = [node for node in model.graph.node if node.attribute]
    if nodes:
        node = rng.choice(nodes)
        del node.attribute[rng.randrange(len(node.attribute))]


def add_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    """One attribute more."""
    name = rng.choice(
        ("axis", "axes", "perm", "keepdims", "transB", "alpha", "block_size", "saturate", "epsilon")
    )
    value = rng.choice((rng.choice(INTEGERS), [0, 1], [1, 0], 0.5, "x"))
    _node(model, rng).attribute.append(helper.make_attribute(name, value))


def change_type(model: onnx.ModelProto, rng: random.Random) -> None:
    """A constant of another type, with the same values as far as it holds them."""
    tensor = _constant(model, rng)
    values = numpy_helper.to_array(tensor)
    with np.errstate(all="ignore"):
        tensor.CopyFrom(numpy_helper.from_array(values.astype(rng.choice(TYPES)), tensor.name))


def relabel_type(model: onnx.ModelProto, rng: random.Random) -> None:
    """A constant whose bytes are read as another type."""
    _constant(model, rng).data_type = rng.randrange(0, 28)


def change_values(model: onnx.ModelProto, rng: random.Random) -> None:
    """A constant with other values; scales and zero points are among the constants."""
    tensor = _constant(model, rng)
    values = np.array(numpy_helper.to_array(tensor))
    if not values.size:
        return
    flat = values.reshape(-1)
    index = slice(None) if rng.random() < 0.5 else slice(rng.randrange(flat.size), None)
    with np.errstate(all="ignore"):
        if values.dtype.kind == "f":
            flat[index] = rng.choice(SCALES)
        elif values.dtype.kind in "iu":
            info = np.iinfo(values.dtype)
            flat[index] = max(int(info.min), min(int(info.max), rng.choice(INTEGERS)))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def change_scale(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another scale of a Q or DQ node, of that node alone."""
    nodes = [n for n in model.graph.node if n.op_type.endswith("Linear") and len(n.input) > 1]
    if nodes:
        node = rng.choice(nodes)
        name = f"scale_{rng.randrange(10**9)}"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(rng.choice(SCALES)), name))
        node.input[1] = name


def change_shape(model: onnx.ModelProto, rng: random.Random) -> None:
    """A constant of another shape: of as many elements, or not."""
    tensor = _constant(model, rng)
    dims = list(tensor.dims)
    kind = rng.randrange(4)
    if kind == 0:
        rng.shuffle(dims)
    elif kind == 1:
        dims.insert(rng.randrange(len(dims) + 1), 1)
    elif kind == 2 and dims:
        dims[rng.randrange(len(dims))] = rng.choice((-1, 0, 1, 2, 7))
    else:
        dims = [int(np.prod(dims))]
    del tensor.dims[:]
    tensor.dims.extend(dims)


def transpose_constant(model: onnx.ModelProto, rng: random.Random) -> None:
    """A matrix with its axes exchanged."""
    tensor = _constant(model, rng)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values.T), tensor.name))


def change_input_shape(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another size of an axis of the input."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if dims:
        dims[rng.randrange(len(dims))].dim_value = rng.choice((-1, 0, 1, 2, 5, 12, 24))


def change_input_type(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another element type of the input."""
    types = (TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT64)
    model.graph.input[0].type.tensor_type.elem_type = rng.choice(types)


def change_opset(model: onnx.ModelProto, rng: random.Random) -> None:
    """The same graph read as another opset."""
    model.opset_import[0].version = rng.randrange(11, onnx.defs.onnx_opset_version() + 2)


def change_output(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another tensor as the result."""
    names = [name for node in model.graph.node for name in node.output]
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name=rng.choice(names)))


def remove_rounding(model: onnx.ModelProto, rng: random.Random) -> None:
    """A Q/DQ pair less."""
    pairs = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    if not pairs:
        return
    q = rng.choice(pairs)
    for dq in [
        n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[:1] == q.output[:1]
    ]:
        for node in model.graph.node:
            for i, name in enumerate(node.input):
                if name in dq.output:
                    node.input[i] = q.input[0]
        if model.graph.output[0].name in dq.output:
            model.graph.output[0].name = q.input[0]


MUTATIONS: tuple[Mutation, ...] = (
    delete_node,
    duplicate_node,
    swap_nodes,
    reorder_nodes,
    rewire_input,
    swap_inputs,
    drop_input,
    add_input,
    change_op,
    change_attribute,
    drop_attribute,
    add_attribute,
    change_type,
    relabel_type,
    change_values,
    change_scale,
    change_shape,
    transpose_constant,
    change_input_shape,
    change_input_type,
    change_opset,
    change_output,
    remove_rounding,
)


def is_tame(model: onnx.ModelProto) -> bool:
    """Whether no number of the graph is so large or small that float32 arithmetic overflows or vanishes."""
    numbers = [a.f for node in model.graph.node for a in node.attribute if a.type == AttributeProto.FLOAT]
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            numbers.extend(values.reshape(-1).tolist())
    sizes = np.abs(np.asarray(numbers, np.float64))
    return bool(np.isfinite(sizes).all() and ((sizes == 0) | ((sizes > 1e-8) & (sizes < 1e5))).all())


def mutate(model: onnx.ModelProto, seed: int, count: int) -> onnx.ModelProto:
    """A copy of `model` with `count` random changes, determined by `seed`."""
    rng = random.Random(seed)
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    for _ in range(count):
        try:
            rng.choice(MUTATIONS)(changed, rng)
        except (IndexError, KeyError, TypeError, ValueError):
            continue  # an earlier change left nothing to change
    return changed
