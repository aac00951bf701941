"""Full-size models in every quantized form: compile time, peak memory, bit-exactness, fidelity to ONNX Runtime.

    python benchmarks/models.py -o build/models
    python benchmarks/forms.py build/models [--model deit_tiny] [--form ort_u8s8] [--json]

A form that leaves activations in float is completed first (`intaglio quantize --complete`, with the folder's
calib.npy). The cosine is between the logits of the integer program and ONNX Runtime's execution of the same QDQ
file with graph optimizations off (its fused AVX2 kernels saturate), over the folder's eval.npy; beside it, where
the folder has the float model's logits, how far each of the two is from the float model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from intaglio import artifact as artifacts
from intaglio.errors import IntaglioError
from intaglio.execute import Executor
from intaglio.oracle import Oracle
from intaglio.verify import cosine

COMPLETED = ("matrix", "nncf", "pt2e", "qonnx", "qcdq")
WITH_C = ("deit_tiny",)
COLUMNS = ("compile_s", "peak_mb", "bit_exact", "cosine", "ours_to_float", "theirs_to_float")


def main() -> None:
    """Print a line per model and form; exit with 1 if one failed."""
    options = _arguments()
    rows = []
    for path in _models(options):
        row = {"model": path.parent.name, "form": path.stem} | _measured(path, options.count)
        rows.append(row)
        if not options.json:
            cells = [f"{column} {_shown(row.get(column))}" for column in COLUMNS]
            print("  ".join([f"{row['model']:10s} {row['form']:22s}", *cells]), flush=True)
            if "error" in row:
                print(f"    {row['error']}", flush=True)
    if options.json:
        print(json.dumps(rows))
    sys.exit(any("error" in row or not row["bit_exact"] for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append", help="only these")
    parser.add_argument("--form", action="append", help="only these")
    parser.add_argument("--count", type=int, default=2, help="evaluation images")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _models(options: argparse.Namespace) -> list[Path]:
    paths = sorted(p for p in options.folder.glob("*/*.onnx") if not p.stem.startswith("float"))
    kept = [p for p in paths if not options.model or p.parent.name in options.model]
    return [p for p in kept if not options.form or p.stem in options.form]


def _measured(path: Path, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = path
        if any(form in path.stem for form in COMPLETED):
            model = folder / path.name
            calibration = path.parent / "calib.npy"
            code, last, _ = _intaglio("quantize", path, "--complete", "--calibrate", calibration, "-o", model)
            if code:
                return {"error": last, "bit_exact": False}
        start = time.perf_counter()
        code, last, peak = _intaglio("compile", model, "--target", "cpu", "-o", folder / "out")
        seconds = time.perf_counter() - start
        if code:
            return {"error": last, "bit_exact": False}
        try:
            checked = _apart(_checked, folder / "out", model, path.parent, count)
        except IntaglioError as error:
            return {"error": str(error), "bit_exact": False}
        return {"compile_s": seconds, "peak_mb": peak} | checked


def _intaglio(*arguments: object) -> tuple[int, str, float]:
    """Exit code, last line of standard error, and peak resident memory in MB of one command."""
    command = [sys.executable, "-c", "from intaglio.cli import main; main()", *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    return child.returncode, lines[-1] if lines else "", usage.ru_maxrss / 1024


def _apart(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call `function` in a process of its own: a child's peak memory counts what its parent held when it forked."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _checked(out: Path, model: Path, folder: Path, count: int) -> dict[str, Any]:
    artifact = artifacts.load(out)
    images = np.load(folder / "eval.npy")[:count]
    devices = ["reference", "cpu", *(["c"] if folder.name in WITH_C else [])]
    results = {}
    for device in devices:
        with Executor(artifact, device) as executor:
            results[device] = executor.logits(images).reshape(count, -1)
    ours = results["reference"]
    theirs = Oracle(model, as_written=True).run(images).reshape(count, -1)
    row: dict[str, Any] = {
        "bit_exact": all(np.array_equal(ours, other) for other in results.values()),
        "executions": devices,
        "cosine": min(cosine(a[None], b[None]) for a, b in zip(ours, theirs, strict=True)),
    }
    reference = folder / "float_dynamo.logits.npy"
    if reference.exists():
        real = np.load(reference)[:count].reshape(count, -1)
        row["ours_to_float"] = min(cosine(a[None], b[None]) for a, b in zip(ours, real, strict=True))
        row["theirs_to_float"] = min(cosine(a[None], b[None]) for a, b in zip(theirs, real, strict=True))
    return row


def _shown(value: Any) -> str:
    return f"{value:8.4f}" if isinstance(value, float) else f"{value!s:>5s}"


if __name__ == "__main__":
    main()
