"""Programs with mixtures of experts and tasks, for the tests of every back end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intaglio.ops import OPS, Built, Grid, TensorType, linear, moe
from intaglio.ops.moe import Expert, Projection
from intaglio.program import Array, Program, Step, Tensor

ROUTINGS = ("random", "ties", "one expert", "one token each", "few experts", "extremes")


def logits_of(rng: np.random.Generator, tokens: int, experts: int, dtype: str, routing: str) -> Array:
    """Logits [tokens, experts] of a routing with a name."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    logits = rng.integers(low, high, (tokens, experts), endpoint=True)
    if routing == "ties":
        logits = rng.integers(-1, 2, (tokens, experts))
    elif routing == "one expert":
        logits[:, rng.integers(experts)] = high
    elif routing == "one token each":
        logits[:] = low
        logits[np.arange(tokens), np.arange(tokens) % experts] = high
    elif routing == "few experts":
        logits[:, rng.permutation(experts)[2:]] = low
    elif routing == "extremes":
        logits = rng.choice([low, low + 1, -1, 0, high - 1, high], (tokens, experts))
    return logits.astype(dtype)


@dataclass(frozen=True)
class Shape:
    """Sizes and types of a random mixture of experts."""

    tokens: int = 13
    depth: int = 32
    hidden: int = 48
    width: int = 32
    experts: int = 5
    k: int = 2
    x: str = "int8"
    logits: str = "int16"
    out: str = "int8"
    function: str = "own"  # none, shared (one table) or own (a table per expert)
    normalize: bool = True
    weight: int = 127  # largest weight


def random_shape(rng: np.random.Generator) -> Shape:
    """Any sizes and types."""
    experts = int(rng.integers(1, 9))
    types = {name: str(rng.choice(["int8", "int16"])) for name in ("x", "logits", "out")}
    sizes = {name: int(rng.integers(1, 70)) for name in ("tokens", "depth", "hidden", "width")}
    return Shape(
        **types,
        **sizes,
        experts=experts,
        k=int(rng.integers(1, min(4, experts) + 1)),
        function=str(rng.choice(["none", "shared", "own"])),
        normalize=bool(rng.integers(2)),
        weight=int(rng.choice([1, 127, 30000])),
    )


def grid(dtype: str, reach: float, zero_point: int = 0) -> Grid:
    """A grid that reaches `reach`."""
    return Grid(reach / np.iinfo(dtype).max, zero_point, dtype)


def built(rng: np.random.Generator, shape: Shape) -> Built:
    """Random experts on grids on which neither product saturates much."""
    x = grid(shape.x, 1.0, 5)
    experts = [_expert(rng, shape, x) for _ in range(shape.experts)]
    y, out = grid("int8", 2.0, -7), grid(shape.out, 2.0, 3)
    return moe.parameters(x, grid(shape.logits, 6.0), experts, y, out, k=shape.k, normalize=shape.normalize)


def _expert(rng: np.random.Generator, shape: Shape, x: Grid) -> Expert:
    shared = shape.function != "own"
    reach = 2.0 if shared else float(rng.uniform(1, 3))
    hidden = grid("int8", reach, 4 if shared else int(rng.integers(-9, 9)))
    function = None if shape.function == "none" else np.tanh
    return Expert(
        _projection(rng, shape.hidden, shape.depth, shape.weight),
        hidden,
        _projection(rng, shape.width, shape.hidden, shape.weight),
        function,
        None if function is None else grid("int8", 1.0, 0 if shared else int(rng.integers(-9, 9))),
    )


def _projection(rng: np.random.Generator, channels: int, depth: int, largest: int) -> Projection:
    weight = rng.integers(-largest, largest + 1, (channels, depth))
    scale = rng.uniform(0.5, 1.5, channels) * 2 / (largest * np.sqrt(depth))
    return Projection(weight, scale, rng.normal(size=channels) / 4)


class Writer:
    """Appends ops to a program; every value is known by its name."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str, *, task: bool = False) -> None:
        self.name = name
        self.tensors = {"input": Tensor("input", shape, dtype)}
        if task:
            self.tensors["task"] = Tensor("task", (), "int32")
        self.steps: list[Step] = []

    def op(self, op: str, inputs: list[str | Array], attrs: dict[str, Any]) -> str:
        names = [item if isinstance(item, str) else self._constant(item) for item in inputs]
        types = [TensorType(self.tensors[name].shape, self.tensors[name].dtype) for name in names]
        out = OPS[op].infer(types, attrs)
        name = f"{op}_{len(self.steps)}"
        self.tensors[name] = Tensor(name, out.shape, out.dtype)
        self.steps.append(Step(name, op, tuple(names), name, attrs))
        return name

    def _constant(self, values: Array) -> str:
        name = f"constant_{len(self.tensors)}"
        self.tensors[name] = Tensor(name, values.shape, str(values.dtype), data=values)
        return name

    def program(self) -> Program:
        task = "task" if "task" in self.tensors else None
        return Program(self.name, self.tensors, self.steps, "input", self.steps[-1].output, task)


def forced(rng: np.random.Generator, shape: Shape, routing: str) -> Program:
    """A mixture alone, its logits a constant of the named routing."""
    writer = Writer("moe", (shape.tokens, shape.depth), shape.x)
    logits = logits_of(rng, shape.tokens, shape.experts, shape.logits, routing)
    made = built(rng, shape)
    writer.op("moe", ["input", logits, *made.constants], made.attrs)
    return writer.program()


def gated(rng: np.random.Generator, shape: Shape, tasks: int = 1) -> Program:
    """A gate (one matrix per task, if there are several) and the mixture it routes, with a residual after it."""
    writer = Writer("gated", (1, shape.tokens, shape.depth), shape.x, task=tasks > 1)
    x, logits = grid(shape.x, 1.0, 5), grid(shape.logits, 6.0)
    gates = []
    for _ in range(tasks):
        p = _projection(rng, shape.experts, shape.depth, 127)
        gates.append(linear.parameters(x, p.weight, p.scale, p.bias, logits))
    gate = linear.with_tasks(gates) if tasks > 1 else gates[0]
    scores = writer.op("linear", ["input", *gate.constants, *(["task"] if tasks > 1 else [])], gate.attrs)
    made = built(rng, shape)
    writer.op("moe", ["input", scores, *made.constants], made.attrs)
    return writer.program()
