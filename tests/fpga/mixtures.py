"""Vision Transformers with mixtures of experts, and gates that choose what a test wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intaglio import ops
from intaglio.ops import Grid, linear, moe
from intaglio.ops.moe import Expert, Projection
from intaglio.program import Program, Tensor
from tests.cpu.harness import random_values
from tests.cpu.networks import SMALL, Vit, VitWriter, gelu

STREAM_OUT = Grid(0.04, 0, "int8")
ROUTINGS = ("random", "equal", "one expert", "one token each", "empty experts")


@dataclass(frozen=True)
class Mixture:
    """Sizes of a mixture of experts; `function`: "none", "shared" (one table) or "own" (a table per expert)."""

    experts: int = 5
    k: int = 2
    hidden: int = 64
    logits: str = "int16"
    normalize: bool = True
    function: str = "shared"
    routing: str = "random"
    tasks: int = 1


class MixtureWriter(VitWriter):
    """A ViT with a mixture of experts in every second layer; it ends with logits, or with the residual stream."""

    def __init__(self, mixture: Mixture, vit: Vit = SMALL, seed: int = 0) -> None:
        super().__init__(vit, seed)
        self.mixture = mixture
        if mixture.tasks > 1:
            self.tensors["task"] = Tensor("task", (), "int32")

    def program(self) -> Program:
        task = "task" if "task" in self.tensors else None
        return Program(self.name, self.tensors, self.steps, "input", self.steps[-1].output, task)

    def patches(self) -> str:
        """Tokens of the image beside a constant one; the position tells tokens apart where the routing wants it."""
        vit = self.vit
        pixels = Grid(0.018, -3, "int8")
        table = ops.quantize_input.parameters([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], pixels, 3)
        x = self.op("quantize_input", ["input", *table.constants])
        weight = self.weights(vit.dim, 3 * vit.patch**2).reshape(vit.dim, 3, vit.patch, vit.patch)
        scale = self.scale(3 * vit.patch**2, vit.dim)
        built = ops.patch_embed.parameters(pixels, weight, scale, self.bias(vit.dim), self.stream)
        x = self.op("patch_embed", [x, *built.constants], built.attrs)
        x = self.op("concat", [random_values(self.rng, (1, 1, vit.dim), vit.residual), x], {"axis": 1})
        return self.op("add", [x, self.position()], ops.add.parameters(*[self.stream] * 3).attrs)

    def position(self) -> np.ndarray:
        vit, limits = self.vit, np.iinfo(self.vit.residual)
        if self.mixture.routing != "one token each":
            return random_values(self.rng, (1, vit.tokens, vit.dim), vit.residual)
        values = np.full((1, vit.tokens, vit.dim), limits.min, vit.residual)
        at = np.arange(vit.tokens)
        values[0, at, at % self.mixture.experts] = limits.max
        return values

    def build(self, whole: bool = False) -> Program:
        """With `whole`, the result is the residual stream of all tokens."""
        x = self.patches()
        for layer in range(self.vit.layers):
            x = self.moe(x) if layer % 2 else self.mlp(self.attention(x))
        if whole:
            return self.program()
        row = {"begin": [0, 0, 0], "end": [1, 1, self.vit.dim], "strides": [1, 1, 1]}
        x = self.op("slice", [self.layernorm(x)], row)
        x = self.op("reshape", [x], {"shape": [1, self.vit.dim]})
        self.linear(x, STREAM_OUT, self.vit.classes, Grid(0.1, 0, "int8"))
        return self.program()

    def gate(self, x: str, out: Grid) -> str:
        """Logits, from weights of every task."""
        mixture, dim = self.mixture, self.vit.dim
        built = []
        for _ in range(mixture.tasks):
            weight, bias = self.weights(mixture.experts, dim), self.bias(mixture.experts)
            if mixture.routing in ("equal", "one expert", "empty experts"):
                weight[:], bias[:] = 0, 0
            if mixture.routing == "one expert":
                bias[self.rng.integers(mixture.experts)] = 1
            if mixture.routing == "empty experts":
                weight[:2] = self.weights(2, dim)
                bias[2:] = -100
            if mixture.routing == "one token each":
                weight[:] = 100 * np.eye(mixture.experts, dim)
            built.append(linear.parameters(STREAM_OUT, weight, self.scale(dim, mixture.experts), bias, out))
        gate = linear.with_tasks(built) if mixture.tasks > 1 else built[0]
        return self.op("linear", [x, *gate.constants, *(["task"] if mixture.tasks > 1 else [])], gate.attrs)

    def moe(self, x: str) -> str:
        """LayerNorm, gate, experts, residual."""
        mixture = self.mixture
        y = self.layernorm(x)
        logits = Grid(0.0003 if mixture.logits == "int16" else 0.05, 0, mixture.logits)
        scores = self.gate(y, logits)
        experts = [self.expert() for _ in range(mixture.experts)]
        out = Grid(0.05, -4, "int8")
        made = moe.parameters(
            STREAM_OUT, logits, experts, Grid(0.04, 7, "int8"), out, k=mixture.k, normalize=mixture.normalize
        )
        y = self.op("moe", [y, scores, *made.constants], made.attrs)
        return self.op("add", [y, x], ops.add.parameters(out, self.stream, self.stream).attrs)

    def expert(self) -> Expert:
        mixture, dim = self.mixture, self.vit.dim
        own = mixture.function == "own"
        hidden = Grid(0.04 * float(self.rng.uniform(0.5, 1.5)) if own else 0.04, 3, "int8")
        active = Grid(0.02, -90, "int8")
        function: Any = None if mixture.function == "none" else gelu
        first = self.weights(mixture.hidden, dim), self.scale(dim, mixture.hidden), self.bias(mixture.hidden)
        second = self.weights(dim, mixture.hidden), self.scale(mixture.hidden, dim), self.bias(dim)
        return Expert(Projection(*first), hidden, Projection(*second), function, active if function else None)
