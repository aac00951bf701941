"""Accelerators that are not ours, described in a file by their loops and ports: docs/models.md."""

from intaglio.hw.dataflow.design import Design, find
from intaglio.hw.dataflow.evaluate import Evaluation, Stage, evaluate
from intaglio.hw.dataflow.workload import Routing, Work, recorded, spread, workload

__all__ = [
    "Design", "Evaluation", "Routing", "Stage", "Work", "evaluate", "find", "recorded", "spread", "workload",
]  # fmt: skip
