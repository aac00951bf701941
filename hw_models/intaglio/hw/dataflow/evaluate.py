"""A design's time for a workload: its loops, step after step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import assert_never

from intaglio.errors import UnsupportedError
from intaglio.hw.dataflow.design import Design, Loads
from intaglio.hw.dataflow.workload import (
    Attention,
    Elementwise,
    Gate,
    Linear,
    Mixture,
    PatchEmbed,
    Routing,
    Work,
)


@dataclass(frozen=True)
class Stage:
    """One step: cycles, of which `load` wait for weights and `latency` for the first data; bytes moved externally.

    `compute`: cycles that its loops take; `streams`: that its longest stream takes. `onchip`: bytes of weights read
    from buffers.
    """

    name: str
    kind: str
    macs: int
    compute: int
    streams: int
    load: int
    latency: int
    bytes: int
    onchip: int

    @property
    def cycles(self) -> int:
        return max(self.compute, self.streams) + self.load + self.latency

    @property
    def bound(self) -> str:
        """What takes most of its cycles."""
        if max(self.load, self.latency) > max(self.compute, self.streams):
            return "memory" if self.load > self.latency else "latency"
        return "memory" if self.streams > self.compute else "compute"


@dataclass(frozen=True)
class Evaluation:
    """One frame; frames do not overlap."""

    design: Design
    stages: Sequence[Stage]

    @property
    def cycles(self) -> int:
        return sum(stage.cycles for stage in self.stages)

    @property
    def latency_ms(self) -> float:
        return self.cycles / (self.design.clock_mhz * 1e3)

    @property
    def macs(self) -> int:
        return sum(stage.macs for stage in self.stages)

    @property
    def bytes(self) -> int:
        """External memory, both ways."""
        return sum(stage.bytes for stage in self.stages)

    def by_kind(self) -> dict[str, int]:
        """Cycles by kind of step."""
        return _total(self.stages, "kind")

    def by_bound(self) -> dict[str, int]:
        """Cycles by what bounds the step."""
        return _total(self.stages, "bound")


def _total(stages: Sequence[Stage], key: str) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for stage in stages:
        found[getattr(stage, key)] += stage.cycles
    return dict(found)


def evaluate(design: Design, work: Sequence[Work], routing: Routing = ()) -> Evaluation:
    """Cycles of one frame. `routing`: tokens per expert, of every mixture.

    Raises UnsupportedError for a mixture if the design has no router.
    """
    return Evaluation(design, _Evaluator(design, iter(routing)).run(work))


class _Evaluator:
    """`since`: cycles since the last load of weights ended, in which the next one may have been made."""

    def __init__(self, design: Design, routing: Iterator[Sequence[int]]) -> None:
        self.design = design
        self.routing = routing
        self.since = 0
        self.stages: list[Stage] = []

    def run(self, work: Sequence[Work]) -> list[Stage]:
        for one in work:
            match one:
                case Gate():
                    self._gate(one)
                case PatchEmbed():
                    self._patch_embed(one)
                case Linear():
                    self._linear(one.name, "linear", one.rows, one.depth, one.channels, "dense")
                case Attention():
                    self._attention(one)
                case Elementwise():
                    self._elementwise(one)
                case Mixture():
                    self._mixture(one)
                case _:
                    assert_never(one)
        return self.stages

    # --- cycles and bytes -----------------------------------------------------------------------------------------

    def _beats(self, values: int, bits: int) -> int:
        """Cycles that a port takes for values."""
        return ceil(values * bits / self.design.memory.port_bits)

    def _activations(self, values: int) -> int:
        return self._beats(values, self.design.formats.activation)

    def _moved(self, activations: int, weights: int) -> int:
        """Bytes."""
        formats = self.design.formats
        return (activations * formats.activation + weights * formats.weight) // 8

    def _exposed(self, cycles: int, mode: Loads) -> int:
        """What a load adds to the time."""
        hidden = self.since if mode == "overlapped" else 0
        self.since = 0
        return max(cycles - hidden, 0)

    def _add(
        self, name: str, kind: str, macs: int, compute: int, streams: int, moved: int,
        load: int = 0, onchip: int = 0, bursts: int = 1,
    ) -> None:  # fmt: skip
        latency = bursts * self.design.memory.latency
        self.stages.append(Stage(name, kind, macs, compute, streams, load, latency, moved, onchip))
        self.since += max(compute, streams) + latency

    # --- steps ----------------------------------------------------------------------------------------------------

    def _linear(self, name: str, kind: str, rows: int, depth: int, channels: int, loads: str) -> None:
        unit = self.design.linear
        weights = (depth + 1) * channels  # and biases
        mode = unit.dense_loads if loads == "dense" else unit.expert_loads
        load = self._exposed(self._beats(weights, self.design.formats.weight), mode)
        blocks = rows * ceil(channels / unit.block_out) * ceil(depth / unit.block_in)
        streams = max(self._activations(rows * depth), self._activations(rows * channels))
        onchip = blocks * unit.block_in * unit.block_out * self.design.formats.weight // 8
        moved = self._moved(rows * (depth + channels), weights)
        self._add(name, kind, rows * depth * channels, blocks, streams, moved, load, onchip)

    def _patch_embed(self, one: PatchEmbed) -> None:
        unit, weights = self.design.patch_embed, one.depth * one.channels
        loaded = unit.weights == "loaded"
        load = self._exposed(self._beats(weights, self.design.formats.weight), "serial") if loaded else 0
        streams = self._activations(one.rows * one.channels)
        moved = self._moved(one.rows * one.channels, weights * loaded) + one.rows * one.depth
        self._add(one.name, "patch_embed", one.macs, ceil(one.macs / unit.macs), streams, moved, load)

    def _attention(self, one: Attention) -> None:
        unit = self.design.attention
        blocks = ceil(one.queries / unit.queries)
        channels = one.heads * one.depth
        steps = blocks * one.keys * ceil(channels / unit.products)
        read = one.keys * channels * (blocks if unit.keys == "streamed" else 1)
        scores = one.queries * one.keys * one.heads
        streams = max(self._activations(read), self._activations(scores))
        for number in range(unit.passes):
            moved = self._moved(read + scores + one.queries * channels, 0)
            name = f"{one.name} [{number + 1}/{unit.passes}]"
            self._add(name, "attention", one.macs // unit.passes, steps, streams, moved)

    def _elementwise(self, one: Elementwise) -> None:
        norm = one.kind == "layernorm"
        lanes = self.design.layernorm.lanes if norm else self.design.add.lanes
        values = one.rows * one.channels
        compute = one.rows * ceil(one.channels / lanes)
        bursts = one.rows if norm and self.design.layernorm.burst == "token" else 1
        moved = self._moved(values * (2 if norm else 3), 2 * one.channels * norm)
        self._add(one.name, one.kind, 0, compute, self._activations(values), moved, bursts=bursts)

    def _gate(self, one: Gate) -> None:
        unit = self.design.gate
        if unit is None:
            raise UnsupportedError(
                f"{one.name!r} chooses experts, the design {self.design.name!r} has no router; "
                "add a table 'gate' to its file."
            )
        load = self._exposed(self._beats(one.depth * one.channels, self.design.formats.weight), "serial")
        compute = one.rows * max(ceil(one.depth * one.channels / unit.macs), unit.cycles)
        moved = self._moved(one.rows * one.depth, one.depth * one.channels)
        self._add(one.name, "gate", one.macs, compute, self._activations(one.rows * one.depth), moved, load)

    def _mixture(self, one: Mixture) -> None:
        """The result is cleared, then every expert that has tokens adds to it, one after the other."""
        values = one.rows * one.channels
        self._add(f"{one.name} clear", "mixture", 0, 0, self._activations(values), self._moved(values, 0))
        if self.design.linear.dense_loads == "serial":
            self.since = 0
        for expert, rows in enumerate(next(self.routing)):
            if rows:
                name = f"{one.name} expert {expert}"
                self._linear(f"{name} [1/2]", "mixture", rows, one.channels, one.hidden, "expert")
                self._linear(f"{name} [2/2]", "mixture", rows, one.hidden, one.channels, "expert")
