"""The search: all of a grid by the fast model, the best by the cycle model, then what lies beside the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.errors import UnsupportedError
from intaglio.explore import space
from intaglio.explore.engines import Engine, engine
from intaglio.explore.evaluate import Evaluator
from intaglio.explore.problem import Objective, Point, Problem, Stage
from intaglio.explore.store import Store

Progress = Callable[[str], None]

FRONT = 12
"""Points of the fast model's Pareto front that the cycle model looks at, beside the best ones."""

ROUNDS = 8
"""How often the neighbours of the best are tried, while they are better."""

SLACK = 1.2
"""Neighbours that the fast model has so far behind the best are not tried: about what it errs."""


@dataclass(frozen=True)
class Exploration:
    """What a search found. `own`: the target's configuration, None if it does not fit; `front`: by the cycle model.

    `fast`, `exact`: configurations that each model looked at, of which `resumed` were known before.
    """

    objective: Objective
    chosen: Point
    own: Point | None
    front: Sequence[Point]
    fast: int
    exact: int
    resumed: int
    seconds: float

    @property
    def per_minute(self) -> float:
        """Configurations evaluated in this run."""
        return 60 * (self.fast + self.exact - self.resumed) / self.seconds

    def as_json(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "chosen": self.chosen.as_json(),
            "target_configuration": None if self.own is None else self.own.as_json(),
            "front": [point.as_json() for point in self.front],
            "evaluated": {"fast": self.fast, "exact": self.exact, "resumed": self.resumed},
            "seconds": self.seconds,
            "configurations_per_minute": self.per_minute,
        }


def explore(
    problem: Problem,
    objective: Objective,
    store: Store,
    *,
    processes: int = 1,
    address: str | None = None,
    candidates: int = 24,
    progress: Progress = lambda _: None,
) -> Exploration:
    """Search. `candidates`: how many of the best of the grid the cycle model looks at.

    Raises UnsupportedError if no configuration within the budget runs the model.
    """
    begin = time.perf_counter()
    evaluator = Evaluator(problem)
    with engine(problem, evaluator, processes, address) as workers:
        return _Search(problem, objective, store, evaluator, workers, progress).run(candidates, begin)


class _Search:
    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        store: Store,
        evaluator: Evaluator,
        workers: Engine,
        progress: Progress,
    ) -> None:
        self.problem, self.objective, self.store = problem, objective, store
        self.evaluator, self.workers, self.progress = evaluator, workers, progress
        self.base = problem.target.accelerator
        self.seen: dict[Stage, dict[AcceleratorConfig, None]] = {"fast": {}, "exact": {}}
        self.new = 0  # evaluated in this run

    def run(self, candidates: int, begin: float) -> Exploration:
        grid = list(dict.fromkeys(space.grid(self.base, self.evaluator.shapes)))
        self.progress(f"{len(grid)} configurations by the fast model")
        ranked = self._sorted(self._evaluate(grid, "fast"))
        chosen = [point.config for point in ranked[:candidates]]
        front = _thinned(pareto(ranked, self.problem), FRONT)
        self.progress(f"up to {candidates + FRONT + 1} by the cycle model")
        self._evaluate([self.base, *chosen, *(point.config for point in front)], "exact")
        for number in range(ROUNDS):
            if not self._refine(number):
                break
        exact = self._sorted(self._known("exact"))
        if not exact:
            raise UnsupportedError(self._nothing(len(grid)))
        own = self.store.get(self.base, "exact")
        fast, looked = len(self.seen["fast"]), len(self.seen["exact"])
        return Exploration(
            self.objective, exact[0], own if own in exact else None, pareto(exact, self.problem),
            fast, looked, fast + looked - self.new, time.perf_counter() - begin,
        )  # fmt: skip

    def _nothing(self, tried: int) -> str:
        own = self.store.get(self.base, "exact")
        reason = f" The target's own: {own.reason}" if own is not None and own.reason else ""
        return f"none of {tried} configurations runs {self.problem.program.name} within the budget.{reason}"

    def _refine(self, number: int) -> bool:
        """Look at the neighbours of the best; whether one is better."""
        exact = self._sorted(self._known("exact"))
        if not exact:
            return False
        best = exact[0]
        beside = space.neighbours(self.base, best.config, self.evaluator.shapes)
        known = self._evaluate([best.config], "fast")
        ahead = self._evaluate(beside, "fast")
        if known:
            limit = SLACK * known[0].value(self.objective)
            ahead = [point for point in ahead if point.value(self.objective) <= limit]
        self.progress(f"{len(ahead)} neighbours of the best, round {number + 1}")
        self._evaluate([point.config for point in ahead], "exact")
        return self._sorted(self._known("exact"))[0] != best

    def _known(self, stage: Stage) -> list[Point]:
        found = [self.store.get(config, stage) for config in self.seen[stage]]
        return self._allowed(point for point in found if point is not None)

    def _allowed(self, points: Iterable[Point]) -> list[Point]:
        return [p for p in points if not p.reason and self.problem.budget.allows(p.resources)]

    def _evaluate(self, configs: Sequence[AcceleratorConfig], stage: Stage) -> list[Point]:
        """Points of those that run the model within the budget, in the order of `configs`."""
        configs = list(dict.fromkeys(configs))
        self.seen[stage].update(dict.fromkeys(configs))
        missing = [config for config in configs if self.store.get(config, stage) is None]
        for point in self.workers.map(missing, stage) if missing else ():
            self.store.add(point)
            self.new += 1
        found = [self.store.get(config, stage) for config in configs]
        return self._allowed(point for point in found if point is not None)

    def _sorted(self, points: Iterable[Point]) -> list[Point]:
        """Best first; of equal ones those that need less, then in an order that does not change from run to run."""
        share = self.problem.budget.share
        return sorted(
            points, key=lambda p: (p.value(self.objective), share(p.resources), p.config.model_dump_json())
        )


def pareto(points: Sequence[Point], problem: Problem) -> list[Point]:
    """Those that no other beats in latency, energy and use of the scarcest resource at once; fastest first."""
    share = problem.budget.share
    front: list[Point] = []
    best: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p.latency_ms, p.energy_mj, share(p.resources))):
        figures = (point.energy_mj, share(point.resources))
        if not any(energy <= figures[0] and area <= figures[1] for energy, area in best):
            front.append(point)
            best.append(figures)
    return front


def _thinned(points: Sequence[Point], count: int) -> list[Point]:
    """`count` of them, evenly, the first and the last among them."""
    if len(points) <= count:
        return list(points)
    return [points[i * (len(points) - 1) // (count - 1)] for i in range(count)]
