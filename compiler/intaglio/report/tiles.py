"""The figures that a report begins with."""

from __future__ import annotations

from dataclasses import dataclass

from intaglio.report.facts import Facts
from intaglio.report.sentences import digits, percent


@dataclass(frozen=True)
class Tile:
    """One figure: what it is, its value and unit, what else belongs to it, and where it comes from."""

    what: str
    value: str
    unit: str
    more: str
    source: str


def si(value: float) -> str:
    """A count with three digits and an SI prefix, which the unit follows: `7.94 M`."""
    for divisor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= divisor:
            return f"{digits(value / divisor)} {unit}"
    return f"{value:.0f} "


def tiles(facts: Facts) -> list[Tile]:
    """Those that are known."""
    return [*_speed(facts), *_energy(facts), *_resources(facts), *_work(facts)]


def _speed(facts: Facts) -> list[Tile]:
    config, timing = facts.compiled.config, facts.timing
    if timing is None:
        return []
    ms = facts.latency_ms(timing)
    both = facts.simulation.timing if facts.simulation and facts.modelled else None
    cycles = f"{timing.cycles:,} cycles"
    beside = f"; simulated {both.cycles:,} ({100 * (timing.cycles / both.cycles - 1):+.2f} %)" if both else ""
    used = facts.macs / (timing.cycles * config.macs)
    steps = (
        f"{percent(facts.estimate.prediction.occupancy)} of cycles issue a step"
        if facts.estimate
        else "of its products"
    )
    traffic = facts.traffic / timing.cycles
    most, limit = facts.feed
    share = percent(traffic / most)
    return [
        Tile("Latency", digits(ms), "ms", cycles + beside, timing.source),
        Tile("Frames", digits(1e3 / ms), "per second", "one after another", timing.source),
        Tile("Array used", f"{100 * used:.1f}", "%", steps, timing.source),
        Tile(
            "External traffic",
            si(facts.traffic),
            "B",
            f"{digits(traffic)} bytes per cycle, {share} of what {limit} can",
            timing.source,
        ),
    ]


def _energy(facts: Facts) -> list[Tile]:
    found = facts.energy
    if found is None:
        return []
    band = f"90 % band {digits(found.low)} to {digits(found.high)} mJ"
    return [
        Tile("Energy per frame", digits(found.total), "mJ", band, "modelled"),
        Tile("Power", digits(found.watts), "W", "chip and memory, while it runs", "modelled"),
    ]


def _resources(facts: Facts) -> list[Tile]:
    if facts.use is None:
        return []
    used, there = facts.use.used, facts.use.available
    name = "dsp"
    value = f"{used[name]:,.0f}"
    of = there[name]
    unit = f"of {of:,} DSP" if of else "DSP"
    others = ", ".join(
        f"{key.upper()} {percent(used[key] / total)}"
        if (total := there[key])
        else f"{key.upper()} {si(used[key]).strip()}"
        for key in ("lut", "bram36")
    )
    return [Tile("Device", value, unit, others, "modelled")]


def _work(facts: Facts) -> list[Tile]:
    weights = facts.compiled.program.weight_bytes
    peak = 2 * facts.compiled.config.macs * facts.compiled.config.clock_mhz * 1e6
    return [
        Tile(
            "Work",
            si(facts.macs),
            "MAC",
            f"{len(facts.program):,} descriptors, weights {si(weights)}B",
            "given",
        ),
        Tile("Peak", si(peak), "OP/s", f"{facts.compiled.config.macs:,} MAC per cycle", "given"),
    ]
