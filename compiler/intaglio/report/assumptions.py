"""What the figures of a report rest on, and how wrong each may be: one sentence each, from the models' own files."""

from __future__ import annotations

from intaglio.estimate import errors, resources
from intaglio.report.facts import Facts
from intaglio.report.sentences import digits
from intaglio.simulation.frame import MemoryModel


def assumptions(facts: Facts) -> list[tuple[str, str]]:
    """Pairs of what it is about and a sentence."""
    config, memory = facts.compiled.config, facts.memory
    found = [
        (
            "Clock",
            f"Milliseconds are cycles at the configuration's {config.clock_mhz} MHz; that a device reaches them is "
            "assumed until its tools say so.",
        ),
        (
            "External memory",
            f"{memory.latency} cycles from a request to its first beat, {digits(memory.bytes_per_cycle)} bytes "
            "per cycle for all ports together; refresh and page misses are not modelled.",
        ),
    ]
    if facts.modelled:
        found.append(("Cycles", _cycles(memory)))
    if facts.simulation:
        found.append(("Simulation", _simulation(facts)))
    if facts.energy:
        error = errors.energy_bounds()
        found.append(
            (
                "Energy",
                f"Counts of actions times calibrated energies; the calibration misses a published design that it has "
                f"not seen by {error['leave_one_out_percent']:.0f} % (rms). " + " ".join(facts.energy.notes),
            )
        )
        if not facts.compiled.board.family:
            found.append(("Device", "The target has no board; energy is that of a ZU9EG."))
    if facts.use:
        found.append(("Resources", _resources(facts)))
    found.append(
        (
            "Work",
            "Products of tokens and keys that are kept, each once; channels that pad to the array's width count, "
            "tokens that no result reads are left out by the compiler and do not.",
        )
    )
    if facts.estimate and facts.estimate.prediction.routed_by not in ("", "recorded"):
        found.append(("Routing", f"Tokens per expert are assumed: {facts.estimate.prediction.routed_by}."))
    if facts.routing:
        found.append(
            (
                "Routing",
                "Experts' cycles, traffic and energy are those of one image: another routes otherwise. The memory map "
                "draws their tensors as if every token had chosen them.",
            )
        )
    return found


def _cycles(memory: MemoryModel) -> str:
    bound, beyond = errors.cycle_bounds(), errors.beyond(memory)
    more = "" if beyond is None else f" {beyond}"
    return (
        f"A model of the RTL's transactions without fitted constants. Against the RTL, {bound['models']} whole models "
        f"are off by at most {bound['max_percent']:.2g} %, {bound['descriptors']:,} descriptors of random programs by "
        f"at most {bound['max_descriptor_cycles']:,} cycles.{more} Frames do not overlap."
    )


def _simulation(facts: Facts) -> str:
    assert facts.simulation is not None
    verdict = (
        "equals the reference in every bit" if facts.simulation.bit_exact else "DIFFERS from the reference"
    )
    known = facts.simulation.memory
    memory = (
        f" with a memory of {known['latency']} cycles and {digits(known['bytes_per_cycle'])} bytes per cycle"
        if {"latency", "bytes_per_cycle"} <= set(known)
        else ""
    )
    return f"The SystemVerilog in Verilator{memory}; the result {verdict}."


def _resources(facts: Facts) -> str:
    """How far the model is from Yosys, and whose family it counts."""
    assert facts.use is not None
    family, like = facts.compiled.board.family, facts.use.family
    other = "" if like == family or not family else f" As on {like}, not {family}."
    return resources.errors(like) + other
