"""The accelerator's program of a model: trace, lower, fit, schedule, pack."""

from __future__ import annotations

from dataclasses import dataclass

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor, ProgramFile
from intaglio.backends.fpga.check import check
from intaglio.backends.fpga.fit import fit
from intaglio.backends.fpga.schedule import schedule
from intaglio.backends.fpga.trace import trace
from intaglio.program import Program


@dataclass(frozen=True)
class Built:
    """`program.bin`, `weights.bin`, and for every descriptor the program's step, and what it is for there."""

    program: ProgramFile
    weights: bytes
    steps: list[str]
    comments: list[str]


def build(program: Program, config: AcceleratorConfig) -> Built:
    """Compile `program` for an accelerator of configuration `config`.

    Raises UnsupportedError naming the op, its ONNX node, why it does not fit, and what to do.
    """
    graph = trace(program)
    fitted = fit(graph, config)
    planned = schedule(fitted, config)
    channels, height, width = graph.image
    descriptors = [Descriptor(n.kind, n.fields, n.waits, n.comment) for n in planned.nodes]
    check(descriptors, config)
    file = ProgramFile(
        config.hash, channels * height * width, planned.output_bytes, len(planned.weights), descriptors,
        fitted.spill_bytes,
    )  # fmt: skip
    steps = [node.step for node in planned.nodes]
    return Built(file, planned.weights, steps, [node.comment for node in planned.nodes])
