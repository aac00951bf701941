"""The sentences of a report that depend on its figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from intaglio.report.facts import Facts
from intaglio.use import verdict


def computing(nodes: Sequence[str]) -> list[str]:
    """ONNX nodes without the quantizers around them, unless there is nothing else."""
    quantizers = ("QuantizeLinear", "DequantizeLinear")
    return [node for node in nodes if not any(name in node for name in quantizers)] or list(nodes[:1])


BOUNDS = {
    "compute": "computing, and waiting for units on the chip",
    "memory": "external memory and the loads from it",
    "latency": "latency of memory and pipelines",
    "start": "before the array's first work",
}
"""What each part of the array's time means."""


def percent(share: float, digits: int = 0) -> str:
    """A share of one."""
    return f"{100 * share:.{digits}f} %"


def digits(value: float) -> str:
    """Three significant digits, never an exponent: 0.0698, 1.60, 12.3, 4,567."""
    if value == 0:
        return "0"
    places = max(2 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{places}f}"


def bottleneck(facts: Facts) -> str:
    """What the frame's time goes to."""
    timing = facts.timing
    assert timing is not None
    ops = [op for op in facts.ops if op.op.unit == "mm"]
    longest = max(ops, key=lambda op: op.share(timing.cycles))
    share = longest.share(timing.cycles)
    begin = f"The longest op of the array is {longest.op.name}, {percent(share, 1)} of the frame."
    if facts.estimate is None:
        return begin
    bounds = {name: cycles for name, cycles in facts.estimate.bound_by.items() if name != "start"}
    most = max(bounds, key=lambda name: bounds[name])
    return f"{percent(bounds[most] / timing.cycles)} of the frame is {most}: {BOUNDS[most]}. {begin}"


def simulated(facts: Facts) -> str:
    """How far the model is from the simulation."""
    assert facts.simulation is not None
    assert facts.modelled is not None
    real, guess = facts.simulation.timing, facts.modelled
    worst = max(
        facts.ops,
        key=lambda op: abs((op.cycles or 0) - (op.simulated or 0)),
    )
    off = (worst.cycles or 0) - (worst.simulated or 0)
    rest = f"The op that differs most is {worst.op.name}, by {off:+,} cycles." if off else "No op differs."
    error = 100 * (guess.cycles / real.cycles - 1)
    return f"{real.cycles:,} cycles on the RTL, {guess.cycles:,} by the model: {error:+.3f} %. {rest}"


def energy(facts: Facts) -> str:
    """The largest component, and the sum with its band."""
    found = facts.energy
    assert found is not None
    name, mj = max(found.components.items(), key=lambda pair: pair[1])
    return (
        f"{digits(found.total)} mJ a frame, {digits(found.watts)} W while it runs; with 90 % probability between "
        f"{digits(found.low)} and {digits(found.high)} mJ. The largest part, {percent(mj / found.total)}, is {name}."
    )


def resources(facts: Facts) -> str:
    """Whether it fits."""
    if facts.use is None:
        return ""
    if facts.use.fits is None:
        return "The target has no board to compare with."
    if facts.use.fits:
        return "The board has enough of everything that is known of it."
    return verdict(facts.use.uses, facts.artifact.manifest.target)


def routing(facts: Facts) -> str:
    """What the routing table shows."""
    if not facts.routing:
        return ""
    read = sum(layer.bytes_read for layer in facts.routing)
    saved = sum(layer.bytes_saved for layer in facts.routing)
    return (
        f"Where the tokens of {facts.routing_source} go, in the functional simulator. Of the experts' weights, "
        f"parameters and tables {percent(saved / (read + saved))} are never read, because no token chose their expert."
    )


def pareto(facts: Facts) -> str:
    """What the designs are."""
    if facts.explored is None:
        return ""
    skipped = facts.explored.skipped
    rest = (
        f" Not drawn, because a figure is missing, or the model does not run or fit there: {skipped}."
        if skipped
        else ""
    )
    front = sum(design.pareto for design in facts.explored.designs)
    return (
        f"{len(facts.explored.designs):,} designs of the file that was given, {front:,} on the Pareto front of "
        "latency, energy and DSP. The line joins those of it that none beats in the first two; a mark's area stands "
        f"for DSP.{rest}"
    )
