"""How many tokens choose each expert, where nobody recorded it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.errors import InputError

Routings = Sequence[Sequence[int]]
"""Of every ROUTE, in order: tokens of each expert."""

Assumption = Literal["uniform", "worst"]

RECORDED = "recorded"


def checked(descriptors: Sequence[Descriptor], routing: Routings) -> Routings:
    """A recorded routing of a program. Raises InputError if it is not one."""
    routes = [d for d in descriptors if d.kind == "ROUTE"]
    if len(routing) != len(routes):
        raise InputError(
            f"the program has {len(routes)} mixtures of experts, the routing {len(routing)}: the cycle model needs how "
            "many tokens choose each expert, for every one of them."
        )
    for number, (d, tokens) in enumerate(zip(routes, routing, strict=True)):
        if not possible(tokens, d["rows"], d["experts"], d["k"]):
            raise InputError(
                f"the routing of mixture {number} is {list(tokens)}, but {d['rows']} tokens choose {d['k']} of "
                f"{d['experts']} experts each."
            )
    return routing


def possible(tokens: Sequence[int], rows: int, experts: int, k: int) -> bool:
    """Whether `rows` tokens that choose `k` of `experts` experts each can do that; what is beyond these is empty."""
    known = tokens[:experts]
    return len(known) == experts and sum(known) == sum(tokens) == rows * k and max(known) <= rows


def assumed(descriptors: Sequence[Descriptor], config: AcceleratorConfig, how: Assumption) -> list[Routings]:
    """Routings of a program as they might be.

    `uniform`: every expert gets as many tokens, to within one. `worst`: three, of which the longest counts. In all of
    them every expert gets tokens, so that all weights are loaded: `uniform`; `spread`, where as many row tiles as
    possible are begun, with as few tokens in each as there can be; `crowded`, where each gets one token but for the
    fewest that can take the rest, so that no load hides behind another's products. That no routing takes longer is not
    proven.
    """
    routes = [d for d in descriptors if d.kind == "ROUTE"]
    uniform = [shared(d["rows"] * d["k"], d["experts"]) for d in routes]
    if how == "uniform":
        return [uniform]
    most = [crowded(d["rows"], d["experts"], d["k"]) for d in routes]
    return [[_spread(d, config.rows) for d in routes], most, uniform]


def shared(total: int, experts: int) -> list[int]:
    """As equal as possible, the first ones more."""
    return [(total + experts - 1 - expert) // experts for expert in range(experts)]


def _spread(d: Descriptor, rows: int) -> list[int]:
    """One token each; the rest in whole row tiles, and what is left of it to who has room."""
    total = d["rows"] * d["k"]
    tokens = [min(one, 1) for one in shared(total, d["experts"])]
    left = total - sum(tokens)
    most = (d["rows"] - 1) // rows  # row tiles that an expert may get beside its first
    for expert, tiles in enumerate(shared(min(left // rows, most * d["experts"]), d["experts"])):
        tokens[expert] += tiles * rows
        left -= tiles * rows
    return _fill(tokens, left, d["rows"])


def crowded(rows: int, experts: int, k: int) -> list[int]:
    """One token each, the rest to the first ones."""
    total = rows * k
    tokens = [min(one, 1) for one in shared(total, experts)]
    return _fill(tokens, total - sum(tokens), rows)


def _fill(tokens: list[int], left: int, most: int) -> list[int]:
    """Add what is left, to the first ones that have room."""
    for expert, count in enumerate(tokens):
        more = min(most - count, left)
        tokens[expert] += more
        left -= more
    return tokens
