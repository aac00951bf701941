"""One configuration's figures, by the fast model or by the cycle model; what worker processes run."""

from __future__ import annotations

from dataclasses import replace

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga.trace import trace
from intaglio.errors import IntaglioError
from intaglio.estimate import device_of, estimate, resources
from intaglio.estimate.compiled import of_graph
from intaglio.estimate.resources import DeviceUse
from intaglio.explore import fast
from intaglio.explore.problem import Point, Problem, Stage
from intaglio.explore.shapes import Shapes, descriptors, shapes_of
from intaglio.hw import energy
from intaglio.hw.energy import Actions, Energy


class Evaluator:
    """Keeps what configurations share: the traced model, its sizes by rows and depth, its actions by array."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.graph = trace(problem.program)
        self._shapes: dict[tuple[int, int], Shapes] = {}
        self._actions: dict[tuple[int, int, int], Actions] = {}

    def shapes(self, rows: int, depth: int) -> Shapes:
        """The model's operations on an accelerator of `rows` and `depth`."""
        if (rows, depth) not in self._shapes:
            values = self.problem.target.accelerator.model_dump()
            sizes = {
                "rows": rows,
                "depth": depth,
                "cols": depth,
                "max_keys": 1024,
                "weight_ports": 1,
                "burst": 16,
            }
            config = AcceleratorConfig.model_validate(values | sizes)
            self._shapes[rows, depth] = shapes_of(self.graph, config)
        return self._shapes[rows, depth]

    def point(self, config: AcceleratorConfig, stage: Stage) -> Point:
        """Its figures; one that cannot run the model has a reason instead."""
        try:
            return self._exact(config) if stage == "exact" else self._fast(config)
        except IntaglioError as error:
            return Point(config, stage, reason=str(error))

    def _fast(self, config: AcceleratorConfig) -> Point:
        shapes = self.shapes(config.rows, config.depth).shapes
        key = (config.rows, config.depth, config.cols)
        if key not in self._actions:
            self._actions[key] = sum(energy.count(descriptors(shapes, config), config), Actions())
        cycles = fast.cycles(shapes, config, self.problem.memory)
        return self._figures(Point(config, "fast", cycles), self._actions[key])

    def _exact(self, config: AcceleratorConfig) -> Point:
        """As `estimate` has it."""
        problem = self.problem
        compiled = of_graph(problem.program.name, self.graph, config)
        found = estimate(compiled, problem.target.name, problem.target.board, problem.memory)
        point = Point(config, "exact", found.prediction.cycles, found.prediction.latency_ms)
        return _spent(point, found.energy, found.use)

    def _figures(self, point: Point, actions: Actions) -> Point:
        board, config = self.problem.target.board, point.config
        used = resources.device_use(config, board)
        seconds = point.cycles / (config.clock_mhz * 1e6)
        joules = energy.estimate([actions], seconds, config.clock_mhz, used.used["lut"], device_of(board))
        return _spent(replace(point, latency_ms=1e3 * seconds), joules, used)


def _spent(point: Point, joules: Energy, used: DeviceUse) -> Point:
    return replace(
        point,
        energy_mj=joules.total,
        energy_band_mj=(joules.low, joules.high),
        resources=dict(used.used),
    )
