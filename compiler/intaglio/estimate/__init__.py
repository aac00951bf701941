"""What a model costs on a target, without running it: cycles, energy, resources, and how wrong each may be."""

from intaglio.estimate.accelerator import Estimate, estimate
from intaglio.estimate.board import device_of
from intaglio.estimate.compiled import Compiled, compiled_model, of_artifact
from intaglio.simulation.frame import memory_of

__all__ = ["Compiled", "Estimate", "compiled_model", "device_of", "estimate", "memory_of", "of_artifact"]
