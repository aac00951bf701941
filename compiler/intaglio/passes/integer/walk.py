"""One walk over a QDQ graph in dataflow order: finds the description (`lazy.py`) of every variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import relax

from intaglio.passes.graph import (
    Binding,
    Graph,
    constant,
    dtype_of,
    inputs_of,
    live_variables,
    op_name,
    shape_of,
)
from intaglio.passes.integer.emit import Emitter
from intaglio.passes.integer.lazy import Const, Indices, Input, Kind, Move, OnGrid, Pending, Unknown, Value

INTEGER_READERS = {
    "relax.dequantize",
    "relax.reshape",
    "relax.permute_dims",
    "relax.strided_slice",
    "relax.take",
    "relax.broadcast_to",
    "relax.concat",
    "relax.argmax",
    "relax.topk",
}


class RefusedError(Exception):
    """Why one node has no integer meaning; becomes a line of the UnsupportedError."""


@dataclass(frozen=True)
class Bound:
    """One binding of the graph: `var = call` (a relax.Call, or an item of a tuple)."""

    var: relax.Var
    call: relax.Expr

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return shape_of(self.var)


Handler = Callable[["Walk", Bound], Value]


class Walk:
    """State of one walk. `handlers` gives each operator its meaning, `names` each variable its ONNX tensor.

    `current` is the ONNX tensor being computed, `problems` says of each refused one why, `output` is the description
    of the graph's result where it has a grid.
    """

    def __init__(
        self,
        graph: Graph,
        emitter: Emitter,
        names: Mapping[str, str],
        model_input: relax.Var,
        handlers: Mapping[str, Handler],
    ) -> None:
        self.graph = graph
        self.emitter = emitter
        self.current = ""
        self.problems: dict[str, str] = {}
        self.output: OnGrid | None = None
        parameter = graph.parameters[0]
        source = names.get(parameter.name, parameter.name)
        described = Input(shape_of(parameter), var=model_input, nodes=(source,))
        self.values: dict[relax.Var, Value] = {parameter: described}
        self._names = names
        self._model_input = model_input
        self._handlers = handlers

    def result(self) -> relax.Expr:
        """Walk all live bindings; return the integer expression of the graph's result."""
        live = live_variables(self.graph)
        bindings = [(var, value) for var, value in self.graph.bindings if var in live]
        owners = self._owners(bindings)
        for var, value in bindings:
            self.current = owners[var]
            self.values[var] = self._visit(var, value)
        return self._result()

    def value(self, expr: relax.Expr) -> Value:
        """The description of an operand."""
        if isinstance(expr, relax.Var):
            if isinstance(self.values[expr], Indices):
                raise RefusedError("computes with the indices of argmax or top-k; end the graph there")
            return self.values[expr]
        array = constant(expr)
        if array is not None:
            return Const(array.shape, values=array)
        scalar = getattr(expr, "value", None)
        if isinstance(scalar, int | float):
            return Const((), values=np.asarray(scalar))
        raise RefusedError("reads something that is neither a tensor nor a constant")

    def pending(
        self,
        shape: tuple[int, ...],
        kind: Kind,
        *parents: Value,
        moves: tuple[Move, ...] = (),
        channel_axis: int | None = None,
    ) -> Pending:
        """The exact result of the current tensor, which folds the ONNX tensors of `parents` into itself."""
        nodes = tuple(node for parent in parents for node in parent.nodes)
        return Pending(
            shape, kind=kind, tensor=self.current, nodes=nodes, moves=moves, channel_axis=channel_axis
        )

    def _owners(self, bindings: list[Binding]) -> dict[relax.Var, str]:
        """The ONNX tensor that each variable belongs to: an unnamed one to the next named one."""
        owners: dict[relax.Var, str] = {}
        owner = ""
        for var, _ in reversed(bindings):
            owner = self._names.get(var.name, owner or var.name)
            owners[var] = owner
        return owners

    def _visit(self, var: relax.Var, value: relax.Expr) -> Value:
        if isinstance(value, relax.Var):
            return self.values[value]
        if any(isinstance(self.values.get(used), Unknown) for used in inputs_of(value)):
            return Unknown(())
        name = op_name(value) or type(value).__name__
        try:
            self._check_integers(name, value)
            if (handler := self._handlers.get(name)) is None:
                raise RefusedError(
                    "has no integer meaning; replace it in the model, or cut the model before it"
                )
            result = handler(self, Bound(var, value)).noted(self.current)
            if isinstance(var.ty, relax.TensorType) and result.shape != shape_of(var):
                raise RefusedError(
                    f"gives shape {list(shape_of(var))}, of another rank than it was expected to have"
                )
            return result
        except (RefusedError, ValueError) as refusal:
            self.problems[self.current] = f"({name.removeprefix('relax.')}) {refusal}"
            return Unknown(())

    def _check_integers(self, name: str, value: relax.Expr) -> None:
        """Between Q and DQ there is data movement only: a description means real values, whatever the type."""
        if name in INTEGER_READERS:
            return
        for used in inputs_of(value):
            is_integer = isinstance(used.ty, relax.TensorType) and "int" in dtype_of(used)
            if is_integer and not isinstance(self.values.get(used), Const | Indices | None):
                raise RefusedError("computes with quantized integers; put a DequantizeLinear before it")

    def _result(self) -> relax.Expr:
        final = self.graph.result
        value = self.values.get(final) if isinstance(final, relax.Var) else None
        if value is None or isinstance(value, Unknown):
            if not self.problems:
                self.problems["the graph's output"] = "is not computed from the input"
            return self._model_input
        if isinstance(value, Indices):
            return value.expr
        try:
            self.output = self.emitter.need(value, "output")
        except ValueError as refusal:
            self.problems[self.current] = f"(the graph's output) {refusal}"
            return self._model_input
        if self.output.expr.same_as(self._model_input):
            self.problems["the graph's output"] = "is its input: there is nothing to compile"
        return self.output.expr
