"""Real functions of one and of two tensors, evaluated in float64: those of one become tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from intaglio.passes.integer.lazy import Real, RealFunction

_erf = np.vectorize(math.erf, otypes=[np.float64])


def identity(x: Real) -> Real:
    """X itself."""
    return x


def gelu(x: Real) -> Real:
    """X * Phi(x)."""
    return np.asarray(0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))))


def gelu_tanh(x: Real) -> Real:
    """GELU's tanh approximation (Hendrycks and Gimpel, 2016)."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))))


def sigmoid(x: Real) -> Real:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _clip(call: relax.Call) -> RealFunction:
    low, high = (float(getattr(bound, "value", bound)) for bound in call.args[1:3])
    return lambda x: np.clip(x, low, high)


def _leaky_relu(call: relax.Call) -> RealFunction:
    alpha = float(call.attrs.alpha)
    return lambda x: np.where(x < 0, alpha * x, x)


# How to read the function off a call.
UNARY: dict[str, Callable[[relax.Call], RealFunction]] = {
    "relax.abs": lambda _: np.abs,
    "relax.clip": _clip,
    "relax.erf": lambda _: _erf,
    "relax.cos": lambda _: np.cos,
    "relax.exp": lambda _: np.exp,
    "relax.log": lambda _: np.log,
    "relax.negative": lambda _: np.negative,
    "relax.nn.gelu": lambda _: gelu,
    "relax.nn.gelu_tanh": lambda _: gelu_tanh,
    "relax.nn.leakyrelu": _leaky_relu,
    "relax.nn.relu": lambda _: lambda x: np.maximum(x, 0.0),
    "relax.nn.silu": lambda _: lambda x: x * sigmoid(x),
    "relax.sigmoid": lambda _: sigmoid,
    "relax.sin": lambda _: np.sin,
    "relax.sqrt": lambda _: np.sqrt,
    "relax.square": lambda _: np.square,
    "relax.tanh": lambda _: np.tanh,
}

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.power": np.power,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
}


def is_gelu(function: RealFunction, low: float, high: float) -> bool:
    """Whether `function` is GELU in any of its spellings, exact, tanh or sigmoid, on [low, high]."""
    x = np.linspace(low, high, 257)
    y = function(x)
    near = 2e-3 * max(1e-30, float(np.abs(x).max()))
    return any(
        np.allclose(y, form(x), rtol=0, atol=near)
        for form in (gelu, gelu_tanh, lambda v: v * sigmoid(1.702 * v))
    )
