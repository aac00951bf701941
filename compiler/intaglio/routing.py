"""Where the tokens of images go in an accelerator's mixtures of experts, by its functional simulator."""

from __future__ import annotations

from collections.abc import Sequence

from intaglio.backends.fpga.compiled import Compiled
from intaglio.hw.iss import Simulator
from intaglio.hw.iss.routing import RoutedLayer, Routing, RoutingRecord, layers

__all__ = ["RoutedLayer", "Routing", "routed", "routed_layers"]


def routed(compiled: Compiled, images: Sequence[bytes], task: int = 0) -> list[list[Routing]]:
    """What every ROUTE did with every image; a program without a router is not run."""
    if not any(d.kind == "ROUTE" for d in compiled.program.descriptors):
        return [[] for _ in images]
    simulator = Simulator(compiled.config, compiled.program, compiled.weights)
    found = []
    for image in images:
        record = RoutingRecord()
        simulator.run(image, trace=record, task=task)
        found.append(record.routings)
    return found


def routed_layers(compiled: Compiled, routings: Sequence[Routing]) -> list[RoutedLayer]:
    """The routing of one image by mixture of experts."""
    return layers(compiled.config, compiled.program.descriptors, routings, compiled.comments)
