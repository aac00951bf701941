"""Search of accelerator configurations for a model and a board: docs/models.md."""

from intaglio.explore.problem import Budget, Problem
from intaglio.explore.search import Exploration, explore

__all__ = ["Budget", "Exploration", "Problem", "explore"]
