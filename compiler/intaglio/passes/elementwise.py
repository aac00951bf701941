"""Real functions of one tensor: what becomes a table, evaluated in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from intaglio.passes.lazy import Real, RealFunction

_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: Real) -> Real:
    """X * Phi(x)."""
    return np.asarray(0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))))


def gelu_tanh(x: Real) -> Real:
    """GELU's tanh approximation (Hendrycks and Gimpel, 2016)."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))))


def sigmoid(x: Real) -> Real:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


UNARY: dict[str, RealFunction] = {
    "relax.abs": np.abs,
    "relax.erf": _erf,
    "relax.exp": np.exp,
    "relax.negative": np.negative,
    "relax.nn.gelu": gelu,
    "relax.nn.gelu_tanh": gelu_tanh,
    "relax.nn.relu": lambda x: np.maximum(x, 0.0),
    "relax.nn.silu": lambda x: x * sigmoid(x),
    "relax.sigmoid": sigmoid,
    "relax.square": np.square,
    "relax.tanh": np.tanh,
}


def unary_function(call: relax.Call) -> RealFunction | None:
    """The real function that `call` applies to its only tensor, or None if it is none."""
    name = str(call.op.name)
    if name in UNARY:
        return UNARY[name]
    if name == "relax.clip":
        low, high = (float(getattr(a, "value", a)) for a in call.args[1:3])
        return lambda x: np.clip(x, low, high)
    if name == "relax.nn.leakyrelu":
        alpha = float(call.attrs.alpha)
        return lambda x: np.where(x < 0, alpha * x, x)
    return None


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.power": np.power,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
}


def binary_function(name: str) -> Callable[[Any, Any], Any] | None:
    """NumPy's function for a Relax binary op."""
    return _BINARY.get(name)


def is_gelu(function: RealFunction, low: float, high: float) -> bool:
    """Whether `function` is GELU in any of its spellings, exact, tanh or sigmoid, on [low, high]."""
    x = np.linspace(low, high, 257)
    y = function(x)
    return any(
        np.allclose(y, form(x), atol=2e-3) for form in (gelu, gelu_tanh, lambda v: v * sigmoid(1.702 * v))
    )
