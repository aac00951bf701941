"""Where configurations are evaluated: in this process, in several, or on the machines of a Dask cluster."""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Protocol

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.errors import InputError, ToolError
from intaglio.explore.evaluate import Evaluator
from intaglio.explore.problem import Point, Problem, Stage

CHUNK = {"fast": 64, "exact": 1}
"""Configurations that travel together."""

Configs = Sequence[AcceleratorConfig]


class Engine(Protocol):
    """Evaluates configurations, in any order."""

    def map(self, configs: Configs, stage: Stage) -> Iterator[Point]: ...


def _chunks(configs: Configs, stage: Stage) -> list[Configs]:
    size = CHUNK[stage]
    return [configs[start : start + size] for start in range(0, len(configs), size)]


class Here:
    """In this process."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def map(self, configs: Configs, stage: Stage) -> Iterator[Point]:
        return (self.evaluator.point(config, stage) for config in configs)


_state: dict[str, Evaluator] = {}
"""Of a worker process: the evaluator of the problem that it works on."""


def _start(problem: Problem) -> None:
    _state["evaluator"] = Evaluator(problem)


@contextmanager
def _not_interrupted() -> Iterator[None]:
    """Ctrl-C waits: a process that is half started is one that no pool ends.

    Processes that are started meanwhile never see it: the pool ends them when they are done with their chunk.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    pressed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if pressed and callable(handler):
        handler(signal.SIGINT, None)


def _run(configs: Configs, stage: Stage) -> list[Point]:
    return [_state["evaluator"].point(config, stage) for config in configs]


class Processes:
    """In worker processes, which get the problem once."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self.pool = pool

    def map(self, configs: Configs, stage: Stage) -> Iterator[Point]:
        futures: list[Future[list[Point]]] = []
        try:
            with _not_interrupted():  # the pool starts its processes here
                futures.extend(self.pool.submit(_run, chunk, stage) for chunk in _chunks(configs, stage))
            for future in as_completed(futures):
                yield from future.result()
        except BrokenProcessPool as error:
            raise ToolError(
                "a worker process was ended from outside, perhaps because memory was scarce; give fewer --processes."
            ) from error
        finally:
            for future in futures:
                future.cancel()


def _remote(configs: Configs, stage: Stage, problem: Problem, key: str) -> list[Point]:
    """On a worker of a cluster, which may work for several searches."""
    if key not in _state:
        _state.clear()
        _state[key] = Evaluator(problem)
    return [_state[key].point(config, stage) for config in configs]


class Cluster:
    """On the workers of a Dask cluster, which need intaglio in the same version."""

    def __init__(self, client: Any, module: Any, problem: Problem) -> None:
        self.client, self.module, self.key = client, module, problem.key
        self.problem = client.scatter(problem, broadcast=True)

    def map(self, configs: Configs, stage: Stage) -> Iterator[Point]:
        chunks = _chunks(configs, stage)
        futures = [
            self.client.submit(_remote, chunk, stage, self.problem, self.key, pure=False) for chunk in chunks
        ]
        for future in self.module.as_completed(futures):
            yield from future.result()


@contextmanager
def engine(problem: Problem, evaluator: Evaluator, processes: int, address: str | None) -> Iterator[Engine]:
    """An engine for a search. `address`: "dask:ADDRESS" of a scheduler, instead of processes.

    Raises InputError for another address, ToolError if Dask is not installed or does not answer.
    """
    if address is not None:
        with _cluster(problem, address) as cluster:
            yield cluster
    elif processes == 1:
        yield Here(evaluator)
    else:
        context = get_context("spawn")  # a fork would copy the threads' locks of libraries
        with ProcessPoolExecutor(processes, context, _start, (problem,)) as pool:
            yield Processes(pool)


@contextmanager
def _cluster(problem: Problem, address: str) -> Iterator[Engine]:
    kind, _, where = address.partition(":")
    if kind != "dask" or not where:
        raise InputError(f"--engine: expected dask:ADDRESS, as dask:tcp://10.0.0.1:8786, not {address!r}.")
    try:
        module = importlib.import_module("distributed")
    except ImportError:
        raise ToolError("--engine: Dask is not installed: pip install 'distributed'.") from None
    try:
        client = module.Client(where, timeout="20s")
    except (OSError, ValueError, TimeoutError) as error:
        raise ToolError(f"--engine: no Dask scheduler answers at {where}: {error}.") from error
    with client:
        yield Cluster(client, module, problem)
