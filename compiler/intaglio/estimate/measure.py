"""The roofline of this machine, measured with the project's own kernels, once; kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from intaglio import whole_file
from intaglio.backends import cpu
from intaglio.backends.native import NativeModel, ProgramIO
from intaglio.estimate.compiled import compiler_state
from intaglio.hw.roofline import Machine, evaluate
from intaglio.ops import attention, get, layernorm, linear, table
from intaglio.ops.base import Built, Grid, TensorType
from intaglio.program import Array, Program, Step, Tensor
from intaglio.samples import random_inputs

Progress = Callable[[str], None]

TOKENS, CHANNELS, HEADS = 197, 384, 6
"""Of what is measured: DeiT-Small's."""

SECONDS = 0.3
"""Time for each measurement: the fastest of as many runs as it takes."""

STREAM = 64 << 20
"""Bytes of the copied array: more than caches hold."""

CORE_WATTS = (2.0, 15.0)
"""Assumed of one busy core, with its share of the chip: no meter is read."""

GRID = Grid(0.02, 3, "int8")
SCORES = Grid(0.05, 0, "int8")


def host(mcpu: str, threads: int, progress: Progress = lambda _: None) -> Machine:
    """The machine it runs on, with the instructions of `mcpu`, on `threads` threads.

    Raises ToolError without a C compiler.
    """
    file = f"roofline-{_key(mcpu, threads)}.json"
    known = whole_file.kept(file)
    if known is not None:
        with contextlib.suppress(ValueError):
            return Machine.model_validate_json(known)
    machine = _measure(mcpu, threads, progress)
    whole_file.keep(file, machine.model_dump_json(indent=1) + "\n")
    return machine


def _key(mcpu: str, threads: int) -> str:
    parts = [mcpu, str(threads), platform.node(), processor(), compiler_state()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def processor() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _measure(mcpu: str, threads: int, progress: Progress) -> Machine:
    progress("measure linear, attention, LayerNorm")
    products, scores, norms = (_seconds(p, mcpu, threads) for p in (_linear(), _attention(), _layernorm()))
    progress("measure the memory")
    values: dict[str, Any] = {
        "name": processor(),
        "kind": "cpu",
        "source": f"measured here with the kernels of target cpu, mcpu {mcpu}",
        "measured": True,
        "threads": threads,
        "macs_per_s": TOKENS * CHANNELS * 4 * CHANNELS / products,
        "attention_macs_per_s": 2 * TOKENS * TOKENS * CHANNELS / scores,
        "values_per_s": TOKENS * CHANNELS / norms,
        "bytes_per_s": _stream(),
        "watts": [w * threads for w in CORE_WATTS],
        "watts_source": f"assumed: {CORE_WATTS[0]:g} to {CORE_WATTS[1]:g} W per busy core",
    }
    progress("check with a transformer block")
    block = _block()
    error = evaluate(block, Machine(**values)).seconds / _seconds(block, mcpu, threads) - 1
    return Machine(**values, check_percent=100 * error)


def _seconds(program: Program, mcpu: str, threads: int) -> float:
    """The fastest run of a program."""
    with tempfile.TemporaryDirectory(prefix="intaglio-") as folder:
        cpu.build(program, Path(folder), threads=threads, cpu=mcpu)
        model = NativeModel(Path(folder) / "libmodel.so", ProgramIO.of(program))
        x = random_inputs(program.tensors[program.input], 1)
        return _fastest(lambda: model.run(x), threads)


def _fastest(run: Callable[[], object], threads: int = 1) -> float:
    """Seconds of the fastest run: of CPU time on one thread, which other processes disturb less than the clock."""
    clock = time.process_time if threads == 1 else time.perf_counter
    run()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begin = clock()
        run()
        best = min(best, clock() - begin)
    return best


def _stream() -> float:
    """Bytes a second that a copy reads and writes."""
    source, target = np.zeros(STREAM, np.uint8), np.empty(STREAM, np.uint8)
    return 2 * STREAM / _fastest(lambda: np.copyto(target, source))


class _Writer:
    """A program op by op, on the same grids throughout."""

    def __init__(self, channels: int) -> None:
        self.rng = np.random.default_rng(0)
        self.tensors = {"input": Tensor("input", (1, TOKENS, channels), "int8")}
        self.steps: list[Step] = []

    def op(self, op: str, inputs: list[str], built: Built) -> str:
        names = [*inputs, *map(self._constant, built.constants)]
        types = [TensorType(self.tensors[name].shape, self.tensors[name].dtype) for name in names]
        out = get(op).infer(types, built.attrs)
        name = f"{op}_{len(self.steps)}"
        self.tensors[name] = Tensor(name, out.shape, out.dtype)
        self.steps.append(Step(name, op, tuple(names), name, built.attrs))
        return name

    def _constant(self, values: Array) -> str:
        name = f"constant_{len(self.tensors)}"
        self.tensors[name] = Tensor(name, values.shape, str(values.dtype), data=values)
        return name

    def linear(self, x: str, channels: int, gelu: bool = False) -> str:
        depth = self.tensors[x].shape[-1]
        weight = self.rng.integers(-127, 128, (channels, depth), np.int8)
        built = linear.parameters(GRID, weight, 0.01 / depth, self.rng.standard_normal(channels), GRID)
        if not gelu:
            return self.op("linear", [x], built)
        lookup = table.parameters(np.tanh, GRID, GRID).constants
        return self.op("linear", [x], Built([*built.constants, *lookup], built.attrs | {"has_table": 1}))

    def layernorm(self, x: str) -> str:
        built = layernorm.parameters(GRID, np.ones(CHANNELS), np.zeros(CHANNELS), 1e-6, GRID)
        return self.op("layernorm", [x], built)

    def attention(self, q: str, k: str, v: str) -> str:
        depth = CHANNELS // HEADS
        built = attention.parameters(GRID, GRID, GRID, SCORES, 0.125, GRID, depth=depth, length=TOKENS)
        return self.op("attention", [q, k, v], built)

    def move(self, op: str, x: str, **attrs: Any) -> str:
        return self.op(op, [x], Built([], attrs))

    def program(self) -> Program:
        return Program("roofline", self.tensors, self.steps, "input", self.steps[-1].output)


def _linear() -> Program:
    writer = _Writer(CHANNELS)
    writer.linear("input", 4 * CHANNELS)
    return writer.program()


def _layernorm() -> Program:
    writer = _Writer(CHANNELS)
    writer.layernorm("input")
    return writer.program()


def _heads(writer: _Writer, x: str) -> str:
    shape = [1, TOKENS, HEADS, CHANNELS // HEADS]
    return writer.move("transpose", writer.move("reshape", x, shape=shape), axes=[0, 2, 1, 3])


def _attention() -> Program:
    writer = _Writer(CHANNELS)
    heads = _heads(writer, "input")
    writer.attention(heads, heads, heads)
    return writer.program()


def _block() -> Program:
    """A transformer block without its residuals."""
    writer = _Writer(CHANNELS)
    x = writer.layernorm("input")
    q, k, v = (_heads(writer, writer.linear(x, CHANNELS)) for _ in range(3))
    out = writer.move("transpose", writer.attention(q, k, v), axes=[0, 2, 1, 3])
    out = writer.linear(writer.move("reshape", out, shape=[1, TOKENS, CHANNELS]), CHANNELS)
    writer.linear(writer.linear(writer.layernorm(out), 4 * CHANNELS, gelu=True), CHANNELS)
    return writer.program()
