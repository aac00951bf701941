"""Programs to compile: every op in every combination of types, and a small Vision Transformer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from intaglio import ops
from intaglio.ops import OPS, Built, Grid, TensorType
from intaglio.ops.add import parameters as add_parameters
from intaglio.program import Array, Program, Step, Tensor

TYPES = ("int8", "int16")


class Writer:
    """Appends steps to a program; the type of every result is inferred."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str, grid: Grid | None = None) -> None:
        self.name = name
        scale, zero_point = (grid.scale, grid.zero_point) if grid else (None, 0)
        self.tensors = {"pixels": Tensor("pixels", shape, dtype, scale, zero_point)}
        self.steps: list[Step] = []

    def constant(self, name: str, data: Array) -> str:
        data = np.ascontiguousarray(data)
        self.tensors[name] = Tensor(name, data.shape, str(data.dtype), data=data)
        return name

    def step(
        self, name: str, op: str, inputs: Sequence[str], attrs: Mapping[str, Any], grid: Grid | None = None
    ) -> str:
        types = [TensorType(self.tensors[i].shape, self.tensors[i].dtype) for i in inputs]
        out = OPS[op].infer(types, attrs)
        scale, zero_point = (grid.scale, grid.zero_point) if grid else (None, 0)
        self.tensors[name] = Tensor(name, out.shape, out.dtype, scale, zero_point)
        self.steps.append(
            Step(f"/{name}", op, tuple(inputs), name, dict(attrs), (f"/{name}/Node", f"/{name}/Q"))
        )
        return name

    def built(
        self, name: str, op: str, inputs: Sequence[str], built: Built, *, grid: Grid, **attrs: Any
    ) -> str:
        """A step whose constants a builder made."""
        constants = [self.constant(f"{name}.{index}", data) for index, data in enumerate(built.constants)]
        after = [*inputs[:1], *constants, *inputs[1:]] if op == "linear" else [*inputs, *constants]
        return self.step(name, op, after, built.attrs | attrs, grid)

    def program(self) -> Program:
        return Program(self.name, self.tensors, self.steps, "pixels", self.steps[-1].output)


@dataclass(frozen=True)
class Case:
    """One call of one op on given arrays, constants last as the op wants them."""

    op: str
    inputs: Sequence[Array]
    attrs: Mapping[str, Any]

    @property
    def dtype(self) -> str:
        types = [TensorType(array.shape, str(array.dtype)) for array in self.inputs]
        return OPS[self.op].infer(types, self.attrs).dtype


class Cases:
    """Random calls of every op; values are drawn from the whole range, its ends, and rows of one value."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[Case]:
        for part in (
            self.linear,
            self.patch_embed,
            self.matmul,
            self.attention,
            self.rows,
            self.elements,
            self.moves,
        ):
            yield from part()

    def values(self, dtype: str, *shape: int) -> Array:
        limits = np.iinfo(dtype)
        x = self.rng.integers(limits.min, limits.max + 1, shape)
        kind = self.rng.integers(4)
        if kind == 0:
            x = self.rng.choice(np.array([limits.min, limits.max]), shape)
        elif kind == 1:
            x = np.clip(x // 64, limits.min, limits.max)
        if len(shape) > 1:
            x[..., 0, :] = self.rng.choice(np.array([limits.min, 0, limits.max]))
            x[..., -1, :-1] = limits.min
            x[..., -1, -1] = limits.max
        return x.astype(dtype)

    def grid(self, dtype: str, scale: float | None = None) -> Grid:
        limits = np.iinfo(dtype)
        span = {"int8": 1.0, "int16": 1 / 256}[dtype]
        zero = int(
            self.rng.choice(np.array([0, limits.min, limits.max, self.rng.integers(limits.min, limits.max)]))
        )
        return Grid(scale or float(span * self.rng.uniform(0.01, 0.1)), zero, dtype)

    def weights(self, dtype: str, *shape: int) -> Array:
        limits = np.iinfo(dtype)
        weight = self.rng.integers(limits.min, limits.max + 1, shape)
        weight[0] = limits.min + 1
        weight.reshape(-1)[-1] = limits.max
        return weight

    def linear(self) -> Iterator[Case]:
        for x, w, y in itertools.product(TYPES, TYPES, TYPES):
            for depth in (1, 37):
                yield self._linear(x, w, y, depth)
        for y, table, residual, out in itertools.product(TYPES, ("", *TYPES), ("", *TYPES), TYPES):
            # A table of 65536 entries takes gcc a fifth of a second: not with every residual.
            large = y == "int16" and table and residual and residual != table
            if (table or residual) and not large:
                yield self._fused("int8", y, table, residual, out)
        yield self._fused("int16", "int8", "int8", "int16", "int16")

    def _linear(self, x: str, w: str, y: str, depth: int) -> Case:
        grid, out = self.grid(x), self.grid(y)
        weight = self.weights(w, 21, depth)
        scale = self.rng.uniform(0.5, 1.5, 21) * out.scale / grid.scale / np.sqrt(depth) / np.iinfo(w).max
        built = ops.linear.parameters(grid, weight, scale, self.rng.normal(size=21), out)
        attrs = built.attrs | {"has_table": 0, "has_residual": 0}
        return Case("linear", [self.values(x, 2, 5, depth), *built.constants], attrs)

    def _fused(self, x: str, y: str, table: str, residual: str, out: str) -> Case:
        base = self._linear(x, "int8", y, 16)
        inputs, attrs = list(base.inputs), dict(base.attrs)
        value = self.grid(y)
        if table:
            target = self.grid(table)
            inputs += ops.table.parameters(np.tanh, value, target).constants
            attrs["has_table"], value = 1, target
        if residual:
            inputs.append(self.values(residual, 2, 5, 21))
            added = add_parameters(value, self.grid(residual), self.grid(out))
            attrs |= {f"add_{name}": item for name, item in added.attrs.items()} | {"has_residual": 1}
        return Case("linear", inputs, attrs)

    def patch_embed(self) -> Iterator[Case]:
        for x, w, y in itertools.product(TYPES, TYPES, TYPES):
            grid, out = self.grid(x), self.grid(y)
            built = ops.patch_embed.parameters(
                grid, self.weights(w, 7, 3, 2, 4), 0.02 / np.iinfo(w).max, None, out
            )
            yield Case("patch_embed", [self.values(x, 2, 3, 6, 8), *built.constants], built.attrs)

    def matmul(self) -> Iterator[Case]:
        for a, b, y, transposed in itertools.product(TYPES, TYPES, TYPES, (0, 1)):
            left, right, out = self.grid(a), self.grid(b), self.grid(y)
            built = ops.matmul.parameters(left, right, out, 9, 0.3, transposed)
            shape = (2, 3, 5, 9) if transposed else (2, 3, 9, 5)
            yield Case("matmul", [self.values(a, 2, 3, 4, 9), self.values(b, *shape)], built.attrs)

    def attention(self) -> Iterator[Case]:
        for q, v, score, out in itertools.product(TYPES, TYPES, TYPES, TYPES):
            yield self._attention(q, q, v, score, out, "exact")
        yield self._attention("int8", "int16", "int8", "int8", "int8", "exact")
        yield self._attention("int8", "int8", "int8", "int8", "int8", "ivit")

    def _attention(self, q: str, k: str, v: str, score: str, out: str, nonlinear: str) -> Case:
        grids = self.grid(q), self.grid(k), self.grid(v)
        depth, length = int(self.rng.integers(1, 9)), int(self.rng.integers(1, 40))
        factor = float(self.rng.uniform(0.1, 3))
        result = self.grid(out, grids[2].scale * float(self.rng.uniform(0.3, 2)))
        built = ops.attention.parameters(
            *grids, self.grid(score), factor, result, depth=depth, length=length, nonlinear=nonlinear
        )
        arrays = [
            self.values(q, 2, 3, 5, depth),
            self.values(k, 2, 3, length, depth),
            self.values(v, 2, 3, length, 6),
        ]
        return Case("attention", [*arrays, *built.constants], built.attrs)

    def rows(self) -> Iterator[Case]:
        for x, y in itertools.product(TYPES, TYPES):
            built = ops.softmax.parameters(self.grid(x), self.grid(y))
            yield Case("softmax", [self.values(x, 3, 6, 23), *built.constants], built.attrs)
            for channels, nonlinear in itertools.product((1, 2, 24), ("exact", "ivit")):
                gamma, beta = self.rng.normal(size=(2, channels))
                norm = ops.layernorm.parameters(self.grid(x), gamma, beta, 1e-6, self.grid(y), nonlinear)
                yield Case("layernorm", [self.values(x, 3, 6, channels), *norm.constants], norm.attrs)
            for axis, keepdims in itertools.product((0, 1, 2), (0, 1)):
                mean = ops.mean.parameters(self.grid(x), (3, 4, 5)[axis], self.grid(y), axis, keepdims)
                yield Case("mean", [self.values(x, 3, 4, 5)], mean.attrs)
        for x in TYPES:
            for axis in (0, 1, 2):
                yield Case("argmax", [self.values(x, 3, 4, 5)], {"axis": axis, "keepdims": axis % 2})
            for k in (1, 3, 7):
                yield Case("topk", [self.values(x, 2, 5, 7) // 64], {"k": k})

    def elements(self) -> Iterator[Case]:
        for x, y in itertools.product(TYPES, TYPES):
            table = ops.table.parameters(np.sin, self.grid(x), self.grid(y))
            yield Case("table", [self.values(x, 3, 50), *table.constants], table.attrs)
            for factor, offset in (
                (0.7, None),
                (self.rng.normal(size=9), self.rng.normal(size=9)),
                (-2.0, 0.3),
            ):
                built = ops.rescale.parameters(self.grid(x), factor, offset, self.grid(y))
                yield Case("rescale", [self.values(x, 3, 4, 9), *built.constants], built.attrs)
        mixed = ops.rescale.parameters(self.grid("int16"), self.rng.normal(size=9), 0.3, self.grid("int8"))
        constants = [mixed.constants[0], mixed.constants[1].reshape(-1)[:1]]
        yield Case("rescale", [self.values("int16", 2, 9), *constants], mixed.attrs)
        for a, b, y in itertools.product(TYPES, TYPES, TYPES):
            for shape in ((3, 4, 5), (1, 4, 5), (5,), (1, 1, 1)):
                built = add_parameters(self.grid(a), self.grid(b), self.grid(y), -1 if len(shape) == 1 else 1)
                yield Case("add", [self.values(a, 3, 4, 5), self.values(b, *shape)], built.attrs)
        for y in TYPES:
            built = ops.quantize_input.parameters([0.4, 0.5, 0.6], [0.2, 0.3, 0.4], self.grid(y), 3)
            pixels = self.rng.integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
            yield Case("quantize_input", [pixels, *built.constants], built.attrs)

    def moves(self) -> Iterator[Case]:
        for dtype in (*TYPES, "int32"):
            x = self.values(dtype, 2, 3, 4, 5)
            yield Case("reshape", [x], {"shape": [6, 20]})
            yield Case("transpose", [x], {"axes": [0, 2, 1, 3]})
            yield Case("transpose", [x], {"axes": [3, 1, 0, 2]})
            yield Case("transpose", [x], {"axes": [0, 1, 2, 3]})
            yield Case("transpose", [x.reshape(2, 3, 2, 2, 5, 1, 1)], {"axes": [6, 4, 2, 0, 5, 3, 1]})
            yield Case("slice", [x], {"begin": [0, 1, 0, 1], "end": [2, 3, 4, 5], "strides": [1, 1, 3, 2]})
            yield Case("slice", [x], {"begin": [0, 2, 0, 0], "end": [2, 3, 4, 5], "strides": [1, 1, 1, 1]})
            yield Case("gather", [x], {"axis": 1, "indices": [2, 0, 2]})
            yield Case("gather", [x], {"axis": 3, "indices": [4]})
            yield Case("broadcast", [x[:, :1, :, :1]], {"shape": [2, 2, 7, 4, 3]})
            yield Case("broadcast", [x[:1, :1, :1, :1]], {"shape": [3, 1, 1, 1, 1]})
            for axis in (0, 2, 3):
                parts = [x, x[::-1], np.roll(x, 1)] if axis else [x, x[:1]]
                yield Case("concat", parts, {"axis": axis})


def cases_program(seed: int, dtype: str) -> Program:
    """One program whose output is every case with a result of `dtype`, end to end.

    The arrays are constants; the program's input is one more part of the result.
    """
    writer = Writer(f"every op with {dtype} results", (2, 3), dtype)
    parts = [writer.step("first", "reshape", ["pixels"], {"shape": [6]})]
    for index, case in enumerate(case for case in Cases(seed) if case.dtype == dtype):
        name = f"{case.op}_{index}"
        names = [writer.constant(f"{name}.in{place}", array) for place, array in enumerate(case.inputs)]
        result = writer.step(name, case.op, names, case.attrs)
        size = int(np.prod(writer.tensors[result].shape))
        parts.append(writer.step(f"{name}_flat", "reshape", [result], {"shape": [size]}))
    writer.step("all", "concat", parts, {"axis": 0})
    return writer.program()


def block(
    name: str = "block",
    *,
    tokens: int = 4,
    channels: int = 16,
    heads: int = 2,
    patch: int = 4,
    classes: int = 10,
    depth: int = 1,
    stream: str = "int16",
    seed: int = 7,
) -> Program:
    """A Vision Transformer: pixels, patches, class token, blocks of attention and MLP, head.

    `tokens`: patches along one edge; `stream`: type of the residual stream.
    """
    rng = np.random.default_rng(seed)
    size = tokens * patch
    act, wide = Grid(0.03, -3, "int8"), Grid(0.05 if stream == "int8" else 0.0004, 0, stream)
    writer = Writer(name, (1, 3, size, size), "uint8", None)
    pixels = ops.quantize_input.parameters(0.5, 0.25, act, 3)
    x = writer.built("quantize", "quantize_input", ["pixels"], pixels, grid=act)
    weight = rng.integers(-127, 128, (channels, 3, patch, patch))
    built = ops.patch_embed.parameters(act, weight, 0.002, rng.normal(size=channels), wide)
    x = writer.built("patch_embed", "patch_embed", [x], built, grid=wide)
    token = writer.constant("cls_token", wide.quantize(rng.normal(size=(1, 1, channels))))
    x = writer.step("tokens", "concat", [token, x], {"axis": 1}, wide)
    count = tokens * tokens + 1
    position = writer.constant("pos_embed", wide.quantize(rng.normal(size=(1, count, channels))))
    x = writer.step("embedded", "add", [x, position], add_parameters(wide, wide, wide).attrs, wide)
    for index in range(depth):
        x = _layer(writer, f"blocks.{index}", x, heads, act, wide, rng)
    x = _norm(writer, "norm", x, wide, act, rng)
    bounds = {"begin": [0, 0, 0], "end": [1, 1, channels], "strides": [1, 1, 1]}
    x = writer.step("class", "slice", [x], bounds, act)
    x = writer.step("pooled", "reshape", [x], {"shape": [1, channels]}, act)
    _dense(writer, "head", x, classes, act, Grid(0.05, 4, "int8"), rng)
    return writer.program()


def _norm(writer: Writer, name: str, x: str, source: Grid, out: Grid, rng: np.random.Generator) -> str:
    gamma, beta = rng.normal(size=(2, writer.tensors[x].shape[-1]))
    built = ops.layernorm.parameters(source, gamma, beta, 1e-6, out)
    return writer.built(name, "layernorm", [x], built, grid=out)


def _dense(
    writer: Writer,
    name: str,
    x: str,
    outputs: int,
    source: Grid,
    out: Grid,
    rng: np.random.Generator,
    residual: str = "",
    grid: Grid | None = None,
    table: bool = False,
) -> str:
    """A linear, with GELU by table or a residual on `grid` (which is also the sum's)."""
    weight = rng.integers(-127, 128, (outputs, writer.tensors[x].shape[-1]))
    scale = rng.uniform(0.5, 1.5, outputs) * 0.02 / np.sqrt(weight.shape[1])
    built = ops.linear.parameters(source, weight, scale, rng.normal(size=outputs), out)
    constants = list(built.constants)
    attrs: dict[str, Any] = {"has_table": int(table), "has_residual": int(bool(residual))}
    if table:
        constants += ops.table.parameters(lambda v: v / (1 + np.exp(-1.702 * v)), out, out).constants
    if residual and grid is not None:
        added = add_parameters(out, grid, grid).attrs
        attrs |= {f"add_{key}": value for key, value in added.items()}
    inputs = [x, residual] if residual else [x]
    return writer.built(name, "linear", inputs, Built(constants, built.attrs), grid=grid or out, **attrs)


def _layer(
    writer: Writer, name: str, x: str, heads: int, act: Grid, wide: Grid, rng: np.random.Generator
) -> str:
    _, count, channels = writer.tensors[x].shape
    depth = channels // heads
    normed = _norm(writer, f"{name}.norm1", x, wide, act, rng)
    qkv = _dense(writer, f"{name}.attn.qkv", normed, 3 * channels, act, act, rng)
    split = writer.step(f"{name}.split", "reshape", [qkv], {"shape": [1, count, 3, heads, depth]}, act)
    turned = writer.step(f"{name}.turned", "transpose", [split], {"axes": [2, 0, 3, 1, 4]}, act)
    parts = []
    for place, part in enumerate("qkv"):
        begin = [place, 0, 0, 0, 0]
        bounds = {"begin": begin, "end": [place + 1, 1, heads, count, depth], "strides": [1] * 5}
        taken = writer.step(f"{name}.attn.{part}5", "slice", [turned], bounds, act)
        parts.append(
            writer.step(f"{name}.attn.{part}", "reshape", [taken], {"shape": [1, heads, count, depth]}, act)
        )
    score = Grid(0.06, 5, "int8")
    built = ops.attention.parameters(act, act, act, score, depth**-0.5, act, depth=depth, length=count)
    mixed = writer.built(f"{name}.attn", "attention", parts, built, grid=act)
    back = writer.step(f"{name}.attn.back", "transpose", [mixed], {"axes": [0, 2, 1, 3]}, act)
    joined = writer.step(f"{name}.attn.joined", "reshape", [back], {"shape": [1, count, channels]}, act)
    x = _dense(writer, f"{name}.attn.proj", joined, channels, act, act, rng, x, wide)
    normed = _norm(writer, f"{name}.norm2", x, wide, act, rng)
    hidden = _dense(writer, f"{name}.mlp.fc1", normed, 4 * channels, act, act, rng, table=True)
    return _dense(writer, f"{name}.mlp.fc2", hidden, channels, act, act, rng, x, wide)
