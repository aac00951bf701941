"""Integer Relax -> `Program`: the same steps, without TVM, for back ends and for storage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import tvm
from tvm import relax

from intaglio.ops import relax as integer_relax
from intaglio.passes.graph import Graph, constant, dtype_of, shape_of
from intaglio.program import Program, Step, Tensor

SUFFIXES = re.compile(r"(_QuantizeLinear_Output|_DequantizeLinear_Output|_quantized|_output_0)+(_\d+)?$")


def extract(module: tvm.IRModule, name: str, nodes: Mapping[str, str], onnx_input: str) -> Program:
    """The program of an integer module. `nodes` maps ONNX tensors to the names of the nodes that compute them."""
    return _Extractor(Graph(module), nodes, onnx_input).program(name)


class _Extractor:
    """The tensors and steps found so far; a variable that shares its name with an earlier one is numbered."""

    def __init__(self, graph: Graph, nodes: Mapping[str, str], onnx_input: str) -> None:
        self.graph = graph
        self.nodes = nodes
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[relax.Var, str] = {}
        self.steps: list[Step] = []
        self.input = self._define(graph.parameters[0], onnx_input)
        tasks = graph.parameters[1:]
        self.task = self._define(tasks[0], tasks[0].name) if tasks else None

    def program(self, name: str) -> Program:
        for var, value in self.graph.bindings:
            if isinstance(value, relax.Call):
                self._step(var, value)
        output = self.names[self.graph.result]
        self._set_grid(self.input, "input_grid")
        self._set_grid(output, "output_grid")
        return Program(name, self.tensors, self.steps, self.input, output, self.task)

    def _set_grid(self, tensor: str, key: str) -> None:
        """The grid that the function attribute `key` states, unless the tensor is raw pixels."""
        if self.graph.attrs and key in self.graph.attrs and self.tensors[tensor].dtype != "uint8":
            scale, zero, _ = str(self.graph.attrs[key]).split()
            self.tensors[tensor] = replace(self.tensors[tensor], scale=float(scale), zero_point=int(zero))

    def _define(self, var: relax.Var, name: str) -> str:
        unique, count = name, 1
        while unique in self.tensors:
            count += 1
            unique = f"{name}.{count}"
        self.names[var] = unique
        self.tensors[unique] = Tensor(unique, shape_of(var), dtype_of(var))
        return unique

    def _step(self, var: relax.Var, call: relax.Call) -> None:
        op = integer_relax.op_name(call)
        assert op is not None
        attrs = integer_relax.attrs_of(call)
        onnx_nodes = tuple(dict.fromkeys(self.nodes[t] for t in attrs.pop("onnx") if t in self.nodes))
        scale, zero = attrs.pop("grid").split() or (None, "0")
        output = self._define(var, _clean(var.name))
        self.tensors[output] = replace(
            self.tensors[output], scale=scale and float(scale), zero_point=int(zero)
        )
        inputs = tuple(self._operand(arg, output, index) for index, arg in enumerate(call.args))
        self.steps.append(Step(output, op, inputs, output, attrs, onnx_nodes))

    def _operand(self, expr: relax.Expr, step: str, index: int) -> str:
        if isinstance(expr, relax.Var):
            return self.names[expr]
        data = constant(expr)
        assert data is not None
        name = f"{step}/{index}"
        self.tensors[name] = Tensor(name, tuple(data.shape), str(data.dtype), data=data)
        return name


def _clean(name: str) -> str:
    """A readable tensor name: without the importer's and quantizers' suffixes."""
    return SUFFIXES.sub("", name).strip("/") or name
