"""Program order: every load as early as its place is free, then the waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS
from intaglio.backends.fpga.emit import Emitter, result_bytes
from intaglio.backends.fpga.nodes import OUTPUT_BLOCK, Node
from intaglio.backends.fpga.spill import Paged
from intaglio.backends.fpga.waits import Tracker

LOOKAHEAD = 6
"""How many GEMMs and attentions before its reader, at most, a load of the I/O unit stands: others wait for it too."""


@dataclass(frozen=True)
class Schedule:
    """Nodes in program order with their waits, `weights.bin`, and the bytes of the output, spill area included."""

    nodes: list[Node]
    weights: bytes
    output_bytes: int


def schedule(planned: Paged, config: AcceleratorConfig) -> Schedule:
    """Order and waits. Raises UnsupportedError naming what does not fit."""
    emitter = Emitter(config, planned.addresses, reuse=planned.cut)
    emitter.emit(planned.operations)
    nodes = order(emitter.nodes)
    output_bytes = result_bytes(planned.operations, config)
    if planned.spill_bytes:
        output_bytes = emitter.spill_base + planned.spill_bytes
    _set_waits(nodes, config, -(-output_bytes // OUTPUT_BLOCK))
    return Schedule(nodes, emitter.weights.bytes(), output_bytes)


def order(nodes: Sequence[Node]) -> list[Node]:
    """`nodes` with their loads between them, never before a place is free, in order of use.

    The image takes long, and all after it waits: only what the first two computations need is loaded before it.
    """
    started = _computations(nodes)
    beginning = started.index(1) - 1 if 1 in started else 0
    places: list[list[Node]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        for load in node.loads:
            first = load.earliest
            if load.unit == "io":
                if started[index] > 1:
                    first = max(first, beginning)
                while started[index] - started[first] > LOOKAHEAD:
                    first += 1
            places[first].append(load)
    return [node for before, own in zip(places, nodes, strict=True) for node in (*before, own)]


def _computations(nodes: Sequence[Node]) -> list[int]:
    """How many descriptors of the MAC unit precede each node."""
    counts, count = [], 0
    for node in nodes:
        counts.append(count)
        count += node.unit == "mm"
    return counts


def _set_waits(nodes: Sequence[Node], config: AcceleratorConfig, output: int) -> None:
    tracker = Tracker(config, output)
    for index, node in enumerate(nodes):
        if node.kind == "ATTENTION":
            _attention_waits(nodes, index, tracker)
        tracker.issue(node)


def _attention_waits(nodes: Sequence[Node], index: int, tracker: Tracker) -> None:
    """Head h waits for its copies, and the copies of head h until head h - 2 has left their place.

    Copies from head 2 on come after the attention in the program, with loads but no computation between them.
    """
    node = nodes[index]
    each = node.copies
    first = int(tracker.progress[UNITS.index("cp")]) - each * min(node.heads, 2)
    node.waits["cp"] = (first + each, each if node.heads > 1 else 0)
    started = int(tracker.progress[UNITS.index("mm")])
    copies = (later for later in nodes[index + 1 :] if later.kind == "COPY_KV")
    for copy in islice(copies, each * max(node.heads - 2, 0)):
        copy.waits["mm"] = (started + (copy.head - 1) * node.substeps // node.heads, 0)
