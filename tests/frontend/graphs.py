"""Small QDQ graphs, built node by node, and their comparison with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

from intaglio.compiler import Options, to_program
from intaglio.ops import reference
from intaglio.program import Program

Array = NDArray[Any]
IR_VERSION = 10
DEFAULTS = Options()


def run_onnxruntime(model: onnx.ModelProto | bytes | Path, x: Array) -> Array:
    """The only output of `model`, each node computed as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def quantized(x: Array, program: Program) -> Array:
    """Real values on the grid of the program's input."""
    tensor = program.tensors[program.input]
    assert tensor.scale is not None
    info = np.iinfo(tensor.dtype)
    levels = np.rint(x / np.float32(tensor.scale)) + tensor.zero_point
    return np.clip(levels, info.min, info.max).astype(tensor.dtype)


def run_program(program: Program, x: Array) -> Array:
    """The program on real values; real values where its output has a grid, else indices.

    Samples beyond the program's batch run in further calls.
    """
    shape = program.tensors[program.input].shape
    parts = x.reshape((-1, *shape))
    results = [reference.run(program, quantized(part, program)) for part in parts]
    levels = np.concatenate(results) if len(results) > 1 else results[0]
    output = program.tensors[program.output]
    if output.scale is None:
        return levels
    return (levels.astype(np.float64) - output.zero_point) * output.scale


@dataclass(frozen=True)
class Difference:
    """How far a program is from ONNX Runtime, in steps of its output's grid."""

    largest: float
    equal: float


class Graph:
    """A graph under construction. `x` is its input; `samples` is what it is calibrated and compared on."""

    def __init__(
        self, *shape: int, opset: int = 21, dtype: str = "int8", seed: int = 0, batch: int | str | None = None
    ) -> None:
        """`dtype` is the default of `q`; `batch` stands for the first dimension, should it be symbolic."""
        self.rng = np.random.default_rng(seed)
        self.samples = self.rng.normal(size=shape).astype(np.float32)
        self.opset = opset
        self.dtype = dtype
        dims = list(shape) if batch is None else [batch, *shape[1:]]
        self.inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, dims)]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.domains: dict[str, int] = {}
        self._count = 0
        self.x = "x"

    def op(self, op_type: str, *inputs: str, **attrs: Any) -> str:
        """Append a node; the name of its output."""
        return self.multi(op_type, *inputs, outputs=1, **attrs)[0]

    def multi(self, op_type: str, *inputs: str, outputs: int, **attrs: Any) -> list[str]:
        """Append a node of several outputs."""
        if domain := attrs.get("domain"):
            self.domains[domain] = 1
        names = [self._fresh(op_type) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=names[0], **attrs))
        return names

    def constant(self, value: ArrayLike, dtype: str | None = "float32") -> str:
        """An initializer."""
        name = self._fresh("constant")
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def normal(self, *shape: int, spread: float = 1.0) -> Array:
        """Random real values."""
        return (spread * self.rng.normal(size=shape)).astype(np.float32)

    def weight(
        self, value: ArrayLike, dtype: str = "int8", axis: int | None = None, *, asymmetric: bool = False
    ) -> str:
        """A quantized constant behind a DequantizeLinear, per channel of `axis` if given."""
        real = np.asarray(value, np.float64)
        rows = (
            real.reshape(1, -1) if axis is None else np.moveaxis(real, axis, 0).reshape(real.shape[axis], -1)
        )
        info = np.iinfo(dtype)
        low, high = np.minimum(rows.min(1), 0), np.maximum(rows.max(1), 0)
        if asymmetric:
            scale = np.maximum(high - low, 1e-6) / (int(info.max) - int(info.min))
            zero = np.rint(info.min - low / scale)
        else:
            scale = np.maximum(np.maximum(high, -low), 1e-6) / (info.max if info.min else info.max // 2)
            zero = np.full(scale.shape, 0 if info.min else info.max // 2 + 1)
        scale = scale.astype(np.float32)
        columns = [-1 if i == axis else 1 for i in range(real.ndim)]
        along = [v.reshape(columns) if axis is not None else v.reshape(()) for v in (scale, zero)]
        integers = np.clip(np.rint(real / along[0]) + along[1], info.min, info.max)
        if axis is None:
            scale, zero = scale.reshape(()), zero.reshape(())
        operands = [
            self.constant(integers, dtype),
            self.constant(scale, "float32"),
            self.constant(zero, dtype),
        ]
        return self.op("DequantizeLinear", *operands, **({} if axis is None else {"axis": axis}))

    def q(
        self,
        x: str,
        dtype: str | None = None,
        *,
        scale: float | None = None,
        zero: int | None = None,
        symmetric: bool = False,
        wider: float = 1.0,
    ) -> str:
        """QuantizeLinear, DequantizeLinear over the range that `x` has on the samples, unless one is given."""
        dtype = dtype or self.dtype
        info = np.iinfo(dtype)
        if scale is None:
            values = self.evaluate(x)
            low, high = (
                float(min(values.min(initial=0), 0)) * wider,
                float(max(values.max(initial=0), 0)) * wider,
            )
            if symmetric:
                scale, zero = max(high, -low, 1e-6) / info.max, 0
            else:
                scale = max(high - low, 1e-6) / (int(info.max) - int(info.min))
                zero = int(np.clip(np.rint(info.min - low / scale), info.min, info.max))
        grid = (self.constant(scale), self.constant(zero or 0, dtype))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *grid), *grid)

    def linear(self, x: str, width: int, *, quantize: bool = True, bias: bool = True) -> str:
        """A projection to `width` channels, as most exporters write it."""
        depth = self.evaluate(x).shape[-1]
        y = self.op("MatMul", x, self.weight(self.normal(depth, width, spread=depth**-0.5), axis=1))
        if bias:
            y = self.op("Add", self.constant(self.normal(width, spread=0.3)), y)
        return self.q(y) if quantize else y

    def evaluate(self, name: str) -> Array:
        """The values of a tensor on the samples, by ONNX Runtime."""
        return self.samples if name == "x" else run_onnxruntime(self.model(name), self.samples)

    def model(self, output: str, *, shape: Sequence[int | str] | None = None) -> onnx.ModelProto:
        """The model that computes `output`."""
        ends = [onnx.ValueInfoProto(name=output)]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, ends, self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, version) for domain, version in self.domains.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        if shape is not None:
            model.graph.output[0].CopyFrom(
                helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape)
            )
        return model

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"


def compile_model(model: onnx.ModelProto, folder: Path, options: Options = DEFAULTS) -> Program:
    """The integer program of a model in memory."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return to_program(path, options)


def compare(graph: Graph, output: str, folder: Path, options: Options = DEFAULTS) -> Difference:
    """Compile the graph and run it and ONNX Runtime on its samples; both must give the same shape."""
    model = graph.model(output)
    program = compile_model(model, folder, options)
    expected = run_onnxruntime(model, graph.samples)
    got = run_program(program, graph.samples)
    assert got.shape == expected.shape
    steps = np.abs(got - expected) / (program.tensors[program.output].scale or 1.0)
    return Difference(float(steps.max(initial=0)), float((steps < 0.5).mean()))


def assert_same(graph: Graph, output: str, folder: Path, *, equal: float = 0.99, steps: int = 1) -> None:
    """Within one step of the output's grid everywhere, and equal nearly everywhere."""
    found = compare(graph, output, folder)
    assert found.largest < steps + 0.5, found
    assert found.equal >= equal, found


def names(values: Iterable[Any]) -> list[str]:
    """What pytest calls the cases of a table of functions."""
    return [value.__name__.strip("_") for value in values]
