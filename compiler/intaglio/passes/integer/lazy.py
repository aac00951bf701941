"""Values while a QDQ graph is made integer: what a real tensor is, before an integer op is chosen for it.

A real tensor of a QDQ graph is a constant, a value on a known integer grid, a unary function of one, or the exact
result of an op whose output grid is not known yet (`Pending`). Ops without a rounding of their own (bias, scalar
factors, data movement, Q/DQ in the same grid) only change the description; an integer op is emitted when a grid is
reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from intaglio.ops import moe
from intaglio.ops.base import Grid

Array = NDArray[Any]
Real = NDArray[np.float64]
RealFunction = Callable[[Real], Real]
Move = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Value:
    """Base of all descriptions. `nodes`: ONNX tensors folded into it since the last integer op."""

    shape: tuple[int, ...]
    nodes: tuple[str, ...] = field(default=(), kw_only=True)

    def noted(self, *tensors: str) -> Value:
        """The same description, with more ONNX tensors folded into it."""
        return replace(self, nodes=tuple(dict.fromkeys((*self.nodes, *tensors))))


@dataclass(frozen=True)
class Unknown(Value):
    """The result of something refused: already reported, silent from here on."""


@dataclass(frozen=True)
class Indices(Value):
    """Integers without a grid: what argmax and top-k return. Only the graph's output takes them."""

    expr: relax.Expr = field(kw_only=True)


@dataclass(frozen=True)
class Const(Value):
    """A constant; `integers`, with `scale` and `zero` of broadcastable shape, where it is a quantized one."""

    values: Array | None = field(default=None, repr=False)
    integers: Array | None = field(default=None, repr=False)
    scale: Array | None = field(default=None, repr=False)
    zero: Array | None = field(default=None, repr=False)

    def real(self) -> Real:
        """Real values in float64."""
        if self.integers is None:
            assert self.values is not None
            return np.asarray(self.values, np.float64)
        assert self.scale is not None
        assert self.zero is not None
        return (self.integers.astype(np.float64) - self.zero) * self.scale.astype(np.float64)

    @property
    def scalar(self) -> float | None:
        """Its only real value, None if it has several."""
        return float(self.real().reshape(-1)[0]) if int(np.prod(self.shape)) == 1 else None


@dataclass(frozen=True)
class Input(Value):
    """The model's real input, before its QuantizeLinear."""

    var: relax.Var = field(kw_only=True)


@dataclass(frozen=True)
class OnGrid(Value):
    """An integer tensor `expr` on `grid`; `exact` is what was rounded to it, where that is known and unmoved."""

    expr: relax.Expr = field(kw_only=True)
    grid: Grid = field(kw_only=True)
    exact: Pending | None = field(default=None, kw_only=True)

    def times(self, factor: float) -> OnGrid:
        """The same integers, read as values `factor > 0` times as large."""
        grid = Grid(self.grid.scale * factor, self.grid.zero_point, self.grid.dtype)
        exact = self.exact and replace(self.exact, factor=self.exact.factor * factor)
        return replace(self, grid=grid, exact=exact)


@dataclass(frozen=True)
class Unary(Value):
    """`function` (None: identity) of the values of `source`; on `grid` once it has been quantized."""

    source: OnGrid = field(kw_only=True)
    function: RealFunction | None = field(default=None, kw_only=True)
    grid: Grid | None = field(default=None, kw_only=True)

    def then(self, function: RealFunction) -> Unary:
        """Compose, with the rounding of `grid` in between if it has one."""
        before = self.rounded()
        return replace(self, function=lambda x: function(before(x)), grid=None)

    def rounded(self) -> RealFunction:
        """The function, with the rounding of `grid` after it if it has one."""
        function, grid = self.function, self.grid

        def rounded(x: Real) -> Real:
            y = function(x) if function is not None else x
            return grid.dequantize(grid.quantize(y)) if grid is not None else y

        return rounded


@dataclass(frozen=True)
class Probabilities(Value):
    """softmax(scores) over the last axis, exact; `grid` where the graph rounds it."""

    scores: OnGrid = field(kw_only=True)
    grid: Grid | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Pending(Value):
    """An exact result without a grid: `factor * kind(...)`, then `moves`.

    `channel_axis`: where the channel axis of `kind` is after the moves, None if it is no longer an axis.
    `tensor`: the ONNX tensor whose range a missing scale must cover.
    """

    kind: Kind = field(kw_only=True)
    tensor: str = field(kw_only=True)
    factor: float = field(default=1.0, kw_only=True)
    moves: tuple[Move, ...] = field(default=(), kw_only=True)
    channel_axis: int | None = field(default=None, kw_only=True)
    as_written: AsWritten | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class AsWritten:
    """What a Pending is if a rounding that it skips counts: `value`, with `inner` the grid that was skipped."""

    inner: Grid
    value: Pending


@dataclass(frozen=True)
class Linear:
    """x @ weight.T * weight_scale + bias; with `patch`, over the patches of an image."""

    x: OnGrid
    weight: Array = field(repr=False)
    weight_scale: Real = field(repr=False)
    bias: Real | None = field(default=None, repr=False)
    patch: tuple[int, int] | None = None


@dataclass(frozen=True)
class MatMul:
    """a @ b over the last two axes."""

    a: OnGrid
    b: OnGrid


@dataclass(frozen=True)
class Attention:
    """probabilities @ v, fused with the product of the scores where that is known."""

    probabilities: Probabilities
    v: OnGrid


@dataclass(frozen=True)
class Sum:
    """a + b_sign * b, with `b` broadcast along leading axes."""

    a: OnGrid
    b: OnGrid
    b_sign: int = 1


@dataclass(frozen=True)
class Affine:
    """x * multiplier + offset, per channel of the last axis."""

    x: OnGrid
    multiplier: Real = field(repr=False)
    offset: Real = field(repr=False)


@dataclass(frozen=True)
class Norm:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, over the last axis."""

    x: OnGrid
    gamma: Real = field(repr=False)
    beta: Real = field(repr=False)
    epsilon: float = 1e-6


@dataclass(frozen=True)
class Mean:
    """The mean of x over one axis."""

    x: OnGrid
    axis: int
    keepdims: bool


@dataclass(frozen=True)
class Concat:
    """Parts of any description, joined along `axis`; each goes to the grid of the whole."""

    parts: tuple[Value, ...]
    axis: int


@dataclass(frozen=True)
class Mixture:
    """Of every row of `x`, the results of the k experts with the largest `logits`, weighted and summed.

    `result`: the one grid that every expert's result is on.
    """

    x: OnGrid
    logits: OnGrid
    experts: tuple[moe.Expert, ...] = field(repr=False)
    result: Grid
    k: int
    normalize: bool


Kind = Linear | MatMul | Attention | Sum | Affine | Norm | Mean | Concat | Mixture


def covers(grid: Grid, other: Grid) -> bool:
    """Whether `grid` reaches, to within one of its steps, every real value that `other` does."""
    (low, high), (other_low, other_high) = (
        g.dequantize(np.array([g.minimum, g.maximum])) for g in (grid, other)
    )
    return bool(low <= other_low + grid.scale and other_high - grid.scale <= high)


def may_skip(inner: Grid, outer: Grid) -> bool:
    """Whether `inner`, before a bias, is wide enough against `outer`, behind it, to be a rounding and no clipping."""
    widths = [grid.scale * (grid.maximum - grid.minimum) for grid in (inner, outer)]
    return widths[0] >= widths[1] / 2


def is_two_sided(grid: Grid) -> bool:
    """Whether `grid` holds numbers of both signs. One that does not is a ReLU in disguise: quantizers drop them so."""
    return grid.minimum < grid.zero_point < grid.maximum


def negated(kind: Kind) -> Kind:
    """-kind, for the kinds that have a place for the sign; else ValueError."""
    if isinstance(kind, Linear):
        bias = None if kind.bias is None else -kind.bias
        return replace(kind, weight=-kind.weight.astype(np.int32), bias=bias)
    if isinstance(kind, Affine):
        return replace(kind, multiplier=-kind.multiplier, offset=-kind.offset)
    if isinstance(kind, Norm):
        return replace(kind, gamma=-kind.gamma, beta=-kind.beta)
    raise ValueError(f"a negative factor on {type(kind).__name__} is not supported")
