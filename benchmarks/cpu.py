"""CPU speed against ONNX Runtime: one process, one input, interleaved rounds, medians, ratios.

    python benchmarks/models.py --model deit_tiny --form ort_u8s8 -o build/models
    python benchmarks/cpu.py build/models/deit_tiny/ort_u8s8.onnx --float build/models/deit_tiny/float_dynamo.onnx

Each round runs every contender once; a ratio is the median over rounds of the ratio within a round, so that
what else the machine does falls on both. `--clock cpu` (the default) counts this process's CPU time, which other
processes disturb less than wall time; with more than one thread use `--clock wall`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from intaglio import target
from intaglio.backends.native import NativeModel, ProgramIO
from intaglio.compiler import compile_model
from intaglio.ops.base import Grid
from intaglio.program import Program

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
Contender = Callable[[], object]


def main() -> None:
    """Print a table, or with --json one object."""
    options = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        program, compiled = compiled_model(options.model, Path(folder) / "artifact", options.threads)
        image = image_for(program)
        contenders: dict[str, Contender] = {
            "intaglio": _ours(program, compiled, image),
            "ONNX Runtime int8": _onnxruntime(options.model, image, options.threads),
        }
        if options.float is not None:
            contenders["ONNX Runtime fp32"] = _onnxruntime(options.float, image, options.threads)
        rounds = measure(contenders, options.rounds, CLOCKS[options.clock])
    report(rounds, options)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="QDQ model, for both")
    parser.add_argument("--float", type=Path, help="float model, for ONNX Runtime only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def compiled_model(model: Path, folder: Path, threads: int) -> tuple[Program, NativeModel]:
    """The model at `model` compiled for this machine, ready to run."""
    artifact = compile_model(model, target=target.find("cpu"), out=folder, threads=threads)
    native = NativeModel(folder / "libmodel.so", ProgramIO.of(artifact.program))
    native.set_threads(threads)
    return artifact.program, native


def image_for(program: Program) -> np.ndarray:
    """A random image, float32."""
    shape = program.tensors[program.input].shape
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _ours(program: Program, native: NativeModel, image: np.ndarray) -> Contender:
    tensor = program.tensors[program.input]
    assert tensor.scale is not None
    quantized = Grid(tensor.scale, tensor.zero_point, tensor.dtype).quantize(image)
    return lambda: native.run(quantized)


def _onnxruntime(model: Path, image: np.ndarray, threads: int) -> Contender:
    """Default optimizations: its int8 kernels wherever it fuses Q/DQ."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    return lambda: session.run(None, feed)


def measure(
    contenders: dict[str, Contender], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every contender in every round; three rounds of warming up are not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for count in range(rounds + 3):
        for name, run in contenders.items():
            start = clock()
            run()
            if count >= 3:
                times[name].append(clock() - start)
    return times


def report(times: dict[str, list[float]], options: argparse.Namespace) -> None:
    """Print medians, and ratios to ours within a round."""
    ours = times["intaglio"]
    summary = {"model": str(options.model), "threads": options.threads, "clock": options.clock}
    rows = {
        name: {
            "median_ms": 1e3 * statistics.median(values),
            "best_ms": 1e3 * min(values),
            "ratio": statistics.median(theirs / mine for theirs, mine in zip(values, ours, strict=True)),
        }
        for name, values in times.items()
    }
    if options.json:
        print(json.dumps(summary | {"results": rows}))
        return
    print(
        f"{options.model.name}, {options.threads} thread(s), {options.clock} time, "
        f"{options.rounds} rounds, {platform.machine()}"
    )
    width = max(map(len, rows))
    for name, row in rows.items():
        times_ms = f"median {row['median_ms']:7.2f} ms   best {row['best_ms']:7.2f} ms"
        print(f"{name:{width}s} {times_ms}   {row['ratio']:5.2f}x ours")


if __name__ == "__main__":
    main()
