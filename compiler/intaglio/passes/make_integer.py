"""QDQ graph -> integer ops: the heart of the compiler.

One walk in dataflow order keeps a description of every real tensor (`lazy.py`). Quantize and dequantize move values onto and off
grids; scale factors, biases and data movement change descriptions only; an integer op is emitted when an exact result meets its
grid (`emit.py`). Requires canonical movement and recognised LayerNorms; ensures that `main` holds `intaglio.*` calls only.

Raises UnsupportedError naming each node that has no integer meaning, CalibrationError naming each tensor without a scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from intaglio.errors import CalibrationError, UnsupportedError
from intaglio.ops.base import Grid
from intaglio.passes import lazy
from intaglio.passes.elementwise import binary_function, unary_function
from intaglio.passes.emit import Emitter, Missing, Preprocessing
from intaglio.passes.graph import (
    Graph,
    constant,
    dtype_of,
    inputs_of,
    ints,
    live_variables,
    op_name,
    shape_of,
)
from intaglio.passes.lazy import (
    Affine,
    Const,
    Linear,
    Norm,
    OnGrid,
    Pending,
    Probabilities,
    Unary,
    Unknown,
    Value,
)
from intaglio.passes.moves import attrs_of, moved_axis, moved_const

SHOWN = 8


@dataclass(frozen=True)
class MakeInteger:
    """The pass; its fields are its options. `names`: Relax variable -> ONNX tensor; `nodes`: ONNX tensor -> node."""

    names: dict[str, str]
    nodes: dict[str, str]
    preprocessing: Preprocessing = Preprocessing()
    nonlinear: str = "exact"

    def __call__(self, module: tvm.IRModule) -> tvm.IRModule:
        """Relax to Relax."""
        module, missing = self.run(module)
        if missing:
            raise missing_scales(missing)
        return module

    def analyse(self, module: tvm.IRModule) -> list[Missing]:
        """What calibration would have to supply, without failing."""
        return self.run(module)[1]

    def run(self, module: tvm.IRModule) -> tuple[tvm.IRModule, list[Missing]]:
        graph = Graph(module)
        builder = relax.BlockBuilder()
        parameter = graph.parameters[0]
        quantized_input = self._input_type(graph)
        model_input = relax.Var(parameter.name, quantized_input)
        emitter = Emitter(builder, self.preprocessing, self.nonlinear)
        walk = _Walk(graph, emitter, self.names, model_input)
        with builder.function("main", [model_input]):
            with builder.dataflow():
                result = builder.emit_output(walk.result())
            builder.emit_func_output(result)
        if walk.problems:
            raise _unsupported({self.nodes.get(tensor, tensor): why for tensor, why in walk.problems.items()})
        module = builder.get()
        if isinstance(walk.output, OnGrid) and not walk.emitter.missing:
            module["main"] = module["main"].with_attrs(_interface(walk))
        return module, walk.emitter.missing

    def _input_type(self, graph: Graph) -> relax.TensorType:
        """uint8 for raw pixels, else the type of the grid that the graph quantizes its input to (int8 until known)."""
        parameter = graph.parameters[0]
        if self.preprocessing.kind == "uint8":
            return relax.TensorType(shape_of(parameter), "uint8")
        if dtype_of(parameter) in ("int8", "int16"):
            return relax.TensorType(shape_of(parameter), dtype_of(parameter))
        kinds = [
            dtype_of(user)
            for user in graph.users(parameter)
            if op_name(graph.definition[user]) == "relax.quantize"
        ]
        return relax.TensorType(shape_of(parameter), kinds[0].lstrip("u") if kinds else "int16")


def _interface(walk: _Walk) -> dict[str, str]:
    """Grids of input and output, as function attributes (floats as text: they must survive to the bit)."""
    assert isinstance(walk.output, OnGrid)
    grids = {"output": walk.output.grid} | ({"input": walk.input_grid} if walk.input_grid else {})
    return {f"{key}_grid": f"{grid.scale!r} {grid.zero_point} {grid.dtype}" for key, grid in grids.items()}


def missing_scales(missing: list[Missing]) -> CalibrationError:
    shown = ", ".join(f"{m.tensor!r} ({m.role})" for m in missing[:SHOWN])
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return CalibrationError(
        f"{len(missing)} tensors are left in floating point, without a quantization scale: {shown}{more}; complete the model with "
        "`intaglio quantize --complete MODEL --calibrate images/ -o OUT.onnx` (its own scales are kept) and compile OUT.onnx"
    )


def _unsupported(problems: dict[str, str]) -> UnsupportedError:
    lines = [f"node {node!r} {why}" for node, why in problems.items()]
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return UnsupportedError(f"not everything can be made integer. {'; '.join(lines[:SHOWN])}{more}")


class _Refused(Exception):
    """Why one node has no integer meaning; becomes a line of the error."""


class _Walk:
    """State of one walk: the description of every variable."""

    def __init__(self, graph: Graph, emitter: Emitter, names: dict[str, str], model_input: relax.Var) -> None:
        self.graph = graph
        self.emitter = emitter
        self.names = names
        self.problems: dict[str, str] = {}
        self.input_grid: Grid | None = None
        self.output: Value | None = None
        self.model_input = model_input
        parameter = graph.parameters[0]
        self.values: dict[relax.Var, Value] = {parameter: self._parameter(parameter)}
        self.raw: dict[relax.Var, relax.Expr] = {}
        self.current = ""

    def _parameter(self, parameter: relax.Var) -> Value:
        shape = shape_of(parameter)
        tensor = self.names.get(parameter.name, parameter.name)
        return lazy.Input(shape, var=self.model_input, nodes=(tensor,))

    def result(self) -> relax.Expr:
        """Walk all live bindings; return the integer expression of the graph's result."""
        live = live_variables(self.graph)
        bindings = [(var, value) for var, value in self.graph.bindings if var in live]
        owners = self._owners(bindings)
        for var, value in bindings:
            self.current = owners[var]
            self.values[var] = self._visit(var, value)
        return self._output()

    def _owners(self, bindings: list[tuple[relax.Var, relax.Expr]]) -> dict[relax.Var, str]:
        """The ONNX tensor that each variable belongs to: an unnamed one to the next named one."""
        owners: dict[relax.Var, str] = {}
        owner = ""
        for var, _ in reversed(bindings):
            owner = self.names.get(var.name, owner or var.name)
            owners[var] = owner
        return owners

    def _output(self) -> relax.Expr:
        final = self.graph.result
        if isinstance(final, relax.Var) and final in self.raw:
            return self.raw[final]
        value = self.values.get(final) if isinstance(final, relax.Var) else None
        if value is None or isinstance(value, Unknown):
            if not self.problems:
                self.problems["the graph's output"] = "is not computed from the input"
            return self.model_input
        self.output = self.emitter.need(value, "output")
        if self.output.expr.same_as(self.model_input):
            self.problems["the graph's output"] = "is its input: there is nothing to compile"
        return self.output.expr

    def _visit(self, var: relax.Var, value: relax.Expr) -> Value:
        if isinstance(value, relax.Var):
            return self._value(value)
        if any(isinstance(self.values.get(used), Unknown) for used in inputs_of(value)):
            return Unknown(())
        try:
            result = self._dispatch(var, value)
        except (_Refused, ValueError) as refusal:
            kind = op_name(value).removeprefix("relax.") or type(value).__name__
            self.problems[self.current] = f"({kind}) {refusal}"
            return Unknown(())
        return result.noted(self.current)

    def _dispatch(self, var: relax.Var, value: relax.Expr) -> Value:
        name = op_name(value)
        handler = self._HANDLERS.get(name)
        if handler is not None:
            return handler(self, var, value)
        if isinstance(value, relax.TupleGetItem):
            return self._tuple_item(var, value)
        if name and binary_function(name):
            return self._binary(
                name, self._operand(value.args[0]), self._operand(value.args[1]), shape_of(var)
            )
        if name and (function := unary_function(value)) is not None:
            x = self._value(value.args[0])
            if isinstance(x, Const):
                return Const(x.shape, values=function(x.real()))
            return self._unary(x).then(function)
        raise _Refused("has no integer meaning; replace it in the model, or cut the model before it")

    def _operand(self, expr: relax.Expr) -> Value:
        """An elementwise operand. An exact result that others read too must meet one grid first: x * sigmoid(x) has one x."""
        value = self._value(expr)
        if isinstance(value, Pending) and isinstance(value.kind, Linear) and len(self.graph.users(expr)) > 1:
            users = {op_name(self.graph.definition[user]) for user in self.graph.users(expr)}
            if not users & {"relax.quantize", "relax.nn.layer_norm"}:
                return self.emitter.need(value, "activation input")
        return value

    def _value(self, expr: relax.Expr) -> Value:
        if isinstance(expr, relax.Var):
            return self.values[expr]
        array = constant(expr)
        if array is not None:
            return Const(array.shape, values=array)
        scalar = getattr(expr, "value", None)
        if isinstance(scalar, int | float):
            return Const((), values=np.asarray(scalar))
        raise _Refused("reads something that is neither a tensor nor a constant")

    # --- quantize and dequantize ---------------------------------------------------------------------------------------

    def _quantize(self, var: relax.Var, call: relax.Call) -> Value:
        value = self._value(call.args[0])
        scale, zero = constant(call.args[1]), constant(call.args[2])
        assert scale is not None and zero is not None
        if isinstance(value, Const):
            return _quantized_const(value, scale, zero, int(call.attrs.axis))
        if scale.size != 1:
            raise _Refused(
                "quantizes an activation per channel; intaglio takes one scale per activation tensor"
            )
        grid = _grid(scale, zero, self.current)
        if isinstance(value, lazy.Input):
            return self._quantize_input(value, grid)
        return self.emitter.quantize(value, grid)

    def _quantize_input(self, value: lazy.Input, grid: Grid) -> Value:
        if self.input_grid is None:
            self.input_grid = grid
        first = self.emitter.on_grid(value, self.input_grid)
        return self.emitter.quantize(first, grid)

    def _dequantize(self, var: relax.Var, call: relax.Call) -> Value:
        value = self._value(call.args[0])
        scale, zero = constant(call.args[1]), constant(call.args[2])
        assert scale is not None and zero is not None
        if isinstance(value, Const):
            if value.integers is not None:
                return value
            assert value.values is not None
            axis = int(call.attrs.axis)
            return Const(
                value.shape,
                integers=value.values,
                scale=_along(scale, value.shape, axis),
                zero=_along(zero, value.shape, axis),
            )
        if scale.size != 1:
            raise _Refused(
                "dequantizes an activation per channel; intaglio takes one scale per activation tensor"
            )
        grid = _grid(scale, zero, self.current)
        if isinstance(value, lazy.Input):
            return self._quantize_input(value, grid)
        if getattr(value, "grid", None) == grid:
            return value
        on_grid = self.emitter.need(value, "dequantize")
        if on_grid.grid.dtype != grid.dtype:
            raise _Refused(f"reads {on_grid.grid.dtype} values as {grid.dtype}")
        return replace(on_grid, grid=grid, exact=None)

    # --- products ----------------------------------------------------------------------------------------------------

    def _matmul(self, var: relax.Var, call: relax.Call) -> Value:
        a, b = self._value(call.args[0]), self._value(call.args[1])
        shape = shape_of(var)
        if isinstance(b, Const):
            return self._linear(a, b, shape)
        if isinstance(a, Const):
            raise _Refused(
                "multiplies a constant by an activation; intaglio takes activation times constant (transpose the product)"
            )
        if a.shape[:-2] != b.shape[:-2]:
            raise _Refused(
                f"multiplies batches of shapes {list(a.shape)} and {list(b.shape)}; they must be equal"
            )
        right = self.emitter.need(b, "matmul input")
        if isinstance(a, Probabilities):
            kind: object = lazy.Attention(a, right)
        else:
            kind = lazy.MatMul(self.emitter.need(a, "matmul input"), right)
        return Pending(
            shape, kind=kind, tensor=self.current, nodes=(*a.nodes, *b.nodes), channel_axis=len(shape) - 1
        )

    def _linear(self, a: Value, b: Const, shape: tuple[int, ...]) -> Value:
        if isinstance(a, Const):
            return Const(shape, values=a.real() @ b.real())
        if int(np.prod(b.shape[:-2])) != 1 or len(b.shape) < 2:
            raise _Refused(
                f"multiplies by a constant of shape {list(b.shape)}; intaglio takes a matrix [K, N]"
            )
        x = self.emitter.need(a, "linear input")
        weight, scale = self._weights(b, axis=-1)
        matrix = np.ascontiguousarray(weight.reshape(weight.shape[-2:]).T)
        kind = Linear(x, matrix, scale)
        return Pending(
            shape, kind=kind, tensor=self.current, nodes=(*a.nodes, *b.nodes), channel_axis=len(shape) - 1
        )

    def _weights(self, value: Const, axis: int) -> tuple[lazy.Array, lazy.Real]:
        """Centred integers, and one scale per index of `axis`."""
        if value.integers is None:
            return self._float_weights(value, axis)
        assert value.scale is not None and value.zero is not None
        integers = (
            value.integers
            if not value.zero.any()
            else value.integers.astype(np.int16) - value.zero.astype(np.int16)
        )
        channels = value.shape[axis]
        if value.scale.size == 1:
            return integers, np.full(channels, float(value.scale.reshape(())), np.float64)
        full = (
            np.moveaxis(np.broadcast_to(value.scale, value.shape), axis, 0)
            .reshape(channels, -1)
            .astype(np.float64)
        )
        if (full != full[:, :1]).any():
            raise _Refused(
                "has weights quantized along the axis that is summed over; quantize them per output channel or per tensor"
            )
        return integers, full[:, 0].copy()

    def _float_weights(self, value: Const, axis: int) -> tuple[lazy.Array, lazy.Real]:
        self.emitter.missing.append(Missing(self.current, "weight"))
        peak = np.abs(np.moveaxis(value.real(), axis, 0)).reshape(value.shape[axis], -1).max(axis=1)
        return np.zeros(value.shape, np.int8), np.where(peak > 0, peak / 127, 1.0)

    def _conv(self, var: relax.Var, call: relax.Call) -> Value:
        x, weight = self._value(call.args[0]), self._value(call.args[1])
        if not isinstance(weight, Const):
            raise _Refused("is a convolution with computed weights")
        kernel = list(weight.shape[2:])
        attrs = call.attrs
        plain = ints(attrs.strides) == kernel and not any(ints(attrs.padding)) and int(attrs.groups) == 1
        if (
            not plain
            or set(ints(attrs.dilation)) != {1}
            or any(n % k for n, k in zip(x.shape[2:], kernel, strict=True))
        ):
            raise _Refused(
                f"is a convolution with kernel {kernel}, stride {ints(attrs.strides)}, padding {ints(attrs.padding)}, groups "
                f"{int(attrs.groups)} on {list(x.shape)}; intaglio takes patch embeddings: stride = kernel, no padding, one group"
            )
        image = self.emitter.need(x, "linear input")
        integers, scale = self._weights(weight, axis=0)
        kind = Linear(image, integers, scale, patch=(kernel[0], kernel[1]))
        batch, channels, height, width = shape_of(var)
        moves = (
            attrs_of("transpose", axes=[0, 2, 1]),
            attrs_of("reshape", shape=[batch, channels, height, width]),
        )
        nodes = (*x.nodes, *weight.nodes)
        return Pending(
            shape_of(var), kind=kind, tensor=self.current, nodes=nodes, moves=moves, channel_axis=1
        )

    # --- normalization, softmax, pooling -----------------------------------------------------------------------------

    def _layer_norm(self, var: relax.Var, call: relax.Call) -> Value:
        x, gamma, beta = (self._value(arg) for arg in call.args[:3])
        axes = [axis % len(x.shape) for axis in ints(call.attrs.axes)]
        if not isinstance(gamma, Const) or not isinstance(beta, Const) or axes != [len(x.shape) - 1]:
            raise _Refused(
                f"is a LayerNorm over axes {axes} of {list(x.shape)}; intaglio takes constant parameters and the last axis"
            )
        kind = Norm(
            self.emitter.need(x, "layernorm input"),
            gamma.real().reshape(-1),
            beta.real().reshape(-1),
            float(call.attrs.epsilon),
        )
        return Pending(x.shape, kind=kind, tensor=self.current, nodes=x.nodes, channel_axis=len(x.shape) - 1)

    def _softmax(self, var: relax.Var, call: relax.Call) -> Value:
        x = self._value(call.args[0])
        if int(call.attrs.axis) % len(x.shape) != len(x.shape) - 1:
            raise _Refused(
                f"is a softmax over axis {int(call.attrs.axis)} of {list(x.shape)}; intaglio takes the last axis"
            )
        if isinstance(x, Unary) and x.function is None and x.grid is not None and x.source.exact is not None:
            x = self._rescored(x, x.source.exact, x.grid)
        scores = self.emitter.need(x, "attention scores")
        return Probabilities(x.shape, scores=scores, nodes=x.nodes)

    def _rescored(self, x: Unary, exact: Pending, grid: Grid) -> Value:
        """Scores rounded twice (MatMul, Q/DQ, scale, Q/DQ): once, on the grid that softmax reads, is more exact."""
        if not isinstance(exact.kind, lazy.MatMul):
            return x
        return self.emitter.on_grid(replace(exact, nodes=(*exact.nodes, *x.nodes)), grid)

    def _mean(self, var: relax.Var, call: relax.Call) -> Value:
        x = self._value(call.args[0])
        axes = [axis % len(x.shape) for axis in ints(call.attrs.axis or range(len(x.shape)))]
        source = self.emitter.need(x, "pooling input")
        if len(axes) > 1:
            source, axes = self._merged(source, axes)
        kind = lazy.Mean(source, axes[0], False)
        result = shape_of(var)
        reduced = tuple(n for i, n in enumerate(source.shape) if i != axes[0])
        moves = () if reduced == result else (attrs_of("reshape", shape=list(result)),)
        return Pending(result, kind=kind, tensor=self.current, nodes=x.nodes, moves=moves)

    def _merged(self, x: OnGrid, axes: list[int]) -> tuple[OnGrid, list[int]]:
        """Adjacent reduced axes as one."""
        if axes != list(range(axes[0], axes[0] + len(axes))):
            raise _Refused(f"averages over axes {axes}; intaglio takes one axis, or adjacent ones")
        size = int(np.prod([x.shape[a] for a in axes]))
        shape = [*x.shape[: axes[0]], size, *x.shape[axes[-1] + 1 :]]
        expr = self.emitter.move(x.expr, attrs_of("reshape", shape=shape), x.grid)
        return replace(x, shape=tuple(shape), expr=expr, exact=None), axes[:1]

    # --- elementwise -------------------------------------------------------------------------------------------------

    def _unary(self, value: Value) -> Unary:
        if isinstance(value, Unary):
            return value
        source = self.emitter.need(value, "activation input")
        return Unary(value.shape, source=source, nodes=value.nodes)

    def _binary(self, name: str, a: Value, b: Value, shape: tuple[int, ...]) -> Value:
        function = binary_function(name)
        assert function is not None
        if isinstance(a, Const) and isinstance(b, Const):
            return Const(shape, values=function(a.real(), b.real()))
        op = name.removeprefix("relax.")
        if isinstance(a, Const) and op in ("add", "multiply", "maximum", "minimum"):
            a, b = b, a
        if isinstance(b, Const):
            return self._with_constant(op, a, b, shape)
        if isinstance(a, Const):
            assert not isinstance(b, Const)
            return self._constant_first(op, a, b)
        if (both := self._same_source(op, a, b)) is not None:
            return both
        if op in ("add", "subtract"):
            return self._sum(a, b, shape, 1 if op == "add" else -1)
        raise _Refused("combines two activations elementwise; intaglio adds and subtracts them, nothing else")

    def _constant_first(self, op: str, a: Const, b: Value) -> Value:
        scalar = a.scalar
        if scalar is None:
            raise _Refused("has a constant tensor as its first operand")
        function = binary_function(f"relax.{op}")
        assert function is not None
        return self._unary(b).then(lambda x: function(scalar, x))

    def _same_source(self, op: str, a: Value, b: Value) -> Value | None:
        """X * sigmoid(x) and the like: two unary functions of one tensor are one."""
        if not any(isinstance(v, Unary) for v in (a, b)) and op in ("add", "subtract") and a is not b:
            return None
        if not all(isinstance(v, Unary | OnGrid) for v in (a, b)):
            if a is not b or op in ("add", "subtract"):
                return None
        left, right = self._unary(a), self._unary(b)
        if not left.source.expr.same_as(right.source.expr):
            return None
        scale = right.source.grid.scale / left.source.grid.scale
        if left.source.grid.zero_point != right.source.grid.zero_point:
            return None
        function = binary_function(f"relax.{op}")
        assert function is not None
        f, g = left.then(lambda x: x).function, right.then(lambda x: x).function
        assert f is not None and g is not None
        nodes = tuple(dict.fromkeys((*a.nodes, *b.nodes)))
        return Unary(
            left.shape, source=left.source, function=lambda x: function(f(x), g(x * scale)), nodes=nodes
        )

    def _with_constant(self, op: str, a: Value, b: Const, shape: tuple[int, ...]) -> Value:
        if a.shape == shape and op in ("add", "subtract") and not b.real().any():
            return a  # an attention mask that masks nothing
        scalar = b.scalar
        if scalar is not None and a.shape == shape:
            return self._with_scalar(op, a, scalar)
        if op == "divide":
            op, b = "multiply", Const(b.shape, values=1.0 / b.real())
        if op == "subtract":
            op, b = "add", Const(b.shape, values=-b.real())
        if op == "multiply":
            return self._scaled(a, b, shape)
        if op == "add":
            return self._shifted(a, b, shape)
        raise _Refused(f"combines an activation with a constant of shape {list(b.shape)}")

    def _with_scalar(self, op: str, a: Value, scalar: float) -> Value:
        if op in ("multiply", "divide") and scalar != 0:
            factor = scalar if op == "multiply" else 1.0 / scalar
            if isinstance(a, Pending) and not isinstance(a.kind, lazy.Concat):
                return replace(a, factor=a.factor * factor, tensor=self.current)
            if isinstance(a, OnGrid) and factor > 0:
                return a.times(factor)
        if (
            op in ("add", "subtract")
            and isinstance(a, Pending)
            and isinstance(a.kind, Linear | Affine | Norm)
        ):
            return self._biased(a, np.full(_channels(a.kind), scalar if op == "add" else -scalar))
        function = binary_function(f"relax.{op}")
        assert function is not None
        return self._unary(a).then(lambda x: function(x, scalar))

    def _scaled(self, a: Value, b: Const, shape: tuple[int, ...]) -> Value:
        if isinstance(a, Pending) and (vector := _channel_vector(a, b)) is not None:
            return replace(
                a, kind=_with_gain(a.kind, vector), tensor=self.current, nodes=(*a.nodes, *b.nodes)
            )
        vector = _last_axis(b, shape)
        if vector is None or a.shape != shape:
            raise _Refused(
                f"multiplies {list(a.shape)} by a constant of shape {list(b.shape)}; intaglio takes one factor per channel"
            )
        x = self.emitter.need(a, "scale input")
        kind = Affine(x, vector, np.zeros_like(vector))
        return Pending(
            shape, kind=kind, tensor=self.current, nodes=(*a.nodes, *b.nodes), channel_axis=len(shape) - 1
        )

    def _shifted(self, a: Value, b: Const, shape: tuple[int, ...]) -> Value:
        if isinstance(a, Pending) and a.factor > 0 and (vector := _channel_vector(a, b)) is not None:
            return self._biased(a, vector)
        exact = a.exact if isinstance(a, OnGrid) else None
        if exact is not None and exact.factor > 0 and (vector := _channel_vector(exact, b)) is not None:
            return self._biased(replace(exact, nodes=(*exact.nodes, *a.nodes, *b.nodes)), vector)
        return self._sum(a, b, shape, 1)

    def _biased(self, a: Pending, vector: lazy.Real) -> Value:
        return replace(a, kind=_with_bias(a.kind, vector / a.factor), tensor=self.current)

    def _sum(self, a: Value, b: Value, shape: tuple[int, ...], sign: int) -> Value:
        if a.shape != shape:
            a, b = b, a
            if sign < 0:
                raise _Refused(f"subtracts {list(a.shape)} from a tensor that is broadcast")
        if a.shape != shape or not _suffix(b.shape, shape):
            raise _Refused(
                f"adds tensors of shapes {list(a.shape)} and {list(b.shape)}; intaglio broadcasts leading axes only"
            )
        kind = lazy.Sum(self.emitter.need(a, "residual"), self.emitter.need(b, "residual"), sign)
        return Pending(shape, kind=kind, tensor=self.current, nodes=(*a.nodes, *b.nodes))

    # --- data movement -----------------------------------------------------------------------------------------------

    def _reshape(self, var: relax.Var, call: relax.Call) -> Value:
        return self._moved(call.args[0], attrs_of("reshape", shape=list(shape_of(var))), shape_of(var))

    def _transpose(self, var: relax.Var, call: relax.Call) -> Value:
        rank = len(shape_of(var))
        axes = ints(call.attrs.axes) if call.attrs.axes is not None else list(range(rank))[::-1]
        return self._moved(call.args[0], attrs_of("transpose", axes=[a % rank for a in axes]), shape_of(var))

    def _slice(self, var: relax.Var, call: relax.Call) -> Value:
        begin, end, strides = (ints(arg) for arg in call.args[2:5])
        return self._moved(
            call.args[0], attrs_of("slice", begin=begin, end=end, strides=strides), shape_of(var)
        )

    def _take(self, var: relax.Var, call: relax.Call) -> Value:
        indices = constant(call.args[1])
        if indices is None:
            raise _Refused("gathers by computed indices")
        axis = int(call.attrs.axis) % len(shape_of(call.args[0]))
        source = shape_of(call.args[0])
        flat = (*source[:axis], indices.size, *source[axis + 1 :])
        moved = self._moved(
            call.args[0], attrs_of("gather", axis=axis, indices=indices.reshape(-1).tolist()), flat
        )
        return (
            moved
            if flat == shape_of(var)
            else self._move(moved, attrs_of("reshape", shape=list(shape_of(var))), shape_of(var))
        )

    def _broadcast(self, var: relax.Var, call: relax.Call) -> Value:
        return self._moved(call.args[0], attrs_of("broadcast", shape=list(shape_of(var))), shape_of(var))

    def _moved(self, expr: relax.Expr, move: lazy.Move, shape: tuple[int, ...]) -> Value:
        return self._move(self._value(expr), move, shape)

    def _move(self, value: Value, move: lazy.Move, shape: tuple[int, ...]) -> Value:
        if isinstance(value, Const):
            return moved_const(value, move, shape)
        if isinstance(value, Pending):
            axis = moved_axis(value.channel_axis, value.shape, move)
            return replace(value, shape=shape, moves=(*value.moves, move), channel_axis=axis)
        if isinstance(value, Unary) and value.grid is None:
            source = self.emitter.need(value.source, "move")
            moved = replace(
                source, expr=self.emitter.move(source.expr, move, source.grid), shape=shape, exact=None
            )
            return replace(value, source=moved, shape=shape)
        on_grid = self.emitter.need(value, "move")
        expr = self.emitter.move(on_grid.expr, move, on_grid.grid, on_grid.nodes[-1:])
        return OnGrid(shape, expr=expr, grid=on_grid.grid, nodes=on_grid.nodes)

    def _concat(self, var: relax.Var, call: relax.Call) -> Value:
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else call.args
        parts = tuple(self._value(item) for item in fields)
        axis = int(call.attrs.axis) % len(shape_of(var))
        if all(isinstance(part, Const) for part in parts):
            return Const(
                shape_of(var), values=np.concatenate([p.real() for p in parts if isinstance(p, Const)], axis)
            )
        kind = lazy.Concat(parts, axis)
        nodes = tuple(node for part in parts for node in part.nodes)
        pending = Pending(shape_of(var), kind=kind, tensor=self.current, nodes=nodes)
        grid = self.emitter._implied_grid(pending)
        return self.emitter.on_grid(pending, grid) if grid else pending

    # --- logits ------------------------------------------------------------------------------------------------------

    def _argmax(self, var: relax.Var, call: relax.Call) -> Value:
        x = self.emitter.need(self._value(call.args[0]), "output")
        axis = int(call.attrs.axis) % len(x.shape)
        self.raw[var] = self.emitter.call(
            "argmax", [x.expr], {"axis": axis, "keepdims": int(call.attrs.keepdims)}, (self.current,)
        )
        return x

    def _topk(self, var: relax.Var, call: relax.Call) -> Value:
        x = self.emitter.need(self._value(call.args[0]), "output")
        if int(call.attrs.axis) % len(x.shape) != len(x.shape) - 1 or not bool(call.attrs.largest):
            raise _Refused("is a top-k that is not of the largest along the last axis")
        self.raw[var] = self.emitter.call("topk", [x.expr], {"k": int(call.attrs.k)}, (self.current,))
        return x

    def _tuple_item(self, var: relax.Var, value: relax.TupleGetItem) -> Value:
        source = value.tuple_value
        if isinstance(source, relax.Var) and source in self.raw and value.index == 1:
            self.raw[var] = self.raw[source]
            return self.values[source]
        raise _Refused("takes an item of a tuple that has no integer meaning")

    def _cast(self, var: relax.Var, call: relax.Call) -> Value:
        value = self._value(call.args[0])
        if isinstance(call.args[0], relax.Var) and call.args[0] in self.raw:
            self.raw[var] = self.raw[call.args[0]]
            return value
        if isinstance(value, Const):
            return Const(value.shape, values=value.real().astype(dtype_of(var)))
        if not dtype_of(var).startswith("float"):
            raise _Refused(f"casts an activation to {dtype_of(var)}")
        return value

    _HANDLERS = {
        "relax.quantize": _quantize,
        "relax.dequantize": _dequantize,
        "relax.matmul": _matmul,
        "relax.nn.conv2d": _conv,
        "relax.nn.layer_norm": _layer_norm,
        "relax.nn.softmax": _softmax,
        "relax.mean": _mean,
        "relax.reshape": _reshape,
        "relax.permute_dims": _transpose,
        "relax.strided_slice": _slice,
        "relax.take": _take,
        "relax.broadcast_to": _broadcast,
        "relax.concat": _concat,
        "relax.argmax": _argmax,
        "relax.topk": _topk,
        "relax.astype": _cast,
    }


def _grid(scale: lazy.Array, zero: lazy.Array, where: str) -> Grid:
    """A per-tensor grid, canonical: unsigned types shifted to signed ones."""
    dtype = str(zero.dtype)
    offset = {"uint8": 128, "uint16": 32768}.get(dtype, 0)
    if dtype not in ("int8", "uint8", "int16", "uint16"):
        raise _Refused(f"is quantized to {dtype}; intaglio takes 8- and 16-bit activations")
    step = float(scale.reshape(()))
    if not (np.isfinite(step) and step > 0):
        raise _Refused(f"has the scale {step!r}, which is not a positive number")
    return Grid(step, int(zero.reshape(())) - offset, dtype.lstrip("u"))


def _along(grid: lazy.Array, shape: tuple[int, ...], axis: int) -> lazy.Array:
    """A scale or zero point, shaped to broadcast along `axis`."""
    if grid.size == 1:
        return grid.reshape(())
    axis %= len(shape)
    if grid.shape != (shape[axis],):
        raise _Refused(f"has {grid.size} scales along axis {axis} of shape {list(shape)}")
    return grid.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def _quantized_const(value: Const, scale: lazy.Array, zero: lazy.Array, axis: int) -> Const:
    scale, zero = _along(scale, value.shape, axis), _along(zero, value.shape, axis)
    info = np.iinfo(zero.dtype)
    integers = np.clip(np.rint(value.real() / scale) + zero, info.min, info.max).astype(zero.dtype)
    return Const(value.shape, integers=integers, scale=scale, zero=zero, nodes=value.nodes)


def _channels(kind: Linear | Affine | Norm) -> int:
    if isinstance(kind, Linear):
        return len(kind.weight_scale)
    return len(kind.multiplier if isinstance(kind, Affine) else kind.gamma)


def _channel_vector(value: Pending, constant_: Const) -> lazy.Real | None:
    """The constant as one number per channel of `value`, if it is that."""
    axis = value.channel_axis
    if axis is None or not isinstance(value.kind, Linear | Affine | Norm):
        return None
    shape = (1,) * (len(value.shape) - len(constant_.shape)) + constant_.shape
    wanted = tuple(n if i == axis else 1 for i, n in enumerate(value.shape))
    return constant_.real().reshape(-1) if shape == wanted else None


def _last_axis(constant_: Const, shape: tuple[int, ...]) -> lazy.Real | None:
    size = int(np.prod(constant_.shape))
    return constant_.real().reshape(-1) if size == shape[-1] and constant_.shape[-1:] == shape[-1:] else None


def _with_gain(kind: Linear | Affine | Norm, gain: lazy.Real) -> Linear | Affine | Norm:
    """Gain * kind, per channel."""
    if isinstance(kind, Norm):
        return replace(kind, gamma=kind.gamma * gain, beta=kind.beta * gain)
    if isinstance(kind, Affine):
        return replace(kind, multiplier=kind.multiplier * gain, offset=kind.offset * gain)
    bias = None if kind.bias is None else kind.bias * gain
    weight = kind.weight
    if (gain < 0).any():
        signs = np.where(gain < 0, -1, 1).astype(np.int16)
        weight = weight.astype(np.int16) * signs.reshape([-1] + [1] * (weight.ndim - 1))
    return replace(kind, weight=weight, weight_scale=kind.weight_scale * np.abs(gain), bias=bias)


def _with_bias(kind: Linear | Affine | Norm, bias: lazy.Real) -> Linear | Affine | Norm:
    """Kind + bias, per channel."""
    if isinstance(kind, Norm):
        return replace(kind, beta=kind.beta + bias)
    if isinstance(kind, Affine):
        return replace(kind, offset=kind.offset + bias)
    return replace(kind, bias=bias if kind.bias is None else kind.bias + bias)


def _suffix(shape: tuple[int, ...], of: tuple[int, ...]) -> bool:
    """Whether `shape`, without leading ones, ends `of`."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape == of[len(of) - len(shape) :]
