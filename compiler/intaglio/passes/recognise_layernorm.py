"""Recognise LayerNorm in its decomposed spellings and write it as one `relax.nn.layer_norm`.

    d = x - mean(x);  d / sqrt(mean(d ** 2) + eps) * gamma + beta

with `d` computed once or twice, the square as Pow or Mul, the division as Div, or Mul by a reciprocal or Rsqrt, and
with Q/DQ pairs anywhere in between (those are dropped: the integer LayerNorm keeps more precision than they would).
Requires QDQ form; ensures that no such chain is left whose mean runs over the last axis.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from intaglio.passes.graph import Array, Graph, constant, op_name, rebuild, shape_of, unchanged

QDQ = ("relax.quantize", "relax.dequantize")


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
    return rebuild(_replaced(graph, found), unchanged)


def _replaced(graph: Graph, found: dict[relax.Var, relax.Expr]) -> Graph:
    graph.bindings = [(var, found.get(var, value)) for var, value in graph.bindings]
    return graph


# What LayerNorm has of numbers without a sign: their grids may be one-sided, without being a ReLU.
NOT_NEGATIVE = {f"relax.{op}" for op in ("power", "multiply", "square", "mean", "add", "sqrt", "rsqrt")}


def _same_grid(quantize: relax.Call, dequantize: relax.Call) -> bool:
    grids = [[constant(arg) for arg in call.args[1:3]] for call in (quantize, dequantize)]
    return all(a is not None and b is not None and np.array_equal(a, b) for a, b in zip(*grids, strict=True))


def _two_sided(quantize: relax.Call) -> bool:
    zero = constant(quantize.args[2])
    if zero is None or zero.size != 1:
        return False
    limits = np.iinfo(zero.dtype)
    return bool(limits.min < int(zero.reshape(())) < limits.max)


class _Matcher:
    """Backward matching over one graph, looking through Q/DQ pairs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def peel(self, expr: relax.Expr) -> relax.Expr:
        """`expr` without the Q/DQ pairs and copies on top of it."""
        while isinstance(expr, relax.Var):
            value = self.graph.definition.get(expr)
            below = value if isinstance(value, relax.Var) else self._rounded(value)
            if below is None:
                break
            expr = below
        return expr

    def _rounded(self, value: relax.Expr | None) -> relax.Expr | None:
        """What a Q/DQ pair rounds, if `value` is the DQ of one."""
        if value is None or op_name(value) != "relax.dequantize":
            return None
        inner = self.graph.call(value.args[0])
        if inner is None or op_name(inner) != "relax.quantize" or not _same_grid(inner, value):
            return None
        rounds_positive = op_name(self.graph.call(inner.args[0])) in NOT_NEGATIVE
        return inner.args[0] if rounds_positive or _two_sided(inner) else None

    def call(self, expr: relax.Expr, op: str) -> relax.Call | None:
        """The call of `op` that defines `expr`, below any Q/DQ pairs."""
        call = self.graph.call(self.peel(expr))
        return call if op_name(call) == f"relax.{op}" else None

    def scalar(self, expr: relax.Expr) -> float | None:
        """The real value of a constant of size one."""
        value = self.real(expr)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def real(self, expr: relax.Expr) -> Array | None:
        """Real values of a constant or of a dequantized constant."""
        expr = self.peel(expr)
        value = constant(expr)
        if value is not None:
            return value.astype(np.float64)
        call = self.graph.call(expr)
        if call is None or op_name(call) != "relax.dequantize":
            return None
        quantized, scale, zero = (constant(arg) for arg in call.args[:3])
        if quantized is None or scale is None or zero is None or scale.size != 1:
            return None
        return scale.astype(np.float64) * (quantized.astype(np.float64) - zero.astype(np.float64))

    def normalized(self, var: relax.Var) -> tuple[relax.Expr, float] | None:
        """(x, eps) if `var` is (x - mean) / sqrt(variance + eps) over the last axis."""
        value = self.graph.definition[var]
        if op_name(value) not in ("relax.divide", "relax.multiply"):
            return None
        commutes = op_name(value) == "relax.multiply"
        first, second = value.args
        for numerator, denominator in [(first, second), (second, first)] if commutes else [(first, second)]:
            centred = self.centred(numerator)
            root = self.root(denominator, inverse=commutes)
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
        """X if `expr` is its mean over the last axis, which is kept."""
        call = self.call(expr, "mean")
        if call is None or not call.attrs.keepdims or call.attrs.axis is None:
            return None
        rank = len(shape_of(call.args[0]))
        return call.args[0] if [int(a) % rank for a in call.attrs.axis] == [rank - 1] else None

    def root(self, expr: relax.Expr, *, inverse: bool) -> relax.Expr | None:
        """`y` if `expr` is sqrt(y), or, with `inverse`, 1 / sqrt(y)."""
        power = self.call(expr, "power")
        if power is not None and self.scalar(power.args[1]) == (-0.5 if inverse else 0.5):
            return power.args[0]
        direct = self.call(expr, "rsqrt" if inverse else "sqrt")
        if direct is not None:
            return direct.args[0]
        quotient = self.call(expr, "divide") if inverse else None
        if quotient is not None and self.scalar(quotient.args[0]) == 1.0:
            return self.root(quotient.args[1], inverse=False)
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
        """Whether `expr` is (x - mean(x)) ** 2."""
        if (call := self.call(expr, "power")) is not None:
            bases = [call.args[0]] if self.scalar(call.args[1]) == 2.0 else []
        elif (call := self.call(expr, "multiply")) is not None:
            bases = list(call.args)
        elif (call := self.call(expr, "square")) is not None:
            bases = [call.args[0]]
        else:
            bases = []
        centred = [self.centred(base) for base in bases]
        return bool(bases) and all(c is not None and self._same(c, x) for c in centred)

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
        """The only reader of `var` and its vector, if it is `op` by one number per channel."""
        users = self.graph.users(var)
        while len(users) == 1 and op_name(pair := self.graph.definition[users[0]]) in QDQ:
            below = op_name(pair) == "relax.quantize" and not _two_sided(pair)
            if below or (op_name(pair) == "relax.dequantize" and self._rounded(pair) is None):
                return None  # a ReLU, or another scale on the way out than on the way in
            users = self.graph.users(users[0])
        if len(users) != 1 or op_name(value := self.graph.definition[users[0]]) != op:
            return None
        for arg in value.args:
            vector = self.real(arg)
            fits = vector is not None and vector.size == channels and vector.shape[-1] == channels
            if vector is not None and fits and vector.ndim <= len(shape_of(var)):
                return users[0], vector.reshape(-1)
        return None
