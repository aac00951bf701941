"""Builds and runs the test bench of one RTL unit; used by every test in this folder."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends.fpga import rtl
from intaglio.simulation import verilator

HERE = Path(__file__).parent


def write(config: AcceleratorConfig, folder: Path) -> list[Path]:
    """All rendered sources, in compilation order (test bench models included)."""
    files = rtl.emit(config)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [folder / name for name in (*rtl.sources(files, "rtl"), *rtl.sources(files, "sim"))]


def simulate(
    config: AcceleratorConfig,
    top: str,
    module: str,
    folder: Path,
    *,
    extra: Sequence[Path] = (),
    public: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    parameters: Mapping[str, object] | None = None,
    plusargs: Sequence[str] = (),
) -> None:
    """Build `top` and run the cocotb tests of `module` (a file in this folder) on it; raises AssertionError on failure.

    `public`: modules besides `top` whose signals the tests touch.
    """
    sources = [*write(config, folder / "src"), *extra]
    key = hashlib.sha256(repr((top, sorted((parameters or {}).items()))).encode()).hexdigest()[:8]
    build = folder / f"build_{top}_{key}"
    if not (build / top).exists():
        verilator.build(sources, top, build, public=[top, *public], parameters=parameters)
    test_dir = folder / f"run_{module}"
    test_dir.mkdir(exist_ok=True)
    results = verilator.run(
        top,
        build,
        module,
        test_dir=test_dir,
        env=env,
        plusargs=plusargs,
        python_path=[HERE],
        log=test_dir / "log.txt",
    )
    check(results, test_dir / "log.txt")


def check(results: Path, log: Path) -> None:
    """Raise AssertionError with the failures of a cocotb run."""
    tree = ET.parse(results)
    cases = list(tree.iter("testcase"))
    failed = [
        case.get("name")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    assert cases, f"no cocotb test ran, see {log}"
    assert not failed, f"cocotb tests failed: {failed}\n" + "\n".join(log.read_text().splitlines()[-60:])
