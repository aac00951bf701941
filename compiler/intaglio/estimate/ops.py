"""The ops of a program as an accelerator executes them: which descriptors each is, and its share of their figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from intaglio.accelerator.descriptors import BY_NAME, Descriptor
from intaglio.hw.energy import Actions
from intaglio.inspection import OpSummary

COMPUTING = ("mm", "vu")
"""Units whose descriptors are an op's own time; loads and copies run beside them."""


class Timed(Protocol):
    """The time of one descriptor, waits included. `bound`: what most of it was for."""

    @property
    def cycles(self) -> int: ...

    @property
    def bound(self) -> str: ...


@dataclass(frozen=True)
class Op:
    """An op with descriptors of its own. `folded`: ops that became part of it; `descriptors`: their places.

    `main`: those on the unit that computes it, `unit`; `kind`: theirs.
    """

    name: str
    op: str
    onnx_nodes: Sequence[str]
    folded: Sequence[str]
    descriptors: Sequence[int]
    main: Sequence[int]
    unit: str
    kind: str

    def cycles(self, spans: Sequence[Timed]) -> int:
        """From the offer of its work, or the end of what its unit did before, to its end."""
        return sum(spans[i].cycles for i in self.main)

    def bound(self, spans: Sequence[Timed]) -> str:
        """The cause of the largest part of its time."""
        causes: Counter[str] = Counter()
        for i in self.main:
            causes[spans[i].bound] += spans[i].cycles
        return max(causes, key=lambda cause: causes[cause])

    def total(self, actions: Sequence[Actions]) -> Actions:
        return sum((actions[i] for i in self.descriptors), Actions())


def ops_of(summaries: Sequence[OpSummary], steps: Sequence[str], program: Sequence[Descriptor]) -> list[Op]:
    """The ops that compute, in order; `steps`: the op of every descriptor. Every other op is folded into one of them.

    Data movement is folded into the op that reads what it moves, what follows the last op into that.
    """
    owned: Mapping[str, list[int]] = defaultdict(list)
    for index, step in enumerate(steps):
        owned[step].append(index)
    last = max((i for i, s in enumerate(summaries) if _computing(owned[s.name], program)), default=-1)
    found, waiting = [], list[OpSummary]()
    for place, summary in enumerate(summaries):
        waiting.append(summary)
        if place == last:
            waiting.extend(summaries[place + 1 :])
        if _computing(owned[summary.name], program):
            found.append(_op(summary, waiting, owned, program))
            waiting = []
        if place == last:
            break
    return found


def _computing(descriptors: Sequence[int], program: Sequence[Descriptor]) -> list[int]:
    return [i for i in descriptors if BY_NAME[program[i].kind].unit in COMPUTING]


def _op(
    own: OpSummary, parts: Sequence[OpSummary], owned: Mapping[str, list[int]], program: Sequence[Descriptor]
) -> Op:
    """`own` with the ops that became part of it; the largest product among them says what op it is."""
    descriptors = sorted(i for part in parts for i in owned[part.name])
    main = _computing(descriptors, program)
    unit = BY_NAME[program[main[-1]].kind].unit
    main = [i for i in main if BY_NAME[program[i].kind].unit == unit]
    kinds = Counter(program[i].kind for i in main)
    heaviest = max(parts, key=lambda part: (part.macs, part is own))
    nodes = list(dict.fromkeys(node for part in parts for node in part.onnx_nodes))
    folded = [part.name for part in parts if part is not own]
    return Op(own.name, heaviest.op, nodes, folded, descriptors, main, unit, kinds.most_common(1)[0][0])
