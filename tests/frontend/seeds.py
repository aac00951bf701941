"""Small undamaged graphs with 16-bit activations, to be damaged: shallow, so that a wrong result shows."""

from __future__ import annotations

import onnx

from tests.frontend import test_semantics as spelled
from tests.frontend.graphs import Graph


def linear() -> tuple[Graph, str]:
    g = Graph(1, 6, 24, dtype="int16")
    return g, g.linear(g.q("x"), 16)


def gemm() -> tuple[Graph, str]:
    g = Graph(6, 24, dtype="int16")
    weight = g.weight(g.normal(16, 24, spread=0.3), axis=0)
    return g, g.q(g.op("Gemm", g.q("x"), weight, g.constant(g.normal(16)), transB=1))


def patches() -> tuple[Graph, str]:
    g = Graph(1, 3, 8, 8, dtype="int16")
    return g, g.linear(spelled.patches(g, g.q("x")), 8)


def layer_norm() -> tuple[Graph, str]:
    g = Graph(1, 6, 48, dtype="int16")
    return g, g.q(spelled.fused(g, g.q("x")))


def layer_norm_decomposed() -> tuple[Graph, str]:
    g = Graph(1, 6, 48, dtype="int16")
    return g, g.q(spelled.pow_sqrt_div(g, g.q("x")))


def gelu() -> tuple[Graph, str]:
    g = Graph(1, 6, 24, dtype="int16")
    return g, g.q(spelled.gelu_erf(g, g.linear(g.q("x"), 16)))


def residual() -> tuple[Graph, str]:
    g = Graph(1, 6, 24, dtype="int16")
    x = g.q("x")
    return g, g.q(g.op("Add", x, g.q(g.op("Mul", g.linear(x, 24), g.constant(g.normal(24))))))


def attention() -> tuple[Graph, str]:
    g = Graph(1, spelled.TOKENS, 24, dtype="int16")
    return g, g.q(spelled.scale_behind(g))


def tokens() -> tuple[Graph, str]:
    g = Graph(1, 6, 24, dtype="int16")
    joined = g.q(g.op("Concat", g.constant(g.normal(1, 1, 24)), g.q("x"), axis=1))
    embedded = g.q(g.op("Add", joined, g.constant(g.normal(1, 7, 24))))
    return g, g.linear(g.op("Gather", embedded, g.constant(0, "int64"), axis=1), 10)


def pooled() -> tuple[Graph, str]:
    g = Graph(2, 6, 24, dtype="int16")
    mean = g.q(spelled.mean_of(g, g.q("x"), [1], 0))
    return g, g.q(g.op("Softmax", g.linear(mean, 10), axis=-1))


BUILDERS = (
    linear,
    gemm,
    patches,
    layer_norm,
    layer_norm_decomposed,
    gelu,
    residual,
    attention,
    tokens,
    pooled,
)


def _seeds() -> dict[str, tuple[Graph, onnx.ModelProto]]:
    built = {build.__name__: build() for build in BUILDERS}
    return {name: (graph, graph.model(output)) for name, (graph, output) in built.items()}


SEEDS = _seeds()
