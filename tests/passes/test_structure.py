"""One pass, one file, one name: the structure that the pipeline list and the folder share."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import tvm

from intaglio import passes, pipelines
from intaglio.frontend.importer import Imported
from intaglio.passes.integer.emit import Preprocessing

FOLDER = Path(passes.__path__[0])
SHARED = {"__init__", "graph"}
MAXIMUM_LINES = 500


def pipeline() -> list[pipelines.Pass]:
    imported = Imported(tvm.IRModule(), {}, {}, "input", "output")
    return pipelines.fpga(imported, Preprocessing(), "exact")


def snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


@pytest.mark.parametrize("step", pipeline(), ids=pipelines.pass_name)
def test_a_pass_has_the_name_of_its_file(step: pipelines.Pass):
    definition = step if inspect.isfunction(step) else type(step)
    name = pipelines.pass_name(step)
    assert Path(inspect.getfile(definition)) == FOLDER / f"{name}.py"
    assert snake_case(definition.__name__) == name


def test_every_file_of_the_folder_is_a_pass_of_the_pipeline():
    files = {path.stem for path in FOLDER.glob("*.py")} - SHARED
    assert files == {pipelines.pass_name(step) for step in pipeline()}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_files_are_short(path: Path):
    assert len(path.read_text().splitlines()) < MAXIMUM_LINES
