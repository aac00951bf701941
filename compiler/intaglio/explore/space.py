"""Configurations to try for a model: a grid of the sizes that matter most, and the neighbours of a good one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import lcm
from typing import Any

from pydantic import ValidationError

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.explore.shapes import Attend, Mixture, Product, Shapes

ROWS = (1, 2, 4, 8)
DEPTHS = (8, 16)
COLUMNS = 128
PORTS = (1, 2, 4, 8)
ENTRIES = (256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
GROUPS = (128, 256, 512, 1024, 2048)
BURSTS = (4, 8, 16, 32, 64)
OUTSTANDING = (2, 4, 8, 16)

ShapesOf = Callable[[int, int], Shapes]
"""The model's operations for rows and depth."""


def grid(base: AcceleratorConfig, shapes_of: ShapesOf) -> Iterator[AcceleratorConfig]:
    """Rows, columns, depth, weight ports and weight entries, all that fit together; the rest follows from the model.

    Clock, multiplier, tables and bursts are those of `base`.
    """
    for rows in ROWS:
        for depth in DEPTHS:
            shapes = shapes_of(rows, depth)
            for cols in range(depth, COLUMNS + 1, depth):
                for ports in PORTS:
                    for entries in ENTRIES:
                        changes = {"rows": rows, "cols": cols, "depth": depth, "weight_ports": ports}
                        yield from fitted(base, shapes, changes | {"weight_entries": entries})


def fitted(base: AcceleratorConfig, shapes: Shapes, changes: dict[str, Any]) -> Iterator[AcceleratorConfig]:
    """`base` with changes, and with banks and buffers that hold the model; nothing if there is no such."""
    values = base.model_dump() | {"experts": shapes.experts} | changes
    multiple = lcm(values["cols"], values["depth"])
    values["max_keys"] = -(-max(shapes.keys, 16) // multiple) * multiple
    values["a_words"] = _rounded(shapes.a_words)
    values["x_words"] = _rounded(shapes.x_words)
    least_groups = 3 * (values["cols"] // (values["depth"] // 2))
    if "param_groups" not in changes:
        values["param_groups"] = max(_rounded(least_groups), 512)
    if "norm_channels" not in changes:
        values["norm_channels"] = 2 * shapes.norm_channels
    if values["param_groups"] < least_groups:
        return
    try:
        config = AcceleratorConfig.model_validate(values)
    except ValidationError:
        return
    if config.weight_entries >= least_entries(shapes, config):
        yield config


def _rounded(words: int) -> int:
    return max(-(-words // 16) * 16, 16)


def least_entries(shapes: Shapes, config: AcceleratorConfig) -> int:
    """Weight entries that one column tile of every product, and two heads of attention, take."""
    least = 16
    for shape in shapes.shapes:
        if isinstance(shape, Product):
            least = max(least, shape.steps)
        elif isinstance(shape, Mixture):
            least = max(least, *shape.steps)
        elif isinstance(shape, Attend):
            least = max(least, min(shape.heads, 2) * sum(shape.entries(config)))
    return least


def neighbours(
    base: AcceleratorConfig, point: AcceleratorConfig, shapes_of: ShapesOf
) -> list[AcceleratorConfig]:
    """Configurations that differ from `point` in one size, by one step."""
    shapes = shapes_of(point.rows, point.depth)
    kept = ("rows", "cols", "depth", "weight_ports", "weight_entries", "param_groups", "norm_channels")
    same = {name: getattr(point, name) for name in (*kept, "burst", "outstanding", "table_slots")}
    changes: list[dict[str, Any]] = [
        *({"weight_entries": n} for n in _beside(ENTRIES, point.weight_entries)),
        *({"param_groups": n} for n in _beside(GROUPS, point.param_groups)),
        *({"weight_ports": n} for n in _beside(PORTS, point.weight_ports)),
        *({"burst": n} for n in _beside(BURSTS, point.burst)),
        *({"outstanding": n} for n in _beside(OUTSTANDING, point.outstanding)),
        *({"cols": n} for n in (point.cols - point.depth, point.cols + point.depth) if n),
        *({"norm_channels": n * shapes.norm_channels} for n in (1, 2, 4)),
        *({"table_slots": n} for n in _beside((2, 4, 8), point.table_slots)),
    ]
    found = [config for change in changes for config in fitted(base, shapes, same | change)]
    return [config for config in dict.fromkeys(found) if config != point]


def _beside(values: Sequence[int], value: int) -> list[int]:
    """The next smaller and the next larger one."""
    smaller = [n for n in values if n < value]
    larger = [n for n in values if n > value]
    return [*smaller[-1:], *larger[:1]]
