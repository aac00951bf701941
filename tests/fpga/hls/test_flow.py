"""The flow scripts under mock tools: what they call, with which files, and where they stop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.backends.fpga import flow, hls

PART, BOARD = "xczu7ev-ffvc1156-2-e", "zcu104"
MOCK = """#!{python}
import json, os, pathlib, sys
name = pathlib.Path(sys.argv[0]).name
call = {{"arguments": sys.argv[1:], "folder": os.getcwd()}}
pathlib.Path({record!r}, name).write_text(json.dumps(call))
"""


@pytest.fixture
def design(tmp_path: Path) -> Path:
    config = PRESETS["medium"]
    files = hls.emit(config) | flow.emit(config, PART, BOARD, 250)
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Mock tools on PATH; the folder where each leaves a record of its call."""
    programs, record = tmp_path / "bin", tmp_path / "record"
    programs.mkdir()
    record.mkdir()
    for name in ("vitis_hls", "vivado", "bambu"):
        (programs / name).write_text(MOCK.format(python=sys.executable, record=str(record)))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return record


def make(design: Path, target: str) -> None:
    command = ["make", "-C", str(design / "flow"), target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def call(tools: Path, name: str) -> tuple[list[str], Path]:
    record = json.loads((tools / name).read_text())
    return record["arguments"], Path(record["folder"])


def test_vitis_hls_is_called(design: Path, tools: Path) -> None:
    make(design, "ip")
    arguments, folder = call(tools, "vitis_hls")
    assert arguments == ["-f", "vitis_hls.tcl"]
    assert (folder / "vitis_hls.tcl").is_file()


def test_vivado_is_called(design: Path, tools: Path) -> None:
    make(design, "bitstream")
    arguments, folder = call(tools, "vivado")
    assert arguments[:2] == ["-mode", "batch"]
    assert (folder / arguments[arguments.index("-source") + 1]).is_file()


def test_bambu_is_called(design: Path, tools: Path) -> None:
    make(design, "bambu")
    arguments, folder = call(tools, "bambu")
    sources = [folder / argument for argument in arguments if argument.endswith(".cpp")]
    assert [path.name for path in sources] == list(hls.SOURCES)
    assert all(path.is_file() for path in sources)
    includes = [argument.removeprefix("-I") for argument in arguments if argument.startswith("-I")]
    assert [(folder / path / "platform_bambu.hpp").is_file() for path in includes] == [True]
    assert {f"--top-fname={hls.TOP}", "-DINTAGLIO_BAMBU", "--clock-period=4.000"} <= set(arguments)


def test_csim_is_built(design: Path) -> None:
    make(design, "csim")
    assert (design / "hls" / "csim").is_file()
    make(design, "clean")
    assert not (design / "hls" / "csim").exists()


HARNESS = r"""
lassign $argv_ script record
set record [open $record w]
proc recorded {words} {
    global record answers
    puts $record [join [lmap word $words {binary encode hex [encoding convertto utf-8 ":$word"]}]]
    foreach {start answer} $answers {
        if {[string first $start [join $words]] == 0} {return $answer}
    }
    return it
}
proc unknown args {recorded $args}
proc exit args {recorded [list exit {*}$args]}
try {source $script} finally {close $record}
"""


class Shell:
    """A Tcl shell in which every command that Tcl does not know is recorded, and answered from `answers`."""

    def __init__(self, folder: Path, answers: dict[str, str]) -> None:
        self.folder = folder
        self.answers = answers
        self.calls: list[list[str]] = []

    def run(self, script: Path) -> None:
        """Raises RuntimeError with what Tcl says where the script stops with an error."""
        harness, record = self.folder / "harness.tcl", self.folder / "calls.txt"
        given = [script, record], [word for pair in self.answers.items() for word in pair]
        names = ("argv_", "answers")
        lists = "".join(f"set {name} {_quoted(words)}\n" for name, words in zip(names, given, strict=True))
        harness.write_text(lists + HARNESS)
        done = subprocess.run([*_tcl(), str(harness)], capture_output=True, text=True, check=False)
        lines = record.read_text().splitlines()
        self.calls = [[bytes.fromhex(word).decode()[1:] for word in line.split()] for line in lines]
        if done.returncode:
            raise RuntimeError(done.stderr)

    def of(self, name: str) -> list[list[str]]:
        return [words[1:] for words in self.calls if words and words[0] == name]


def _quoted(words: Iterable[object]) -> str:
    """A Tcl list of words without braces and backslashes."""
    return f"[list {' '.join(f'{{{word}}}' for word in words)}]"


def _tcl() -> list[str]:
    """What runs a Tcl script: tclsh, or Python's own Tcl."""
    if shutil.which("tclsh"):
        return ["tclsh"]
    if find_spec("_tkinter"):
        return [sys.executable, "-c", "import sys, tkinter; tkinter.Tcl().call('source', sys.argv[1])"]
    pytest.skip("tclsh is not installed")


def test_vitis_script(design: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(design)
    monkeypatch.setenv("INTAGLIO_CSIM", "program weights input output")
    shell = Shell(design, {})
    shell.run(design / "flow" / "vitis_hls.tcl")
    added = [Path(next(word for word in words if word.endswith(".cpp"))) for words in shell.of("add_files")]
    assert [path.name for path in added] == [*hls.SOURCES, hls.TEST_BENCH]
    assert all(path.is_file() for path in added)
    assert shell.of("set_top") == [[hls.TOP]]
    assert shell.of("set_part") == [[PART]]
    assert shell.of("create_clock") == [["-period", "4.000ns", "-name", "default"]]
    assert shell.of("csim_design") == [["-argv", "program weights input output"]]
    order = [words[0] for words in shell.calls if words]
    assert order.index("csim_design") < order.index("csynth_design") < order.index("export_design")


def test_vivado_script(design: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(design)
    (design / "flow" / "build" / "hls" / "solution" / "impl" / "ip").mkdir(parents=True)
    shell = Shell(design, {"get_property PROGRESS": "100%", "get_bd_": "net"})
    shell.run(design / "flow" / "vivado.tcl")
    created = [words[-1] for words in shell.of("create_bd_cell")]
    assert created == [
        "zynq",
        "accelerator",
        "reset",
        "control",
        "memory_0",
        "memory_1",
        "memory_2",
        "memory_3",
    ]
    pins = {words[0] for words in shell.of("get_bd_intf_pins")}
    top = (design / "hls" / "accelerator.cpp").read_text()
    masters = {pin for pin in pins if pin.startswith("accelerator/m_axi_")}
    assert masters == {f"accelerator/m_axi_{name}" for name in ("weights_0", "weights_1", "io", "program")}
    assert all(f", {pin.removeprefix('accelerator/m_axi_')}, " in top for pin in masters)
    assert [words[:3] for words in shell.of("launch_runs")] == [["impl_1", "-to_step", "write_bitstream"]]
    assert len(shell.of("write_hw_platform")) == 1


@pytest.mark.parametrize(
    ("answers", "is_built", "message"),
    [
        ({}, False, r"does not exist: run vitis_hls\.tcl first\."),
        ({"get_board_parts": ""}, True, r"Vivado has no board files of zcu104"),
        ({"get_property STATUS": "route failed"}, True, r"implementation failed: route failed"),
    ],
)
def test_vivado_script_stops(
    design: Path, answers: dict[str, str], is_built: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(design)
    if is_built:
        (design / "flow" / "build" / "hls" / "solution" / "impl" / "ip").mkdir(parents=True)
    shell = Shell(design, answers)
    with pytest.raises(RuntimeError, match=message):
        shell.run(design / "flow" / "vivado.tcl")


def test_only_zynq_ultrascale_gets_a_block_design() -> None:
    files = flow.emit(PRESETS["tiny"], "xc7z020clg400-1", "pynq-z2", 100)
    assert "flow/vivado.tcl" not in files
    assert "bitstream" not in files["flow/Makefile"]
