"""Open synthesis of an accelerator: what it needs of a device, by Yosys, and how fast an ECP5 runs it, by nextpnr."""

from __future__ import annotations

from intaglio.synthesis.design import FLOWS, Design, gather
from intaglio.synthesis.nextpnr import place_and_route
from intaglio.synthesis.report import RouteReport, SynthesisReport, save
from intaglio.synthesis.yosys import synthesize

__all__ = [
    "FLOWS",
    "Design",
    "RouteReport",
    "SynthesisReport",
    "gather",
    "place_and_route",
    "save",
    "synthesize",
]
