"""C simulation: builds the HLS sources with the host's compiler and runs programs on them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.backends.fpga import hls
from intaglio.errors import InputError, ToolError

FLAGS = ("-O3", "-march=native")


class Csim:
    """Runs `program` on the accelerator's C++: `sources`, {"hls/<name>": text}, or as rendered for `config`.

    It is built once per process and set of sources. Raises ToolError where there is no C++ compiler.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        program: ProgramFile,
        weights: bytes,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self.program, self.weights = program, weights
        self._folder, self.binary = _built(tuple(sorted((sources or hls.emit(config)).items())))

    def run(self, images: Sequence[bytes], task: int = 0) -> list[bytes]:
        """The results, `program.result_bytes` bytes each (0 where nothing is stored), in the order of `images`.

        Raises InputError for an image of another size than `program.input_bytes` and for a task that the program does
        not have; ToolError with the simulation's message, which names descriptor and error, where the accelerator
        stops with an error.
        """
        if not 0 <= task < self.program.tasks:
            raise InputError(f"task must be in 0..{self.program.tasks - 1}, not {task}")
        for image in images:
            if len(image) != self.program.input_bytes:
                raise InputError(f"an image must have {self.program.input_bytes} bytes, not {len(image)}")
        with tempfile.TemporaryDirectory(prefix="intaglio-csim-") as name:
            folder = Path(name)
            contents = {"program": self.program.pack(), "weights": self.weights, "input": b"".join(images)}
            for path, data in contents.items():
                (folder / f"{path}.bin").write_bytes(data)
            files = [str(folder / f"{path}.bin") for path in (*contents, "output")]
            _run([str(self.binary), *files, str(task)])
            data = (folder / "output.bin").read_bytes()
        size = self.program.result_bytes
        return [data[i * size : (i + 1) * size] for i in range(len(images))]


def build(folder: Path, flags: Sequence[str] = FLAGS) -> Path:
    """Build the C simulation of the sources in `folder` (what `hls.emit` puts in `hls/`); the path of its binary.

    The compiler is `$CXX`, else g++. Raises ToolError if there is none or it fails.
    """
    sources = sorted(str(path) for path in folder.glob("*.cpp"))
    binary = folder / "csim"
    warnings = ("-std=c++17", "-Wall", "-Wextra", "-Werror")
    _run([*compiler(), *flags, *warnings, "-o", str(binary), *sources])
    return binary


def compiler() -> list[str]:
    """The command of the host's C++ compiler."""
    command = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if not shutil.which(command[0]):
        raise ToolError(
            f"a C++ compiler is needed, but {command[0]!r} was not found on PATH; install g++ or set CXX"
        )
    return command


@cache
def _built(sources: tuple[tuple[str, str], ...]) -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """A folder that lives as long as the process, and the binary in it."""
    folder = tempfile.TemporaryDirectory(prefix="intaglio-hls-")
    for path, text in sources:
        target = Path(folder.name) / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    return folder, build(Path(folder.name) / hls.FOLDER)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = (done.stderr or done.stdout).strip()[:2000]
        raise ToolError(message or f"{command[0]} failed with exit status {done.returncode}")
