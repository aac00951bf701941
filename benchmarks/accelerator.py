"""Full-size models, pixels to logits, on the RTL of a board's configuration: cycles, utilization, bit-exactness.

Models: `python benchmarks/models.py --model deit_tiny deit_small --form float_dynamo -o DIR`, then quantized by
`intaglio quantize DIR/deit_tiny/float_dynamo.onnx --calibrate DIR/deit_tiny/calib.npy -o DIR/deit_tiny/intaglio.onnx`.
The mixture of experts is quantized as it is made: `--model m3vit --form ort_moe`; every task of a model is run.
Cycles are simulated (Verilator, memory model); milliseconds are cycles at the configuration's clock, not a board's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from intaglio import artifact, feed, target
from intaglio.compiler import compile_model
from intaglio.simulate import SimulationReport, memory_model, simulate_artifact


def run(
    model: Path, images: Path, board: str, latency: int | None, bandwidth: float | None
) -> Iterator[SimulationReport]:
    """Compile `model` for `board` and simulate, for every task, the first of a .npy file of images [N, C, H, W]."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "build"
        compile_model(model, target=target.find(board), out=out)
        compiled = artifact.load(out)
        inputs = feed.quantize(compiled.program, np.load(images)[:1])
        memory = memory_model(compiled, None, latency, bandwidth)
        for task in range(compiled.program.tasks):
            yield simulate_artifact(compiled, inputs, memory=memory, task=task)


def describe(name: str, report: SimulationReport) -> str:
    """One block of text per model."""
    stalls = ", ".join(f"{cause} {cycles:,}" for cause, cycles in report.frames.stalls().items() if cycles)
    return (
        f"{name}: {'bit-exact' if report.bit_exact else 'DIFFERS'}, {report.frames.cycles:,} cycles (simulated), "
        f"{report.latency_ms:.3f} ms at {report.config.clock_mhz} MHz, {report.config.macs:,} MAC/cycle, "
        f"utilization {100 * report.utilization:.1f} %, occupancy {100 * report.occupancy:.1f} %; "
        f"the array waits: {stalls}"
    )


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="folder made by benchmarks/models.py")
    parser.add_argument("--model", nargs="*", default=["deit_tiny", "deit_small"])
    parser.add_argument("--form", default="intaglio", help="name of the .onnx file in each model's folder")
    parser.add_argument("--target", default="zcu102")
    parser.add_argument("--latency", type=int, help="cycles (default: the board's)")
    parser.add_argument("--bandwidth", type=float, help="bytes per cycle (default: the board's)")
    parser.add_argument("--json", type=Path, help="write the full reports here")
    options = parser.parse_args()
    reports = {}
    for name in options.model:
        folder = options.models / name
        started = time.perf_counter()
        model, images = folder / f"{options.form}.onnx", folder / "eval.npy"
        for task, report in enumerate(run(model, images, options.target, options.latency, options.bandwidth)):
            title = f"{name}, task {task}" if task else name
            print(f"{describe(title, report)} [{time.perf_counter() - started:.0f} s]", flush=True)
            reports[title] = report.as_json()
            started = time.perf_counter()
    if options.json:
        options.json.write_text(json.dumps(reports))
    return 0 if all(report["bit_exact"] for report in reports.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
