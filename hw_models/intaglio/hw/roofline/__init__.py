"""Processors and GPUs as rooflines, measured or from a data sheet: docs/models.md."""

from intaglio.hw.roofline.evaluate import Evaluation, OpTime, Work, evaluate
from intaglio.hw.roofline.machine import Machine, find

__all__ = ["Evaluation", "Machine", "OpTime", "Work", "evaluate", "find"]
