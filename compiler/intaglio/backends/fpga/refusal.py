"""Refusals by name: what the accelerator cannot do, where it stands in the model, why, and what to do."""

from __future__ import annotations

from intaglio.accelerator.support import OTHER_TARGET, reason, sentence
from intaglio.errors import UnsupportedError
from intaglio.program import Program, Step


def refusal(step: Step, why: str, what_to_do: str = OTHER_TARGET) -> UnsupportedError:
    """The error for one step: names the op and its ONNX nodes."""
    return UnsupportedError(sentence(step.op, step.onnx_nodes or [step.name], why, what_to_do))


def check(program: Program) -> None:
    """Raises UnsupportedError for the first step whose types or attributes the accelerator cannot execute."""
    batch = program.tensors[program.input].shape[0]
    if batch != 1:
        raise UnsupportedError(
            f"the accelerator takes one image at a time, not a batch of {batch}; compile with --batch 1."
        )
    for step in program.steps:
        why = reason(step.op, [program.tensors[name].dtype for name in step.inputs], step.attrs)
        if why is not None:
            raise refusal(step, *why)
