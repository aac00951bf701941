"""From a program to its prediction."""

from __future__ import annotations

from collections.abc import Sequence

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import UNITS, Descriptor
from intaglio.errors import InputError
from intaglio.hw.cycles.array import Array
from intaglio.hw.cycles.copy import Copy
from intaglio.hw.cycles.machine import Machine, Record
from intaglio.hw.cycles.memory import MemoryModel
from intaglio.hw.cycles.prediction import Prediction, Span
from intaglio.hw.cycles.program import Tokens, macs
from intaglio.hw.cycles.sequencer import Sequencer
from intaglio.hw.cycles.transfers import Transfers
from intaglio.hw.cycles.vector import Vector
from intaglio.hw.cycles.weights import WeightLoader


def predict(
    descriptors: Sequence[Descriptor],
    config: AcceleratorConfig,
    memory: MemoryModel,
    routing: Sequence[Tokens] = (),
) -> Prediction:
    """The cycles of one run of a program. `routing`: for every ROUTE, how many tokens choose each expert.

    Raises InputError if a descriptor would never end, has no model, or depends on a routing that is not given.
    """
    machine = Machine(descriptors, config, memory, routing)
    sequencer, array = Sequencer(machine, descriptors), Array(machine)
    weights = WeightLoader(machine)
    for process in (
        sequencer.run(),
        weights.run(),
        weights.write(),
        Transfers(machine).run(),
        Copy(machine).run(),
        array.run(),
        Vector(machine).run(),
    ):
        machine.clock.start(process)
    machine.clock.run()
    spans = _spans(machine)
    end = max([sequencer.idle, *(span.end for span in spans)])
    products = sum(macs(job.d, job.rows, config) for unit in machine.jobs for job in unit)
    return Prediction(end + 1, spans, products, config.macs, array.steps, config.clock_mhz)


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
