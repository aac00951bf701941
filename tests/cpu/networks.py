"""Whole Vision Transformers of random weights, built from the ops as the passes build them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intaglio import ops
from intaglio.ops import Grid
from intaglio.program import Program
from tests.cpu.harness import ProgramWriter, random_values


@dataclass(frozen=True)
class Vit:
    """Sizes of a plain ViT; `residual` is the type of the residual stream."""

    image: int
    patch: int
    dim: int
    layers: int
    heads: int
    mlp: int
    classes: int
    residual: str = "int8"

    @property
    def tokens(self) -> int:
        return (self.image // self.patch) ** 2 + 1


DEIT_TINY = Vit(image=224, patch=16, dim=192, layers=12, heads=3, mlp=768, classes=1000)
SMALL = Vit(image=40, patch=8, dim=48, layers=2, heads=3, mlp=96, classes=10)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))


class VitWriter(ProgramWriter):
    """Writes a ViT; `grids` holds the grid of every value written."""

    def __init__(self, vit: Vit, seed: int = 0) -> None:
        super().__init__("vit", (1, 3, vit.image, vit.image), "uint8")
        self.vit = vit
        self.rng = np.random.default_rng(seed)
        fine = vit.residual == "int16"
        self.stream = Grid(0.0003 if fine else 0.05, 0 if fine else 2, vit.residual)

    def build(self) -> Program:
        vit = self.vit
        pixels = Grid(0.018, -3, "int8")
        table = ops.quantize_input.parameters([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], pixels, 3)
        x = self.op("quantize_input", ["input", *table.constants])
        weight = self.weights(vit.dim, 3 * vit.patch**2).reshape(vit.dim, 3, vit.patch, vit.patch)
        scale = self.scale(3 * vit.patch**2, vit.dim)
        built = ops.patch_embed.parameters(pixels, weight, scale, self.bias(vit.dim), self.stream)
        x = self.op("patch_embed", [x, *built.constants], built.attrs)
        x = self.op("concat", [random_values(self.rng, (1, 1, vit.dim), vit.residual), x], {"axis": 1})
        position = random_values(self.rng, (1, vit.tokens, vit.dim), vit.residual)
        x = self.op("add", [x, position], ops.add.parameters(self.stream, self.stream, self.stream).attrs)
        for _ in range(vit.layers):
            x = self.mlp(self.attention(x))
        x = self.layernorm(x)
        row = {"begin": [0, 0, 0], "end": [1, 1, vit.dim], "strides": [1, 1, 1]}
        x = self.op("reshape", [self.op("slice", [x], row)], {"shape": [1, vit.dim]})
        self.linear(x, Grid(0.04, 0, "int8"), vit.classes, Grid(0.1, 0, "int8"))
        return self.program()

    def weights(self, channels: int, depth: int) -> np.ndarray:
        return np.clip(self.rng.normal(0, 40, (channels, depth)), -127, 127).astype(np.int8)

    def scale(self, depth: int, channels: int) -> np.ndarray:
        return self.rng.uniform(0.5, 1.5, channels) / (40 * depth**0.5)

    def bias(self, channels: int) -> np.ndarray:
        return self.rng.normal(0, 0.3, channels)

    def linear(
        self,
        x: str,
        grid: Grid,
        channels: int,
        out: Grid,
        table: Grid | None = None,
        residual: str | None = None,
    ) -> str:
        depth = self.tensors[x].shape[-1]
        weight = self.weights(channels, depth)
        built = ops.linear.parameters(grid, weight, self.scale(depth, channels), self.bias(channels), out)
        inputs: list[Any] = [x, *built.constants]
        attrs = dict(built.attrs)
        if table:
            inputs += ops.table.parameters(gelu, out, table).constants
            attrs["has_table"] = 1
        if residual:
            inputs.append(residual)
            added = ops.add.parameters(out, self.stream, self.stream).attrs
            attrs |= {"has_residual": 1} | {f"add_{key}": value for key, value in added.items()}
        return self.op("linear", inputs, attrs)

    def layernorm(self, x: str) -> str:
        gamma, beta = self.rng.uniform(0.5, 1.5, self.vit.dim), self.bias(self.vit.dim)
        built = ops.layernorm.parameters(self.stream, gamma, beta, 1e-6, Grid(0.04, 0, "int8"))
        return self.op("layernorm", [x, *built.constants], built.attrs)

    def attention(self, x: str) -> str:
        vit, depth = self.vit, self.vit.dim // self.vit.heads
        grid = Grid(0.03, 1, "int8")
        qkv = self.linear(self.layernorm(x), Grid(0.04, 0, "int8"), 3 * vit.dim, grid)
        qkv = self.op("reshape", [qkv], {"shape": [1, vit.tokens, 3, vit.heads, depth]})
        qkv = self.op("transpose", [qkv], {"axes": [2, 0, 3, 1, 4]})
        parts = [self.part(qkv, index) for index in range(3)]
        score = Grid(0.06, 0, "int8")
        built = ops.attention.parameters(
            grid, grid, grid, score, depth**-0.5, grid, depth=depth, length=vit.tokens
        )
        y = self.op("attention", [*parts, *built.constants], built.attrs)
        y = self.op(
            "reshape",
            [self.op("transpose", [y], {"axes": [0, 2, 1, 3]})],
            {"shape": [1, vit.tokens, vit.dim]},
        )
        return self.linear(y, grid, vit.dim, Grid(0.05, 0, "int8"), residual=x)

    def part(self, qkv: str, index: int) -> str:
        shape = self.tensors[qkv].shape
        box = {"begin": [index, 0, 0, 0, 0], "end": [index + 1, *shape[1:]], "strides": [1] * 5}
        return self.op("reshape", [self.op("slice", [qkv], box)], {"shape": list(shape[1:])})

    def mlp(self, x: str) -> str:
        hidden, active = Grid(0.04, 0, "int8"), Grid(0.02, -90, "int8")
        y = self.linear(self.layernorm(x), Grid(0.04, 0, "int8"), self.vit.mlp, hidden, table=active)
        return self.linear(y, active, self.vit.dim, Grid(0.05, 0, "int8"), residual=x)
