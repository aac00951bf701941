"""Results of a search, one JSON object a line, so that it can be taken up again."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.errors import InputError
from intaglio.explore.problem import Point, Problem, Stage

FORMAT = "intaglio-explore-1"


class Store:
    """Points known so far; with a path, every new one is appended to the file. Use it as a context manager.

    A last line that was cut off is dropped. Raises InputError if the file is of another search.
    """

    def __init__(self, problem: Problem, path: Path | None = None) -> None:
        self.path = path
        self._points: dict[tuple[Stage, AcceleratorConfig], Point] = {}
        of = {"model": problem.program.name, "part": problem.target.board.part}
        self._header = json.dumps({"format": FORMAT, "key": problem.key, **of}) + "\n"
        self._file = None if path is None else self._open(path)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # said when it was written
                self._file.close()

    def __len__(self) -> int:
        return len(self._points)

    def get(self, config: AcceleratorConfig, stage: Stage) -> Point | None:
        return self._points.get((stage, config))

    def add(self, point: Point) -> None:
        self._points[point.stage, point.config] = point
        if self._file is not None and self.path is not None:
            self._append(self._file, self.path, json.dumps(point.as_json()) + "\n")

    def _open(self, path: Path) -> BinaryIO:
        """The file, at the end of its last whole line."""
        try:
            file = path.open("r+b" if path.exists() else "w+b")
        except OSError as error:
            raise InputError(f"--results: {path} cannot be opened: {error.strerror}.") from error
        try:
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read(path, data, whole.splitlines())
            file.truncate(len(whole))
            file.seek(len(whole))
            if not whole:
                self._append(file, path, self._header)
        except BaseException:
            with contextlib.suppress(OSError):  # what is still to be written found no room before
                file.close()
            raise
        return file

    def _append(self, file: BinaryIO, path: Path, line: str) -> None:
        try:
            file.write(line.encode())
            file.flush()
        except OSError as error:
            raise InputError(f"--results: {path} cannot be written: {error.strerror}.") from error

    def _read(self, path: Path, data: bytes, lines: list[bytes]) -> None:
        """Take the points of `lines`, the whole ones of `data`; nothing is changed in a file of something else."""
        header = self._header.encode()
        if not header.startswith(data[: len(header)]):
            raise InputError(
                f"--results: {path} is of another model, target, memory or version of intaglio; give another file, or "
                "remove it."
            )
        for number, line in enumerate(lines[1:], 2):
            try:
                point = Point.of_json(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"--results: {path}:{number} is damaged ({error}); remove the file."
                ) from error
            self._points[point.stage, point.config] = point
