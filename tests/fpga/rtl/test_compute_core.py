"""The compute core against the specification: bits of every result, and how busy the array is."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio import target
from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.backends.fpga import rtl
from intaglio.simulation import verilator
from intaglio.synthesis import Design, synthesize
from tests.fpga.rtl import bench

pytestmark = pytest.mark.simulator

UNITS = (
    "compute_core",
    "mac_planner",
    "mac_unit",
    "mac_array",
    "post_process",
    "post_lane",
    "round_clamp",
    "softmax_unit",
    "combine_operands",
    "param_buffer",
    "table_ram",
)

NARROW = PRESETS["large"].model_copy(update={"rows": 2})
"""The large array's columns and depth, and so its schedule, at a quarter of the build time."""

CONFIGS = {"tiny": PRESETS["tiny"], "ecp5": PRESETS["ecp5"], "narrow": NARROW}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compute_core")


def _simulate(name: str, module: str, folder: Path, **env: str) -> None:
    config = CONFIGS[name]
    work = folder / name
    work.mkdir(exist_ok=True)
    bench.simulate(
        config,
        "compute_core_bench",
        module,
        work,
        extra=[bench.HERE / "compute_core_bench.sv"],
        env={"CONFIG": config.model_dump_json(), **env},
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_random_programs_give_the_bits_of_the_specification(name: str, folder: Path) -> None:
    _simulate(name, "cocotb_compute_core", folder, CASES="12")


@pytest.mark.parametrize("name", ["tiny", "narrow"])
def test_the_array_is_busy_and_waits_hold_it_back(name: str, folder: Path) -> None:
    _simulate(name, "cocotb_compute_core_busy", folder)


@pytest.mark.parametrize("name", ["tiny", "narrow"])
def test_queues_and_combine(name: str, folder: Path) -> None:
    _simulate(name, "cocotb_compute_core_mixture", folder, CASES="16")


@pytest.mark.parametrize("name", ["tiny", "ecp5", "medium", "large"])
def test_lint(name: str, tmp_path: Path) -> None:
    sources = bench.write(PRESETS[name], tmp_path)
    rtl = [path for path in sources if path.parent.name == "rtl"]
    for unit in UNITS:
        assert verilator.lint(rtl, unit) == "", unit
    # The cascade needs the cell's model.
    chain = [path for path in sources if path.stem in ("accel_pkg", "mac_chain", "dsp48e2_model")]
    assert verilator.lint(chain, "mac_chain") == ""


@pytest.mark.parametrize(("depth", "cols"), [(8, 8), (16, 16)])
def test_packed_array_equals_plain_array_cycle_by_cycle(depth: int, cols: int, tmp_path: Path) -> None:
    config = AcceleratorConfig(rows=2, cols=cols, depth=depth, weight_ports=1, multiplier="dsp48e2")
    bench.simulate(
        config, "mac_array_bench", "cocotb_mac_array", tmp_path, extra=[bench.HERE / "mac_array_bench.sv"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("depth", [8, 16])
def test_packed_array_is_one_dsp_per_two_products(depth: int, tmp_path: Path) -> None:
    config = AcceleratorConfig(rows=1, cols=depth, depth=depth, weight_ports=1, multiplier="dsp48e2")
    files = rtl.emit(config)
    design = Design(
        {name: files[name] for name in rtl.sources(files)}, "mac_array", None, target.find("zcu102")
    )
    report = synthesize(design, tmp_path)
    assert report.modules[0].total.dsp == config.macs // 2
