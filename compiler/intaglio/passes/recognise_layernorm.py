"""Recognise LayerNorm in its decomposed spellings and write it as one `relax.nn.layer_norm`.

    d = x - mean(x);  d / sqrt(mean(d ** 2) + eps) * gamma + beta

with `d` computed once or twice, the square as Pow or Mul, the division as Div, or Mul by a reciprocal or Rsqrt, and with Q/DQ pairs
anywhere in between (those are dropped: the integer LayerNorm keeps more precision than they would). Requires QDQ form; ensures that no
such chain is left whose mean runs over the last axis.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from intaglio.passes.graph import Array, Graph, constant, op_name, rebuild, shape_of


def recognise_layernorm(module: tvm.IRModule) -> tvm.IRModule:
    """Relax to Relax."""
    graph = Graph(module)
    matcher = _Matcher(graph)
    found: dict[relax.Var, relax.Expr] = {}
    for var, _ in graph.bindings:
        if match := matcher.normalized(var):
            tail, gamma, beta = matcher.affine_tail(var, shape_of(match[0])[-1])
            found[tail] = relax.op.nn.layer_norm(
                match[0],
                relax.const(gamma.astype("float32")),
                relax.const(beta.astype("float32")),
                axes=[-1],
                epsilon=match[1],
            )
    if not found:
        return module
    return rebuild(_replaced(graph, found), lambda var, value, builder: value)


def _replaced(graph: Graph, found: dict[relax.Var, relax.Expr]) -> Graph:
    graph.bindings = [(var, found.get(var, value)) for var, value in graph.bindings]
    return graph


class _Matcher:
    """Backward matching over one graph, looking through Q/DQ pairs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def peel(self, expr: relax.Expr) -> relax.Expr:
        """`expr` without the Q/DQ pairs and copies on top of it."""
        while True:
            value = self.graph.definition.get(expr) if isinstance(expr, relax.Var) else None
            if isinstance(value, relax.Var):
                expr = value
            elif (
                op_name(value) == "relax.dequantize"
                and op_name(inner := self.graph.call(value.args[0])) == "relax.quantize"
            ):
                expr = inner.args[0]
            else:
                return expr

    def call(self, expr: relax.Expr, *ops: str) -> relax.Call | None:
        call = self.graph.call(self.peel(expr))
        return call if op_name(call) in {f"relax.{op}" for op in ops} else None

    def scalar(self, expr: relax.Expr) -> float | None:
        value = self.real(expr)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def real(self, expr: relax.Expr) -> Array | None:
        """Real values of a constant or of a dequantized constant."""
        expr = self.peel(expr)
        value = constant(expr)
        if value is not None:
            return value.astype(np.float64)
        call = self.graph.call(expr)
        if op_name(call) == "relax.dequantize" and (q := constant(call.args[0])) is not None:
            scale, zero = (constant(arg).astype(np.float64) for arg in call.args[1:3])
            return scale * (q.astype(np.float64) - zero) if scale.size == 1 else None
        return None

    def normalized(self, var: relax.Var) -> tuple[relax.Expr, float] | None:
        """(x, eps) if `var` is (x - mean) / sqrt(variance + eps) over the last axis."""
        value = self.graph.definition[var]
        if op_name(value) not in ("relax.divide", "relax.multiply"):
            return None
        orders = (
            [value.args] if op_name(value) == "relax.divide" else [value.args, [value.args[1], value.args[0]]]
        )
        for numerator, denominator in orders:
            centred = self.centred(numerator)
            root = self.root(denominator, op_name(value) == "relax.multiply")
            if centred is not None and root is not None and (eps := self.variance(root, centred)) is not None:
                return centred, eps
        return None

    def centred(self, expr: relax.Expr) -> relax.Expr | None:
        """X if `expr` is x - mean(x, -1)."""
        call = self.call(expr, "subtract")
        if call is None or (mean := self.mean(call.args[1])) is None:
            return None
        x = call.args[0]
        return x if self._same(mean, x) else None

    def _same(self, a: relax.Expr, b: relax.Expr) -> bool:
        return bool(self.peel(a).same_as(self.peel(b)))

    def mean(self, expr: relax.Expr) -> relax.Expr | None:
        call = self.call(expr, "mean")
        if call is None or not call.attrs.keepdims:
            return None
        rank = len(shape_of(call.args[0]))
        return call.args[0] if [int(a) % rank for a in call.attrs.axis] == [rank - 1] else None

    def root(self, expr: relax.Expr, inverse: bool) -> relax.Expr | None:
        """V if `expr` is sqrt(v), or 1 / sqrt(v) where `inverse`."""
        if not inverse:
            call = self.call(expr, "sqrt")
            if (
                call is None
                and (power := self.call(expr, "power")) is not None
                and self.scalar(power.args[1]) == 0.5
            ):
                call = power
            return call.args[0] if call is not None else None
        if (call := self.call(expr, "rsqrt")) is not None:
            return call.args[0]
        if (call := self.call(expr, "power")) is not None and self.scalar(call.args[1]) == -0.5:
            return call.args[0]
        if (call := self.call(expr, "divide")) is not None and self.scalar(call.args[0]) == 1.0:
            return self.root(call.args[1], inverse=False)
        return None

    def variance(self, expr: relax.Expr, x: relax.Expr) -> float | None:
        """Eps if `expr` is mean((x - mean(x)) ** 2) + eps."""
        call = self.call(expr, "add")
        if call is None:
            return None
        for value, other in (call.args, [call.args[1], call.args[0]]):
            eps, square = self.scalar(other), self.mean(value)
            if eps is not None and square is not None and self.squared(square, x):
                return eps
        return None

    def squared(self, expr: relax.Expr, x: relax.Expr) -> bool:
        if (call := self.call(expr, "power")) is not None:
            bases = [call.args[0]] if self.scalar(call.args[1]) == 2.0 else []
        elif (call := self.call(expr, "multiply")) is not None:
            bases = list(call.args)
        elif (call := self.call(expr, "square")) is not None:
            bases = [call.args[0]]
        else:
            bases = []
        return bool(bases) and all(
            (c := self.centred(base)) is not None and self._same(c, x) for base in bases
        )

    def affine_tail(self, var: relax.Var, channels: int) -> tuple[relax.Var, Array, Array]:
        """Follow `* gamma + beta` through Q/DQ pairs while each value has one user."""
        gamma, beta = np.ones(channels), np.zeros(channels)
        tail = var
        for op in ("relax.multiply", "relax.add"):
            step = self._next(tail, op, channels)
            if step is None:
                break
            tail, vector = step
            gamma, beta = (vector, beta) if op == "relax.multiply" else (gamma, vector)
        return tail, gamma, beta

    def _next(self, var: relax.Var, op: str, channels: int) -> tuple[relax.Var, Array] | None:
        users = self.graph.users(var)
        while len(users) == 1 and op_name(self.graph.definition[users[0]]) in (
            "relax.quantize",
            "relax.dequantize",
        ):
            users = self.graph.users(users[0])
        if len(users) != 1 or op_name(value := self.graph.definition[users[0]]) != op:
            return None
        for arg in value.args:
            vector = self.real(arg)
            if vector is not None and vector.size == channels and vector.shape[-1] == channels:
                return users[0], vector.reshape(-1)
        return None
