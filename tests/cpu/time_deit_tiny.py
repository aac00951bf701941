"""Times a synthetic DeiT-Tiny: ``PYTHONPATH=compiler:. python -m tests.cpu.time_deit_tiny``."""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.cpu.harness import Library, random_values
from tests.cpu.networks import DEIT_TINY, VitWriter

RUNS = 200


def main() -> None:
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        library = Library(VitWriter(DEIT_TINY).build(), Path(folder))
        print(f"compile: {time.process_time() - started:.1f} s of CPU time with the program's making")
        for threads in (1, 2):
            library.threads(threads)
            _report(f"{threads} thread(s), wall", library, time.perf_counter)
        library.threads(1)
        _report("1 thread, CPU time", library, time.process_time)


def _report(label: str, library: Library, clock: Callable[[], float]) -> None:
    x = random_values(np.random.default_rng(1), (1, 3, DEIT_TINY.image, DEIT_TINY.image), "uint8")
    out = np.empty((1, DEIT_TINY.classes), np.int8)
    workspace = np.zeros(library.c.intaglio_workspace_bytes() + 64, np.uint8)
    start = ctypes.c_void_p(workspace.ctypes.data - workspace.ctypes.data % -64)
    times = []
    for _ in range(RUNS):
        begin = clock()
        library.c.intaglio_run(x.ctypes.data, out.ctypes.data, start)
        times.append((clock() - begin) * 1e3)
    best, tenth, median = (float(np.quantile(times, q)) for q in (0, 0.1, 0.5))
    print(f"{label}: best {best:.2f} ms, 10 % {tenth:.2f}, median {median:.2f}")


if __name__ == "__main__":
    main()
