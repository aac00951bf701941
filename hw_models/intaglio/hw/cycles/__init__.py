"""Cycles of a program on the accelerator, without running it: docs/models.md."""

from intaglio.hw.cycles.memory import MemoryModel
from intaglio.hw.cycles.predict import predict
from intaglio.hw.cycles.prediction import Prediction, Span

__all__ = ["MemoryModel", "Prediction", "Span", "predict"]
