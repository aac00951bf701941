"""What the layout promises: one namespace package, data in the wheel, layers, complete lists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

from intaglio import resources
from intaglio.cli.app import COMMANDS

NAMESPACE_FOLDERS = ("compiler/intaglio", "hw_models/intaglio")


@pytest.mark.parametrize("folder", NAMESPACE_FOLDERS)
def test_the_namespace_has_no_init(root: Path, folder: str) -> None:
    assert (root / folder).is_dir()
    assert not (root / folder / "__init__.py").exists()


@pytest.mark.parametrize("folder", NAMESPACE_FOLDERS)
def test_every_subpackage_is_typed(root: Path, folder: str) -> None:
    untyped = [
        path.parent.name
        for path in (root / folder).glob("*/__init__.py")
        if not (path.parent / "py.typed").exists()
    ]
    assert not untyped, f"py.typed is missing in {untyped}"


def test_both_halves_are_one_package() -> None:
    import intaglio.hw
    import intaglio.program

    assert intaglio.hw.__doc__
    assert intaglio.program.__doc__


def test_the_version_is_stated_once(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert resources.version() == project["version"]
    assert f"## {project['version']}" in (root / "CHANGELOG.md").read_text()


def test_data_folders_are_found() -> None:
    assert (resources.data_folder("targets") / "cpu.toml").is_file()
    assert resources.data_folder("hls_templates").is_dir()
    with pytest.raises(FileNotFoundError, match="the data folder 'nonsense' is in none of"):
        resources.data_folder("nonsense")


def test_layers_import_only_what_is_below(root: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


@pytest.mark.parametrize("name", ["artifact", "execute", "simulate", "backends.fpga", "hw.iss"])
def test_compiled_models_run_without_tvm(name: str) -> None:
    code = f"import sys; sys.modules['tvm'] = sys.modules['tvm_ffi'] = None; import intaglio.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_code_and_data(root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, root],
        capture_output=True,
        check=True,
        env={**os.environ, "PIP_NO_INDEX": "1"},
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"intaglio/program.py", "intaglio/hw/__init__.py", "intaglio/cli/py.typed"} <= names
    targets = {path.name for path in (root / "targets").glob("*.toml")}
    assert {f"intaglio/_data/targets/{name}" for name in targets} <= names
    hardware = [path for path in (root / "hls_templates").rglob("*") if path.is_file()]
    assert {
        f"intaglio/_data/hls_templates/{path.relative_to(root / 'hls_templates')}" for path in hardware
    } <= names
    assert "intaglio/__init__.py" not in names
    templates = {path.name for path in (root / "compiler").rglob("*.j2")}
    assert templates <= {Path(name).name for name in names}
    assert all(name.startswith(("intaglio/", "intaglio-")) for name in names)


def test_the_lock_file_pins_what_the_project_needs(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    locked = {
        _canonical(line.split("==")[0]): line
        for line in (root / "requirements.lock").read_text().splitlines()
        if not line.startswith("#")
    }
    for requirement in [*project["dependencies"], *chain(*project["optional-dependencies"].values())]:
        name = _canonical(re.split(r"[=<>!~\[ ;]", requirement)[0])
        if name == project["name"]:  # its own extras, which are looked at as well
            continue
        assert name in locked, f"{name} is not in requirements.lock: make lock"
        if "==" in requirement:
            assert locked[name].split("==")[1] == requirement.split("==")[1]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_command_is_documented(root: Path) -> None:
    headings = {
        line.split()[1]
        for line in (root / "docs" / "cli.md").read_text().splitlines()
        if line.startswith("## ")
    }
    assert set(COMMANDS) == headings


def test_one_file_per_command(root: Path) -> None:
    folder = root / "compiler" / "intaglio" / "cli"
    assert all((folder / f"{name.replace('-', '_')}.py").is_file() for name in COMMANDS)


def test_links_of_the_documentation_lead_somewhere(root: Path) -> None:
    for page in [root / "README.md", *(root / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_readme_names_the_commands_that_ci_runs(root: Path) -> None:
    readme = (root / "README.md").read_text()
    script = (root / ".ci" / "run").read_text()
    for command in ("make demo", "make test"):
        assert f"\n    {command}\n" in readme
    assert "make test\n" in script


def test_make_help_lists_every_command(root: Path) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=root, capture_output=True, text=True, check=True
    )
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert listed == {"help", "demo", "hardware", "test", "lint", "format", "lock", "clean"}
