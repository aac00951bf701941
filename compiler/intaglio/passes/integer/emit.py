"""From descriptions (`lazy.py`) to integer ops: what is emitted when a grid is reached."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tvm import relax

from intaglio.ops import (
    add,
    attention,
    layernorm,
    linear,
    matmul,
    mean,
    moe,
    patch_embed,
    quantize_input,
    rescale,
    softmax,
    table,
)
from intaglio.ops import relax as integer_relax
from intaglio.ops.base import Built, Grid
from intaglio.passes.integer import lazy
from intaglio.passes.integer.functions import identity, is_gelu
from intaglio.passes.integer.lazy import Const, Kind, Move, OnGrid, Pending, Probabilities, Unary, Value
from intaglio.passes.integer.moves import attrs_of
from intaglio.passes.integer.narrow import narrowed

# Where the graph gives probabilities no grid: all of 16 bits for [0, 1).
PROBABILITY_GRID = Grid(2.0**-16, -(2**15), "int16")


@dataclass(frozen=True)
class Preprocessing:
    """What the compiled model's input is.

    `kind`: float (already normalized, quantized by the caller) or uint8 (raw pixels, normalized by `mean` and `std`).
    """

    kind: str = "float"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass
class Missing:
    """An activation (or weight) without a scale: `role` says what needs it."""

    tensor: str
    role: str


@dataclass
class Emitter:
    """Emits integer ops into `builder`; collects what is missing instead of stopping at the first."""

    builder: relax.BlockBuilder
    preprocessing: Preprocessing
    nonlinear: str
    missing: list[Missing] = field(default_factory=list)
    input_grid: Grid | None = None
    bounds: dict[str, float] = field(default_factory=dict)
    _materialized: dict[int, tuple[Value, OnGrid]] = field(default_factory=dict)
    _origins: dict[relax.Var, tuple[Value, Grid]] = field(default_factory=dict)

    def call(
        self,
        op: str,
        args: list[relax.Expr],
        attrs: dict[str, Any],
        nodes: tuple[str, ...],
        grid: Grid | None = None,
    ) -> relax.Var:
        """Emit `intaglio.<op>`, annotated with the ONNX tensors it stands for and the grid of its result."""
        attrs = attrs | {"onnx": list(nodes), "grid": f"{grid.scale!r} {grid.zero_point}" if grid else ""}
        return self.builder.emit(integer_relax.call(op, args, attrs), name_hint=_hint(nodes, op))

    def built(
        self, op: str, args: list[relax.Expr], built: Built, nodes: tuple[str, ...], grid: Grid, **more: Any
    ) -> relax.Var:
        """Emit `intaglio.<op>` with the constants and attributes that its op file computed."""
        constants = [integer_constant(c) for c in built.constants]
        return self.call(op, [*args, *constants], built.attrs | more, nodes, grid)

    def move(self, expr: relax.Expr, move: Move, grid: Grid, nodes: tuple[str, ...] = ()) -> relax.Expr:
        """Emit data movement."""
        return self.call(move[0], [expr], move[1], nodes, grid)

    # --- grids ----------------------------------------------------------------------------------------------

    def bounded(self, tensor: str, largest: float) -> Grid:
        """16 bits for values of at most `largest`, or of what `bounds` says of `tensor` if that is more."""
        self.bounds[tensor] = max(largest, self.bounds.get(tensor, 0.0))
        return Grid(self.bounds[tensor] / 32767 if self.bounds[tensor] > 0 else 1.0, 0, "int16")

    def origin(self, tensor: OnGrid) -> Value | None:
        """What the integers of `tensor` were computed from, read as `tensor` reads them."""
        if tensor.expr not in self._origins:
            return None
        value, grid = self._origins[tensor.expr]
        if isinstance(value, Pending):
            return replace(value, factor=value.factor * (tensor.grid.scale / grid.scale))
        return value if grid == tensor.grid else None

    def need(self, value: Value, role: str) -> OnGrid:
        """`value` as an integer tensor, on the grid that the graph gives it; a missing one is recorded and guessed."""
        if isinstance(value, OnGrid):
            return value
        known = self._materialized.get(id(value))
        if known is None:
            implied = getattr(value, "grid", None) or self.implied_grid(value)
            grid = implied or self._missing_grid(value, role)
            known = (value, self.on_grid(value, grid))
            self._materialized[id(value)] = known
        return known[1]

    def implied_grid(self, value: Value) -> Grid | None:
        """The grid of a value that needs no scale of its own: probabilities, constants, parts on one grid joined."""
        if isinstance(value, Probabilities):
            return PROBABILITY_GRID
        if isinstance(value, Const):
            return _constant_grid(value)
        if isinstance(value, Pending) and isinstance(value.kind, lazy.Concat) and value.factor == 1.0:
            grids = {getattr(part, "grid", None) for part in value.kind.parts if not isinstance(part, Const)}
            constants = [part for part in value.kind.parts if isinstance(part, Const)]
            if len(grids) == 1 and all(_constant_grid(part) in grids for part in constants):
                return grids.pop()
        return None

    def _missing_grid(self, value: Value, role: str) -> Grid:
        tensor = value.tensor if isinstance(value, Pending) else value.nodes[-1] if value.nodes else "?"
        if all(entry.tensor != tensor for entry in self.missing):
            residual = isinstance(value, Pending) and isinstance(value.kind, lazy.Sum | lazy.Concat)
            self.missing.append(Missing(tensor, "residual" if residual else role))
        return Grid(1.0, 0, "int16")

    def quantize(self, value: Value, grid: Grid) -> Value:
        """QuantizeLinear: `value` rounded to `grid`."""
        if isinstance(value, OnGrid):
            same = value.grid == grid
            return value if same else Unary(value.shape, source=value, grid=grid, nodes=value.nodes)
        if isinstance(value, Unary):
            if value.grid is None:
                return replace(value, grid=grid)
            return value if value.grid == grid else replace(value, function=value.rounded(), grid=grid)
        if isinstance(value, Probabilities):
            return replace(value, grid=grid)
        if isinstance(value, Const):
            integers = grid.quantize(value.real())
            scale, zero = np.asarray(grid.scale), np.asarray(grid.zero_point)
            return Const(value.shape, integers=integers, scale=scale, zero=zero, nodes=value.nodes)
        if isinstance(value, lazy.Unknown):
            return value
        return self.on_grid(value, grid)

    def on_grid(self, value: Value, grid: Grid) -> OnGrid:
        """Emit what it takes to have `value` as integers on `grid`."""
        if isinstance(value, OnGrid):
            value = self.quantize(value, grid)
        if isinstance(value, OnGrid):
            return value
        if isinstance(value, Const):
            integers = integer_constant(grid.quantize(value.real()))
            return OnGrid(value.shape, expr=integers, grid=grid, nodes=value.nodes)
        if isinstance(value, Unary):
            return self._unary(value, grid)
        if isinstance(value, Probabilities):
            built = softmax.parameters(value.scores.grid, grid, self.nonlinear)
            expr = self.built("softmax", [value.scores.expr], built, value.nodes, grid)
            return OnGrid(value.shape, expr=expr, grid=grid)
        if isinstance(value, lazy.Input):
            return self._input(value, grid)
        assert isinstance(value, Pending), value
        return self._pending(value, grid)

    def _unary(self, value: Unary, grid: Grid) -> OnGrid:
        source = value.source
        rounded_before = value.grid is not None and value.grid != grid
        function = value.rounded() if rounded_before else value.function
        if function is None and source.grid.dtype == "int16":
            op, built = "rescale", rescale.parameters(source.grid, 1.0, None, grid)
        else:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                op, built = "table", self._table(function or identity, source.grid, grid)
        expr = self.built(op, [source.expr], built, value.nodes, grid)
        self._origins[expr] = value, grid
        return OnGrid(value.shape, expr=expr, grid=grid)

    def _table(self, function: lazy.RealFunction, source: Grid, grid: Grid) -> Built:
        low, high = source.dequantize(np.array([source.minimum, source.maximum]))
        if self.nonlinear == "ivit" and is_gelu(function, low, high):
            return table.shift_gelu(source, grid)
        return table.parameters(function, source, grid)

    def _input(self, value: lazy.Input, grid: Grid) -> OnGrid:
        if self.preprocessing.kind == "float":
            self._check_input(value, grid)
            return OnGrid(value.shape, expr=value.var, grid=grid, nodes=value.nodes)
        pixels = self.preprocessing
        built = quantize_input.parameters(pixels.mean, pixels.std, grid, value.shape[1])
        expr = self.built("quantize_input", [value.var], built, value.nodes, grid)
        return OnGrid(value.shape, expr=expr, grid=grid)

    def _check_input(self, value: lazy.Input, grid: Grid) -> None:
        """The caller quantizes a real input, so it has one grid. Raw pixels get a table for each."""
        if str(value.var.ty.dtype) == "uint8":
            raise ValueError(
                "takes uint8 values as they are; export it with a float input and use --input uint8"
            )
        if self.input_grid is None:
            self.input_grid = grid
        if self.input_grid != grid:
            raise ValueError(
                f"puts the model's input {value.nodes[0]!r} on a second grid; intaglio takes one: use the same scale "
                "and zero point for all quantizers of the input, or compile for raw pixels (--input uint8)"
            )

    # --- exact results --------------------------------------------------------------------------------------

    def _pending(self, value: Pending, grid: Grid) -> OnGrid:
        exact = value
        if value.as_written is not None and not lazy.may_skip(value.as_written.inner, grid):
            value = replace(value.as_written.value, moves=value.moves)
        value = narrowed(value)
        inner = Grid(grid.scale / abs(value.factor), grid.zero_point, grid.dtype)
        kind = value.kind if value.factor > 0 else lazy.negated(value.kind)
        expr = self._kind(kind, inner, value.nodes)
        for move in value.moves:
            expr = self.move(expr, move, grid, value.nodes[-1:])
        if isinstance(expr, relax.Var):
            self._origins[expr] = exact, grid
        return OnGrid(value.shape, expr=expr, grid=grid, exact=None if value.moves else value)

    def _kind(self, kind: Kind, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        match kind:
            case lazy.Linear():
                return self._linear(kind, out, nodes)
            case lazy.MatMul():
                return self._matmul(kind, out, nodes)
            case lazy.Attention():
                return self._attention(kind, out, nodes)
            case lazy.Sum():
                return self._sum(kind, out, nodes)
            case lazy.Affine():
                return self._affine(kind, out, nodes)
            case lazy.Norm():
                return self._norm(kind, out, nodes)
            case lazy.Mean():
                return self._mean(kind, out, nodes)
            case lazy.Concat():
                return self._concat(kind, out, nodes)
            case lazy.Mixture():
                return self._mixture(kind, out, nodes)

    def _linear(self, kind: lazy.Linear, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        builder = patch_embed if kind.patch else linear
        built = builder.parameters(kind.x.grid, kind.weight, kind.weight_scale, kind.bias, out)
        op = "patch_embed" if kind.patch else "linear"
        return self.built(op, [kind.x.expr], built, (*kind.x.nodes, *nodes), out)

    def _matmul(self, kind: lazy.MatMul, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        depth = kind.a.shape[-1]
        built = matmul.parameters(kind.a.grid, kind.b.grid, out, depth, transpose_b=1)
        return self.built("matmul", [kind.a.expr, self._swapped(kind.b)], built, nodes, out)

    def _swapped(self, value: OnGrid) -> relax.Expr:
        """The last two axes exchanged."""
        rank = len(value.shape)
        exchange = attrs_of("transpose", axes=[*range(rank - 2), rank - 1, rank - 2])
        return self.move(value.expr, exchange, value.grid)

    def _attention(self, kind: lazy.Attention, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        p = kind.probabilities
        exact = p.scores.exact
        if exact is None or not isinstance(exact.kind, lazy.MatMul) or exact.factor <= 0:
            rows = self.need(p, "softmax")
            return self._matmul(lazy.MatMul(rows, kind.v), out, nodes)
        q, k, v = exact.kind.a, exact.kind.b, kind.v
        built = attention.parameters(
            q.grid,
            k.grid,
            v.grid,
            p.scores.grid,
            exact.factor,
            out,
            depth=q.shape[-1],
            length=v.shape[-2],
            nonlinear=self.nonlinear,
        )
        rows = replace(k, expr=self._swapped(k), shape=(*k.shape[:-2], k.shape[-1], k.shape[-2]))
        operands = [self._four_dimensional(x) for x in (q, rows, v)]
        expr = self.built("attention", operands, built, (*p.scores.nodes, *p.nodes, *nodes), out)
        result = [*q.shape[:-1], v.shape[-1]]
        return expr if len(result) == 4 else self.move(expr, attrs_of("reshape", shape=result), out)

    def _four_dimensional(self, x: OnGrid) -> relax.Expr:
        """`x` with leading axes of length one up to [batch, heads, tokens, channels]."""
        if len(x.shape) == 4:
            return x.expr
        shape = [1] * (4 - len(x.shape)) + list(x.shape)
        return self.move(x.expr, attrs_of("reshape", shape=shape), x.grid)

    def _sum(self, kind: lazy.Sum, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        built = add.parameters(kind.a.grid, kind.b.grid, out, kind.b_sign)
        return self.built("add", [kind.a.expr, kind.b.expr], built, nodes, out)

    def _affine(self, kind: lazy.Affine, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        built = rescale.parameters(kind.x.grid, kind.multiplier, kind.offset, out)
        return self.built("rescale", [kind.x.expr], built, nodes, out)

    def _norm(self, kind: lazy.Norm, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        built = layernorm.parameters(kind.x.grid, kind.gamma, kind.beta, kind.epsilon, out, self.nonlinear)
        return self.built("layernorm", [kind.x.expr], built, nodes, out)

    def _mean(self, kind: lazy.Mean, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        built = mean.parameters(kind.x.grid, kind.x.shape[kind.axis], out)
        attrs = {"axis": kind.axis, "keepdims": int(kind.keepdims)}
        return self.built("mean", [kind.x.expr], built, nodes, out, **attrs)

    def _concat(self, kind: lazy.Concat, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        parts = [self.on_grid(part, out).expr for part in kind.parts]
        return self.call("concat", parts, {"axis": kind.axis}, nodes, out)

    def _mixture(self, kind: lazy.Mixture, out: Grid, nodes: tuple[str, ...]) -> relax.Expr:
        if self.missing:  # its grids are guesses, and nobody will run it
            shape = (*kind.x.shape[:-1], len(kind.experts[0].second.weight))
            return integer_constant(np.zeros(shape, out.dtype))
        if self.nonlinear != "exact":
            raise ValueError(
                f"is a mixture of experts, which has no {self.nonlinear} form; use --nonlinear exact"
            )
        x, logits = kind.x, kind.logits
        built = moe.parameters(
            x.grid, logits.grid, kind.experts, kind.result, out, k=kind.k, normalize=kind.normalize
        )
        return self.built("moe", [x.expr, logits.expr], built, nodes, out)


def _hint(nodes: tuple[str, ...], op: str) -> str:
    return nodes[-1] if nodes else op


def _constant_grid(value: Const) -> Grid:
    """The grid a constant is on, or int16 over its range if it is a real one.

    Needs no calibration: the values are known.
    """
    if value.integers is not None and value.scale is not None and value.scale.size == 1:
        assert value.zero is not None
        shift = 128 if value.integers.dtype == np.uint8 else 0
        low, high = int(value.integers.min(initial=0)) - shift, int(value.integers.max(initial=0)) - shift
        zero = int(value.zero.reshape(())) - shift
        for dtype in ("int8", "int16"):
            limits = np.iinfo(dtype)
            if limits.min <= min(low, zero) and max(high, zero) <= limits.max:
                return Grid(float(value.scale.reshape(())), zero, dtype)
    peak = float(np.abs(value.real()).max(initial=0.0))
    return Grid(peak / 32767 if peak > 0 else 1.0, 0, "int16")


def integer_constant(array: Any) -> relax.Expr:
    """A Relax constant of exactly the array's type (`relax.const` narrows int64 otherwise)."""
    array = np.asarray(array, order="C")
    return relax.const(array, str(array.dtype))
