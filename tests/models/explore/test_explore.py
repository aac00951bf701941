"""The search: its two models, its order, its memory, and its engines."""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from intaglio import target as targets
from intaglio.backends import fpga
from intaglio.compiler import to_program
from intaglio.errors import InputError, ToolError, UnsupportedError
from intaglio.estimate import compiled, memory_of
from intaglio.estimate import estimate as estimated
from intaglio.explore import engines, space
from intaglio.explore.engines import engine
from intaglio.explore.evaluate import Evaluator
from intaglio.explore.problem import Budget, Point, Problem, budget
from intaglio.explore.search import explore, pareto
from intaglio.explore.shapes import descriptors
from intaglio.explore.store import Store
from intaglio.hw import energy
from intaglio.hw.cycles import predict
from intaglio.hw.energy import Actions
from intaglio.hw.iss.routing import Routing, rows
from intaglio.program import Program
from intaglio.target import Board, FpgaTarget


@pytest.fixture(scope="module")
def board() -> FpgaTarget:
    found = targets.find("arty-a7")
    assert isinstance(found, FpgaTarget)
    return found


@pytest.fixture(scope="module")
def vit(root: Path, board: FpgaTarget) -> Program:
    return to_program(root / "examples/fashion_mnist/vit_qdq.onnx", target=board)


@pytest.fixture(scope="module")
def problem(vit: Program, board: FpgaTarget) -> Problem:
    memory = memory_of(board.board, board.accelerator.clock_mhz)
    return Problem(vit, board, memory, budget(board.board))


@pytest.fixture(scope="module")
def evaluator(problem: Problem) -> Evaluator:
    return Evaluator(problem)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that takes seconds."""
    for name, values in (("ROWS", (1, 2)), ("DEPTHS", (8,)), ("PORTS", (1, 2)), ("ENTRIES", (512, 1024))):
        monkeypatch.setattr(space, name, values)
    monkeypatch.setattr(space, "COLUMNS", 16)


def sample(problem: Problem, evaluator: Evaluator, count: int) -> list[Any]:
    grid = list(space.grid(problem.target.accelerator, evaluator.shapes))
    assert len(grid) > 1000
    return grid[:: len(grid) // count]


def test_every_configuration_of_the_grid_runs_the_model(problem: Problem, evaluator: Evaluator) -> None:
    """And the fast model ranks them nearly as the cycle model does; of so small a model it misses up to a third."""
    quick, exact = [], []
    for config in sample(problem, evaluator, 24):
        one, other = evaluator.point(config, "fast"), evaluator.point(config, "exact")
        assert (one.reason, other.reason) == ("", "")
        assert one.resources == other.resources
        assert one.energy_mj / one.latency_ms == pytest.approx(other.energy_mj / other.latency_ms, rel=0.15)
        quick.append(one.cycles)
        exact.append(other.cycles)
    errors = np.abs(np.array(quick) / np.array(exact) - 1)
    assert np.median(errors) < 0.25
    assert errors.max() < 0.4
    assert np.corrcoef(np.argsort(np.argsort(quick)), np.argsort(np.argsort(exact)))[0, 1] > 0.9


def test_mixtures_of_experts(root: Path, board: FpgaTarget, problem: Problem) -> None:
    program = to_program(root / "examples/fashion_mnist/moe_qdq.onnx", target=board)
    evaluator = Evaluator(replace(problem, program=program))
    for config in sample(problem, evaluator, 6):
        one, other = evaluator.point(config, "fast"), evaluator.point(config, "exact")
        assert (one.reason, other.reason) == ("", "")
        assert one.cycles == pytest.approx(other.cycles, rel=0.4)
        assert one.energy_mj / one.latency_ms == pytest.approx(other.energy_mj / other.latency_ms, rel=0.2)


@pytest.mark.parametrize("name", ["vit_qdq", "moe_qdq"])
def test_the_work_is_that_of_the_compiled_program(
    name: str, root: Path, board: FpgaTarget, problem: Problem
) -> None:
    program = to_program(root / f"examples/fashion_mnist/{name}.onnx", target=board)
    evaluator = Evaluator(replace(problem, program=program))
    for config in sample(problem, evaluator, 3):
        rough = descriptors(evaluator.shapes(config.rows, config.depth).shapes, config)
        found = sum(energy.count(rough, config), Actions())
        exact = compiled.of_program(program, config).descriptors
        tokens = predict(exact, config, problem.memory, "uniform").routing
        routes = [index for index, d in enumerate(exact) if d.kind == "ROUTE"]
        work = rows(exact, [Routing(i, tuple(one)) for i, one in zip(routes, tokens, strict=True)])
        total = sum(energy.count(exact, config, lambda i, _, work=work: work[i]), Actions())
        assert (found.products, found.results) == (total.products, total.results)


def test_the_exact_figures_are_those_of_estimate(problem: Problem, evaluator: Evaluator) -> None:
    config = sample(problem, evaluator, 5)[3]
    point = evaluator.point(config, "exact")
    program = compiled.of_program(problem.program, config)
    found = estimated(program, "x", problem.target.board, problem.memory)
    assert point.cycles == found.prediction.cycles
    assert point.energy_mj == pytest.approx(found.energy.total)
    assert point.resources == found.use.used


def test_a_configuration_that_cannot_run_the_model_says_why(problem: Problem, evaluator: Evaluator) -> None:
    config = targets.configuration("ecp5").model_copy(update={"max_keys": 16, "norm_channels": 8})
    point = evaluator.point(config, "exact")
    assert "norm_channels" in point.reason or "max_keys" in point.reason


@pytest.mark.usefixtures("small")
def test_the_choice(problem: Problem, tmp_path: Path) -> None:
    with Store(problem) as store:
        found = explore(problem, "latency", store, candidates=4)
    assert found.own is not None
    assert found.chosen.cycles <= found.own.cycles
    assert found.chosen.stage == "exact"
    assert problem.budget.allows(found.chosen.resources)
    assert found.chosen in found.front
    assert all(point.stage == "exact" for point in found.front)
    path = tmp_path / "choice.toml"
    path.write_text(fpga.target_file(found.chosen.config, problem.target))
    assert targets.configuration(str(path)) == found.chosen.config


@pytest.mark.usefixtures("small")
def test_a_search_is_taken_up_again(problem: Problem, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Store(problem, path) as store:
        first = explore(problem, "edp", store, candidates=4)
    assert first.resumed == 0
    data = path.read_bytes()
    assert len(data.splitlines()) == 1 + first.fast + first.exact
    # As if it had been killed while it wrote.
    cut = data[: int(len(data) * 0.8)]
    path.write_bytes(cut)
    with Store(problem, path) as store:
        again = explore(problem, "edp", store, candidates=4)
    assert again.resumed == len(cut[: cut.rfind(b"\n")].splitlines()) - 1
    assert again.chosen == first.chosen
    assert again.front == first.front
    assert sorted(path.read_bytes().splitlines()) == sorted(data.splitlines())
    with Store(problem, path) as store:
        assert explore(problem, "edp", store, candidates=4).resumed == first.fast + first.exact


def test_results_of_another_search(problem: Problem, board: FpgaTarget, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Store(problem, path).__exit__(None, None, None)
    other = replace(problem, memory=memory_of(board.board, 100, 3))
    with pytest.raises(InputError, match="is of another model, target, memory or version"):
        Store(other, path)
    path.write_text(path.read_text() + '{"config": 1}\n')
    with pytest.raises(InputError, match=r"results.jsonl:2 is damaged"):
        Store(problem, path)
    with pytest.raises(InputError, match="cannot be opened"):
        Store(problem, tmp_path)


@pytest.mark.parametrize("data", [b"notes", b"notes\nmore notes", bytes(range(200, 256))])
def test_a_file_of_something_else_stays_as_it_is(problem: Problem, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError, match="is of another model"):
        Store(problem, path)
    assert path.read_bytes() == data


def test_a_damaged_line_and_a_torn_header(problem: Problem, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Store(problem, path).__exit__(None, None, None)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with Store(problem, path) as store:
        assert len(store) == 0
    assert path.read_bytes() == whole
    path.write_bytes(whole + b"\xff\xfe\n")
    with pytest.raises(InputError, match=r"results.jsonl:2 is damaged"):
        Store(problem, path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_results_on_a_full_disk(problem: Problem, evaluator: Evaluator, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Store(problem, path) as store, Path("/dev/full").open("r+b", buffering=0) as full:
        assert store._file is not None
        os.dup2(full.fileno(), store._file.fileno())
        with pytest.raises(InputError, match=r"results.jsonl cannot be written: No space left on device"):
            store.add(evaluator.point(problem.target.accelerator, "fast"))


def test_points_survive_json(problem: Problem, evaluator: Evaluator) -> None:
    point = evaluator.point(problem.target.accelerator, "exact")
    assert Point.of_json(json.loads(json.dumps(point.as_json()))) == point


def points(problem: Problem, figures: list[tuple[float, float, int]]) -> list[Point]:
    config = problem.target.accelerator
    return [
        Point(config, "exact", ms, ms, mj, resources={"dsp": dsp, "bram36": 0, "uram": 0, "lut": 0, "ff": 0})
        for ms, mj, dsp in figures
    ]


def test_the_front_has_what_nothing_beats(problem: Problem) -> None:
    good = [(1.0, 5.0, 90), (2.0, 4.0, 90), (3.0, 6.0, 20)]
    beaten = [(2.5, 4.0, 95), (3.0, 6.5, 20), (1.0, 5.0, 91)]
    assert pareto(points(problem, beaten + good), problem) == points(problem, good)


def test_nothing_fits(problem: Problem) -> None:
    nothing = replace(problem, budget=Budget({"dsp": 1.0}))
    evaluator = Evaluator(nothing)
    config = nothing.target.accelerator
    assert not nothing.budget.allows(evaluator.point(config, "fast").resources)


@pytest.mark.usefixtures("small")
def test_a_budget_that_nothing_meets(problem: Problem) -> None:
    with (
        Store(problem) as store,
        pytest.raises(UnsupportedError, match=r"none of \d+ configurations runs vit_qdq"),
    ):
        explore(replace(problem, budget=Budget({"dsp": 1.0})), "latency", store, candidates=2)


def test_budgets() -> None:
    board = Board(dsps=100, luts=1000)
    assert budget(board).limits == {"dsp": 100, "lut": 1000}
    assert budget(board, "dsp=70%,bram36=3.5").limits == {"dsp": 70, "lut": 1000, "bram36": 3.5}
    for text, sentence in (
        ("dps=3", "'dps' is no resource; known are dsp, bram36"),
        ("dsp", "must be a number or a percentage"),
        ("dsp=-1", "must be a number or a percentage"),
        ("dsp=nan", "must be a number or a percentage"),
        ("uram=3%", "is a percentage, but the target does not say how many"),
        ("dsp=101", "dsp=101 is more than the 100 that the board has"),
        ("lut=200%", "lut=200% is more than the board has"),
    ):
        with pytest.raises(InputError, match=sentence):
            budget(board, text)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_processes_find_the_same(problem: Problem) -> None:
    with Store(problem) as store:
        one = explore(problem, "energy", store, candidates=3)
    with Store(problem) as store:
        two = explore(problem, "energy", store, candidates=3, processes=2)
    assert (one.chosen, one.front, one.fast, one.exact) == (two.chosen, two.front, two.fast, two.exact)


def test_ctrl_c_waits_until_workers_are_started() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []

    def interrupted() -> None:
        with engines._not_interrupted():
            os.kill(os.getpid(), signal.SIGINT)
            done.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_worker_that_was_ended(problem: Problem) -> None:
    class Pool:
        def submit(self, *_: object) -> Future[list[Point]]:
            found: Future[list[Point]] = Future()
            found.set_exception(BrokenProcessPool("ended"))
            return found

    workers = engines.Processes(cast("ProcessPoolExecutor", Pool()))
    with pytest.raises(ToolError, match=r"a worker process was ended from outside.*give fewer --processes"):
        list(workers.map([problem.target.accelerator], "fast"))


class Client:
    """What a Dask client does, here and now."""

    def __init__(self, address: str, timeout: str) -> None:
        if address != "tcp://here:8786":
            raise OSError("timed out")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None: ...

    def scatter(self, value: Any, broadcast: bool) -> Any:
        assert broadcast
        return value

    def submit(self, function: Any, *arguments: Any, pure: bool) -> Any:
        assert not pure
        return types.SimpleNamespace(result=lambda: function(*arguments))


@pytest.fixture
def dask(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("distributed")
    module.Client = Client  # type: ignore[attr-defined]
    module.as_completed = iter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distributed", module)


@pytest.mark.usefixtures("small", "dask")
def test_a_cluster_finds_the_same(problem: Problem) -> None:
    with Store(problem) as store:
        one = explore(problem, "latency", store, candidates=3)
    with Store(problem) as store:
        two = explore(problem, "latency", store, candidates=3, address="dask:tcp://here:8786")
    assert (one.chosen, one.front) == (two.chosen, two.front)


def opened(problem: Problem, evaluator: Evaluator, address: str) -> Iterator[None]:
    with engine(problem, evaluator, 1, address):
        yield


@pytest.mark.usefixtures("dask")
@pytest.mark.parametrize("address", ["ray:auto", "dask", "dask:"])
def test_addresses_of_no_engine(problem: Problem, evaluator: Evaluator, address: str) -> None:
    with pytest.raises(InputError, match="--engine: expected dask:ADDRESS"):
        next(opened(problem, evaluator, address))


@pytest.mark.usefixtures("dask")
def test_no_scheduler(problem: Problem, evaluator: Evaluator) -> None:
    with pytest.raises(ToolError, match="no Dask scheduler answers at tcp://there:1: timed out"):
        next(opened(problem, evaluator, "dask:tcp://there:1"))


def test_no_dask(problem: Problem, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ToolError, match="Dask is not installed: pip install 'distributed'"):
        next(opened(problem, evaluator, "dask:tcp://here:8786"))
