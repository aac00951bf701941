"""Where tokens go in a program's mixtures of experts, and how often the integer router chooses as a float gate does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.feed import dequantize_tensor
from intaglio.gates import FloatGate, gate_tensors, tapped
from intaglio.ops import moe, reference
from intaglio.program import Array, Program, Step


@dataclass(frozen=True)
class LayerRouting:
    """The routing of some samples in one mixture of experts.

    `tokens`: choices per expert, over all samples; `loaded`: experts with a token, per sample; `expert_bytes`: weights
    and other constants of one expert.
    """

    name: str
    onnx_nodes: list[str]
    k: int
    tokens: list[int]
    loaded: list[int]
    expert_bytes: int

    @property
    def experts(self) -> int:
        return len(self.tokens)

    @property
    def unused_bytes(self) -> float:
        """Bytes of experts that no token chose: what a sample need not load, on average."""
        return self.expert_bytes * (self.experts - float(np.mean(self.loaded)))

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "onnx_nodes": self.onnx_nodes,
            "experts": self.experts,
            "k": self.k,
            "tokens_per_expert": self.tokens,
            "experts_loaded": self.loaded,
            "expert_bytes": self.expert_bytes,
            "unused_weight_bytes": self.unused_bytes,
        }


@dataclass(frozen=True)
class Agreement:
    """Shares of tokens for which the integer router chooses the same k experts as a float gate; None: not known.

    `gate`: the gate of the float model (of the source, where there is no float model) on the same input, dequantized;
    `source` and `float_model`: the gates in these models, run from the image on.
    """

    name: str
    gate: float | None
    source: float | None
    float_model: float | None

    @classmethod
    def over(cls, parts: Sequence[Agreement]) -> Agreement:
        """The mean over runs with equally many tokens."""
        columns = [[getattr(part, name) for part in parts] for name in ("gate", "source", "float_model")]
        return cls(parts[0].name, *(None if None in column else float(np.mean(column)) for column in columns))

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "gate": self.gate, "source": self.source, "float": self.float_model,
        }  # fmt: skip


def mixtures(program: Program) -> list[Step]:
    """The steps that route."""
    return [step for step in program.steps if step.op == "moe"]


def record(program: Program, x: Array, task: int = 0) -> list[LayerRouting]:
    """Run the reference on samples `x` [N, ...] of the program's input type and record every mixture's routing."""
    values = observe(program, x, [step.inputs[1] for step in mixtures(program)], task)
    return [_layer(program, step, values[step.inputs[1]]) for step in mixtures(program)]


def observe(program: Program, x: Array, names: Sequence[str], task: int = 0) -> dict[str, Array]:
    """The values [N, .., last] of some tensors of `program` for samples `x`, by the reference."""
    wanted, batch = set(names), program.tensors[program.input].shape[0]
    found: dict[str, list[Array]] = {name: [] for name in wanted}
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        full = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
        seen = _seen(program, full, wanted, task)
        for name in wanted:
            value = program.tensors[name].data if name not in seen else seen[name]
            assert value is not None, f"{name} is a tensor of the program"
            found[name].append(_by_sample(np.asarray(value), batch)[: len(part)])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _by_sample(value: Array, batch: int) -> Array:
    """A value whose first axis holds the samples; some programs fold their tokens into it."""
    return value if len(value) == batch else value.reshape(batch, -1, *value.shape[1:])


def _seen(program: Program, x: Array, wanted: set[str], task: int) -> dict[str, Array]:
    """The wanted values of one call."""
    seen: dict[str, Array] = {program.input: x}

    def keep(step: Step, value: Array) -> None:
        if step.output in wanted:
            seen[step.output] = value

    reference.run(program, x, keep, task)
    return seen


def _layer(program: Program, step: Step, logits: Array) -> LayerRouting:
    table = program.tensors[step.inputs[2]].data
    assert table is not None, "a route table is a constant"
    experts = logits.shape[-1]
    chosen = [moe.route(sample, table, step.attrs).slots for sample in logits]
    constants = moe.Operands.of([program.tensors[name] for name in step.inputs])
    own = [t.data for t in (*constants.first, *constants.second) if t.data is not None]
    return LayerRouting(
        name=step.name,
        onnx_nodes=list(step.onnx_nodes),
        k=int(step.attrs["k"]),
        tokens=np.bincount(np.concatenate(chosen).reshape(-1), minlength=experts).tolist(),
        loaded=[len(np.unique(slots)) for slots in chosen],
        expert_bytes=sum(data.nbytes for data in own) // experts,
    )


def agreement(
    program: Program,
    x: Array,
    real: NDArray[np.float32],
    source: Path,
    float_model: Path | None,
    task: int = 0,
) -> list[Agreement]:
    """Compare every mixture's choices with those of float gates, on samples `x`, which are `real` to the models.

    `source`: the ONNX model that was compiled; `float_model`: the one before it was quantized, if there is one.
    """
    gates = {step.name: _gate(program, step) for step in mixtures(program)}
    inputs = {gate.inputs[0] for gate in gates.values() if gate is not None}
    logits = [step.inputs[1] for step in mixtures(program)]
    values = observe(program, x, [*logits, *inputs], task)
    ends = [_tap(path, gates, real, task) for path in (source, float_model)]
    result = []
    for step in mixtures(program):
        ours = _choices(values[step.inputs[1]], step)
        alone = _alone(program, gates[step.name], values, float_model or source, task)
        shares = [_share(ours, theirs, step) for theirs in (alone, *(end.get(step.name) for end in ends))]
        result.append(Agreement(step.name, *shares))
    return result


def _gate(program: Program, step: Step) -> Step | None:
    """The linear that computes a mixture's logits, also through steps that only move data."""
    producers = {candidate.output: candidate for candidate in program.steps}
    found = producers.get(step.inputs[1])
    while found is not None and found.op == "reshape":
        found = producers.get(found.inputs[0])
    return found if found is not None and found.op == "linear" else None


def _tap(
    path: Path | None, gates: Mapping[str, Step | None], real: NDArray[np.float32], task: int
) -> dict[str, NDArray[np.float64]]:
    """Float logits of every mixture in the whole model at `path`, by the mixture's name."""
    if path is None:
        return {}
    names = {
        name: tensors.logits
        for name, gate in gates.items()
        if gate is not None and (tensors := gate_tensors(path, gate.onnx_nodes)) is not None
    }
    return dict(zip(names, tapped(path, list(names.values()), real, task), strict=True))


def _alone(
    program: Program, gate: Step | None, values: Mapping[str, Array], path: Path, task: int
) -> NDArray[np.float64] | None:
    """Float logits of the gate alone, of what the integer gate read."""
    tensors = None if gate is None else gate_tensors(path, gate.onnx_nodes)
    if gate is None or tensors is None or program.tensors[gate.inputs[0]].scale is None:
        return None
    x = dequantize_tensor(program.tensors[gate.inputs[0]], values[gate.inputs[0]])
    return FloatGate(path, tensors, task).run(x)


def _choices(logits: Array, step: Step) -> NDArray[np.int64]:
    """The k experts of every token, as a sorted set [tokens, k]."""
    rows = logits.reshape(-1, logits.shape[-1])
    return np.sort(np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, : step.attrs["k"]], axis=1)


def _share(ours: NDArray[np.int64], logits: NDArray[np.float64] | None, step: Step) -> float | None:
    if logits is None or logits.size // logits.shape[-1] != len(ours):
        return None
    return float((ours == _choices(logits, step)).all(axis=1).mean())
