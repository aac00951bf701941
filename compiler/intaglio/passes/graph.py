"""A Relax dataflow function as a list of bindings: what the passes read and rebuild."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr import _update_type

Binding = tuple[relax.Var, relax.Expr]
Array = NDArray[Any]


class Graph:
    """Bindings of `main` in order, with definitions and users.

    Every pass before code generation keeps to one dataflow block.
    """

    def __init__(self, module: tvm.IRModule) -> None:
        function = module["main"]
        self.parameters: list[relax.Var] = list(function.params)
        self.attrs = function.attrs
        self.bindings: list[Binding] = [
            (binding.var, binding.value) for block in function.body.blocks for binding in block.bindings
        ]
        self.definition: dict[relax.Var, relax.Expr] = dict(self.bindings)
        self.result = self._resolve(function.body.body)
        self._users: dict[relax.Var, list[relax.Var]] = {}
        for var, value in self.bindings:
            for used in inputs_of(value):
                self._users.setdefault(used, []).append(var)

    def users(self, var: relax.Var) -> list[relax.Var]:
        """Variables whose bindings read `var`, in order."""
        return self._users.get(var, [])

    def call(self, expr: relax.Expr) -> relax.Call | None:
        """The call that defines `expr`, if one does."""
        value = self.definition.get(self._resolve(expr)) if isinstance(expr, relax.Var) else expr
        return value if isinstance(value, relax.Call) else None

    def _resolve(self, expr: relax.Expr) -> relax.Expr:
        while isinstance(expr, relax.Var) and isinstance(self.definition.get(expr), relax.Var):
            expr = self.definition[expr]
        return expr


def inputs_of(value: relax.Expr) -> list[relax.Var]:
    """Variables that an expression reads directly."""
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, relax.Tuple):
        return [var for item in value.fields for var in inputs_of(item)]
    if isinstance(value, relax.TupleGetItem):
        return inputs_of(value.tuple_value)
    if isinstance(value, relax.Call):
        return [var for arg in value.args for var in inputs_of(arg)]
    return []


def op_name(value: relax.Expr | None) -> str:
    """`relax.matmul` and the like; '' for anything but a call of an operator."""
    return str(value.op.name) if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op) else ""


def substitute(value: relax.Expr, mapping: Mapping[relax.Var, relax.Expr]) -> relax.Expr:
    """`value` with its variables replaced by expressions of the same types, which it therefore keeps."""
    if isinstance(value, relax.Var):
        return mapping.get(value, value)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([substitute(item, mapping) for item in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(substitute(value.tuple_value, mapping), value.index)
    if isinstance(value, relax.Call):
        call = relax.Call(value.op, [substitute(a, mapping) for a in value.args], value.attrs, value.ty_args)
        _update_type(call, value.ty)
        return call
    return value


Rewrite = Callable[[relax.Var, relax.Expr, relax.BlockBuilder], relax.Expr]


def unchanged(_var: relax.Var, value: relax.Expr, _builder: relax.BlockBuilder) -> relax.Expr:
    """The rewrite that keeps every binding."""
    return value


def rebuild(graph: Graph, rewrite: Rewrite) -> tvm.IRModule:
    """Emit `main` again, each binding through `rewrite` (which sees already rewritten inputs); dead bindings go.

    Names of variables are kept: they carry the provenance.
    """
    live = live_variables(graph)
    builder = relax.BlockBuilder()
    mapping: dict[relax.Var, relax.Expr] = {}
    with builder.function("main", graph.parameters):
        with builder.dataflow():
            for var, value in graph.bindings:
                if var not in live:
                    continue
                new = rewrite(var, substitute(value, mapping), builder)
                reuse = isinstance(new, relax.Var | relax.Tuple | GenericConst)
                mapping[var] = new if reuse else builder.emit(new, name_hint=var.name)
            output = builder.emit_output(substitute(graph.result, mapping))
        builder.emit_func_output(output)
    module = builder.get()
    return with_attrs(module, graph.attrs)


def with_attrs(module: tvm.IRModule, attrs: Any) -> tvm.IRModule:
    """`module` with `main` carrying the function attributes `attrs`."""
    if attrs:
        module["main"] = module["main"].with_attrs(dict(attrs.items()))
    return module


def live_variables(graph: Graph) -> set[relax.Var]:
    """Variables that the result depends on."""
    live = set(inputs_of(graph.result))
    for var, value in reversed(graph.bindings):
        if var in live:
            live.update(inputs_of(value))
    return live


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """Static shape of a tensor expression."""
    return tuple(int(dim) for dim in expr.ty.shape)


def dtype_of(expr: relax.Expr) -> str:
    """Name of the element type of a tensor expression."""
    return str(expr.ty.dtype.dtype if hasattr(expr.ty.dtype, "dtype") else expr.ty.dtype)


def constant(expr: relax.Expr) -> Array | None:
    """Values of a constant expression, else None."""
    return expr.value.numpy() if isinstance(expr, GenericConst) else None


def ints(items: Any) -> list[int]:
    """A Relax tuple, shape or FFI array of integers as Python integers."""
    if isinstance(items, relax.Tuple):
        items = items.fields
    elif isinstance(items, relax.ShapeExpr):
        items = items.values
    return [int(getattr(item, "value", item)) for item in items]
