"""From a program to its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS, Descriptor
from intaglio.errors import InputError
from intaglio.hw.cycles.array import Array
from intaglio.hw.cycles.cp import CopyUnit
from intaglio.hw.cycles.machine import Machine, Record
from intaglio.hw.cycles.memory import MemoryModel
from intaglio.hw.cycles.prediction import Prediction, Span
from intaglio.hw.cycles.program import macs
from intaglio.hw.cycles.routing import RECORDED, Assumption, Routings, assumed, checked
from intaglio.hw.cycles.sequencer import Sequencer
from intaglio.hw.cycles.transfers import Transfers
from intaglio.hw.cycles.vector import Vector
from intaglio.hw.cycles.weights import WeightLoader


def predict(
    descriptors: Sequence[Descriptor],
    config: AcceleratorConfig,
    memory: MemoryModel,
    routing: Routings | Assumption = (),
    task: int = 0,
) -> Prediction:
    """The cycles of one run of a program for `task`.

    `routing`: for every ROUTE, how many tokens choose each expert, as recorded; or what is assumed of that: `uniform`
    or `worst` (`routing.assumed`; of several worst ones the longest). Raises InputError if a descriptor would never
    end, or if the routing is not one of the program.
    """
    if isinstance(routing, str):
        options = [
            _predict(descriptors, config, memory, one, task) for one in assumed(descriptors, config, routing)
        ]
        longest = max(options, key=lambda found: found.cycles)
        return replace(longest, routed_by=routing if longest.routing else "")
    found = _predict(descriptors, config, memory, checked(descriptors, routing), task)
    return replace(found, routed_by=RECORDED if routing else "")


def _predict(
    descriptors: Sequence[Descriptor],
    config: AcceleratorConfig,
    memory: MemoryModel,
    routing: Routings,
    task: int,
) -> Prediction:
    """The cycles for one routing."""
    machine = Machine(descriptors, config, memory, routing, task)
    sequencer, array = Sequencer(machine, descriptors), Array(machine)
    weights = WeightLoader(machine)
    for process in (
        sequencer.run(),
        weights.run(),
        weights.write(),
        Transfers(machine).run(),
        CopyUnit(machine).run(),
        array.run(),
        Vector(machine).run(),
    ):
        machine.clock.start(process)
    machine.clock.run()
    spans = _spans(machine)
    end = max([sequencer.idle, *(span.end for span in spans)])
    products = sum(macs(job.d, job.rows, config) for unit in machine.jobs for job in unit)
    return Prediction(end + 1, spans, products, config.macs, array.steps, config.clock_mhz, routing)


def _spans(machine: Machine) -> list[Span]:
    """One per descriptor, in program order."""
    spans = []
    for unit, jobs in enumerate(machine.jobs):
        previous = 0
        for job in jobs:
            record = machine.records[job.index]
            if not record.end:
                raise InputError(
                    f"descriptor {job.index} ({job.d.kind}) never ends: it waits for progress that does not come."
                )
            start = max(record.offered, previous)
            previous = record.end
            spans.append(
                Span(job.index, job.d.kind, UNITS[unit], start, record.end, _bound(record), job.d.comment)
            )
    return sorted(spans, key=lambda span: span.index)


def _bound(record: Record) -> str:
    """The cause of the largest part of a descriptor's time."""
    return max(record.causes, key=lambda cause: record.causes[cause], default="none")
