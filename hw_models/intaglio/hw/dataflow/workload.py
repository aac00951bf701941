"""What a program asks of any accelerator: products, attention, LayerNorm, residuals and experts, with their sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from intaglio.errors import InputError, UnsupportedError
from intaglio.hw.cycles.routing import crowded, possible, shared
from intaglio.program import Program, Step

FREE = {
    "reshape", "transpose", "slice", "concat", "broadcast", "gather", "table", "rescale", "quantize_input", "mean",
    "topk", "argmax",
}  # fmt: skip
"""Ops that take no time of their own: movement, what is fused elsewhere, and what is small."""


@dataclass(frozen=True)
class Linear:
    """`rows` tokens times a matrix of `depth` inputs and `channels` outputs."""

    name: str
    rows: int
    depth: int
    channels: int

    @property
    def macs(self) -> int:
        return self.rows * self.depth * self.channels


@dataclass(frozen=True)
class PatchEmbed(Linear):
    """The patches of the image times a matrix."""


@dataclass(frozen=True)
class Gate(Linear):
    """The product that makes a router's logits, one channel per expert."""


@dataclass(frozen=True)
class Attention:
    """`queries` and `keys` tokens, `heads` of `depth` channels."""

    name: str
    queries: int
    keys: int
    heads: int
    depth: int

    @property
    def macs(self) -> int:
        return 2 * self.queries * self.keys * self.heads * self.depth


@dataclass(frozen=True)
class Elementwise:
    """LayerNorm or a residual of `rows` tokens."""

    name: str
    kind: Literal["layernorm", "add"]
    rows: int
    channels: int

    @property
    def macs(self) -> int:
        return 0


@dataclass(frozen=True)
class Mixture:
    """`rows` tokens, each for `k` of `experts` experts with `hidden` channels between their two products."""

    name: str
    rows: int
    channels: int
    hidden: int
    experts: int
    k: int

    @property
    def macs(self) -> int:
        return 2 * self.rows * self.k * self.channels * self.hidden


Work = Linear | Attention | Elementwise | Mixture

Routing = Sequence[Sequence[int]]
"""Tokens per expert, of every mixture in order."""


def workload(program: Program) -> list[Work]:
    """The work of a program, in order. Raises UnsupportedError naming the op that no design describes."""
    gates = {step.inputs[1] for step in program.steps if step.op == "moe"}
    sources = _sources(program)
    made: list[Work] = []
    logits = {sources[name] for name in gates}
    for step in program.steps:
        made.extend(_work(program, step, step.output in logits))
    return made


def _sources(program: Program) -> dict[str, str]:
    """Every tensor's origin before it was reshaped."""
    found = {name: name for name in program.tensors}
    for step in program.steps:
        if step.op in ("reshape", "slice", "transpose"):
            found[step.output] = found[step.inputs[0]]
    return found


def _work(program: Program, step: Step, gate: bool) -> Iterable[Work]:
    shapes = [program.tensors[name].shape for name in step.inputs]
    out = program.tensors[step.output].shape
    rows = math.prod(out[:-1])
    match step.op:
        case "linear" | "patch_embed":
            kind = Gate if gate else PatchEmbed if step.op == "patch_embed" else Linear
            yield kind(step.name, rows, shapes[1][-1], out[-1])
            if step.attrs.get("has_residual"):
                yield Elementwise(step.name, "add", rows, out[-1])
        case "attention":
            _, heads, queries, depth = shapes[0]
            yield Attention(step.name, queries, shapes[1][2], heads, depth)
        case "layernorm":
            yield Elementwise(step.name, "layernorm", rows, out[-1])
        case "add":
            if not any(program.tensors[name].is_constant for name in step.inputs[:2]):
                yield Elementwise(step.name, "add", rows, out[-1])
        case "moe":
            experts, hidden, channels = shapes[3]
            yield Mixture(step.name, rows, channels, hidden, experts, step.attrs["k"])
        case op if op not in FREE:
            nodes = ", ".join(map(repr, step.onnx_nodes[:3]))
            raise UnsupportedError(
                f"{op} (ONNX node {nodes}): a design file describes no unit for it; estimate for another target."
            )


def spread(work: Sequence[Work], how: Literal["uniform", "worst"]) -> Routing:
    """A routing that nobody recorded.

    `uniform`: every expert gets as many tokens, to within one. `worst`: every expert gets one, so that all weights are
    loaded, and the first ones as many of the rest as there are tokens: with loads that overlap computation, nothing
    takes longer.
    """
    mixtures = [one for one in work if isinstance(one, Mixture)]
    if how == "uniform":
        return [shared(one.rows * one.k, one.experts) for one in mixtures]
    return [crowded(one.rows, one.experts, one.k) for one in mixtures]


def recorded(work: Sequence[Work], routing: Routing) -> Routing:
    """A routing that was recorded, checked. Raises InputError if it is not one of this model."""
    mixtures = [one for one in work if isinstance(one, Mixture)]
    if len(routing) != len(mixtures):
        raise InputError(
            f"--routing: the model has {len(mixtures)} mixtures of experts, the recording {len(routing)}."
        )
    for mixture, tokens in zip(mixtures, routing, strict=True):
        if not possible(tokens, mixture.rows, mixture.experts, mixture.k):
            raise InputError(
                f"--routing: {mixture.name!r} sends {mixture.rows} tokens to {mixture.k} of {mixture.experts} experts, "
                f"the recording has {list(tokens)}."
            )
    return [list(tokens[: m.experts]) for m, tokens in zip(mixtures, routing, strict=True)]
