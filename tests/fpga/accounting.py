"""What the cycles of a simulated run went to."""

from __future__ import annotations

from intaglio.simulate import SimulationReport


def causes_sum_up(report: SimulationReport) -> None:
    """No cycle has two causes, and 98 % have one: cycles of the planner itself and fetches of COMBINE have none."""
    counters = report.frames.runs[0].counters
    accounted = counters["mac_steps"] + sum(report.frames.stalls().values())
    assert 0.98 * counters["cycles"] <= accounted <= counters["cycles"]
