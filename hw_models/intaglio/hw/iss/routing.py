"""What the router did in a run: tokens per expert, and which weights were therefore never read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.hw.iss.memory import Memories


@dataclass(frozen=True)
class Routing:
    """One ROUTE: its index in the program, and how many tokens chose each of the configuration's experts."""

    index: int
    tokens: tuple[int, ...]


@dataclass
class RoutingRecord:
    """A trace for `Simulator.run` that notes every ROUTE."""

    routings: list[Routing] = field(default_factory=list)

    def __call__(self, index: int, d: Descriptor, memories: Memories) -> None:
        if d.kind == "ROUTE":
            tokens = tuple(int(n) for n in memories.lengths.data)
            self.routings.append(Routing(index, tokens))


@dataclass(frozen=True)
class RoutedLayer:
    """A mixture of experts in a run: `tokens` per expert, and bytes of weights, parameters and tables read or not.

    `index`: its ROUTE in an accelerator's program, else its place among the mixtures; `name`: of its step.
    """

    index: int
    name: str
    tokens: tuple[int, ...]
    bytes_read: int
    bytes_saved: int

    @property
    def experts_loaded(self) -> int:
        """Experts that at least one token chose."""
        return sum(n > 0 for n in self.tokens)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "experts_loaded": self.experts_loaded}


def layers(
    config: AcceleratorConfig,
    program: Sequence[Descriptor],
    routings: Sequence[Routing],
    comments: Sequence[str] = (),
) -> list[RoutedLayer]:
    """What every ROUTE meant for the loads of its experts, those included that did not wait for it.

    `comments`: what each descriptor is for.
    """
    found, early = [], _early_loads(program)
    edges = pairwise([*(routing.index for routing in routings), len(program)])
    for routing, (begin, end) in zip(routings, edges, strict=True):
        sizes = {True: 0, False: 0}
        for index in range(begin, end):
            sizes[True] += sum(load_bytes(config, program[load]) for load in early.get(index, ()))
            if queue := program[index]["queue"]:
                sizes[routing.tokens[queue - 1] > 0] += load_bytes(config, program[index])
        tokens = routing.tokens[: program[routing.index]["experts"]]
        name = (
            comments[routing.index].removeprefix("experts of ") if comments else f"descriptor {routing.index}"
        )
        found.append(RoutedLayer(routing.index, name, tokens, sizes[True], sizes[False]))
    return found


def _early_loads(program: Sequence[Descriptor]) -> dict[int, list[int]]:
    """By an expert's first GEMM that uses them: the loads for that expert alone that do not depend on the routing."""
    latest: dict[tuple[str, int], int] = {}
    users: dict[int, list[int]] = {}
    for index, d in enumerate(program):
        if d.kind in _PLACES and d["table"] == 0:
            latest[d.kind, d[_PLACES[d.kind]]] = index
        elif d.kind == "GEMM":
            for kind, name in _PLACES.items():
                if (kind, d[name]) in latest and (kind != "LOAD_TABLE" or d["table"]):
                    users.setdefault(latest[kind, d[name]], []).append(index)
    found: dict[int, list[int]] = {}
    for load, products in users.items():
        queues = {program[index]["queue"] for index in products}
        if len(queues) == 1 and 0 not in queues and not program[load]["queue"]:
            found.setdefault(products[0], []).append(load)
    return found


_PLACES = {"LOAD_WEIGHTS": "entry", "LOAD_PARAMS": "group", "LOAD_TABLE": "slot"}
"""Kinds of loads, and the field of theirs and of GEMM that says where the data lies."""


def rows(program: Sequence[Descriptor], routings: Sequence[Routing]) -> list[int]:
    """How many rows every descriptor works on: `rows`, or how many tokens chose its expert.

    `routings`: of every ROUTE. Raises ValueError if they are not.
    """
    found, tokens = [], {routing.index: routing.tokens for routing in routings}
    if list(tokens) != [index for index, d in enumerate(program) if d.kind == "ROUTE"]:
        raise ValueError(f"{len(routings)} routings are not those of the program.")
    now: tuple[int, ...] = ()
    for index, d in enumerate(program):
        now = tokens.get(index, now)
        found.append(now[d["queue"] - 1] if d["queue"] else d["rows"])
    return found


def load_bytes(config: AcceleratorConfig, d: Descriptor) -> int:
    """Bytes that a load of weights, parameters or a table reads; 0 for other descriptors."""
    match d.kind:
        case "LOAD_WEIGHTS":
            return d["entries"] * config.entry_bytes
        case "LOAD_PARAMS":
            return d["groups"] * config.group * 8
        case "LOAD_TABLE":
            return 512
        case _:
            return 0
