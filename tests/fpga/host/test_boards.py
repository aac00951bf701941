"""The board targets: complete, within their boards, and as docs/boards.md says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from intaglio import target
from intaglio.accelerator.config import AcceleratorConfig
from intaglio.estimate.resources import device_use
from intaglio.hw.resources import estimate_resources
from intaglio.resources import data_folder
from intaglio.use import Use, number

BOARDS = (
    "zcu102", "zcu104", "kv260", "ultra96v2", "pynq-z2", "u50", "u250", "u280", "vck190", "arty-a7", "ulx3s",
)  # fmt: skip
FAMILIES = {"ultrascale+": "dsp48e2", "7-series": "generic", "versal": "generic", "ecp5": "generic"}
FACTS = ("part", "family", "luts", "ffs", "dsps", "bram36", "urams", "bandwidth_gb_s", "latency_ns")
MOST = {"dsp": 0.96, "bram36": 0.95, "uram": 0.5, "lut": 0.75, "ff": 0.5}
"""Of what the board has: LUTs and FFs are wanted for routing too, DSPs and memory blocks are there to be used."""


def known(name: str) -> target.FpgaTarget:
    found = target.find(name)
    assert isinstance(found, target.FpgaTarget)
    return found


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((data_folder("targets") / f"{name}.toml").read_text())


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_target_is_complete(name: str) -> None:
    assert isinstance(target.find(name), target.FpgaTarget)
    values = read(name)
    assert (values["name"], values["kind"]) == (name, "fpga")
    assert tuple(fact for fact in values["board"] if fact != "clock_pin") == FACTS
    assert ("clock_pin" in values["board"]) == (values["board"]["family"] == "ecp5"), "nextpnr wants the pin"
    assert set(values["accelerator"]) == set(AcceleratorConfig.model_fields)


@pytest.mark.parametrize("name", BOARDS)
def test_the_description_states_the_shape(name: str) -> None:
    values = read(name)
    config = AcceleratorConfig(**values["accelerator"])
    shape = f"{config.rows} x {config.cols} x {config.depth} int8 MACs at {config.clock_mhz} MHz"
    assert values["description"].endswith(shape)


@pytest.mark.parametrize("name", BOARDS)
def test_the_accelerator_fits_its_board(name: str) -> None:
    found = known(name)
    assert found.accelerator.multiplier == FAMILIES[found.board.family]
    for resource, use in device_use(found.accelerator, found.board).uses.items():
        assert use.available is not None
        assert use.used <= MOST[resource] * use.available, resource


def test_the_zcu102_is_the_default_with_more_weights() -> None:
    config = AcceleratorConfig(**read("zcu102")["accelerator"])
    assert config == AcceleratorConfig(weight_entries=2048)
    assert config.macs == 4096
    assert estimate_resources(config, "ultrascale+").dsp <= 0.6 * config.macs


def test_the_table_of_configurations_is_up_to_date(root: Path) -> None:
    text = (root / "docs/boards.md").read_text()
    for name in BOARDS:
        assert row(name) in text, f"docs/boards.md lacks or has another row than\n{row(name)}"


def row(name: str) -> str:
    """One line of the second table of docs/boards.md."""
    board, config = known(name).board, known(name).accelerator
    shape = f"{config.rows} x {config.cols} x {config.depth}"
    peak = f"{2 * config.macs * config.clock_mhz / 1e6:.2f}"
    uses = device_use(config, board).uses
    amounts = " | ".join(share(uses[resource]) for resource in ("dsp", "bram36", "uram", "lut"))
    return (
        f"| {name} | {shape} | {config.macs:,} | {config.clock_mhz} | {peak} | {config.weight_ports} x "
        f"{config.axi_bits} | {amounts} |"
    )


def share(use: Use) -> str:
    """Amount and percentage."""
    return "-" if use.share is None else f"{number(use.used)} ({100 * use.share:.0f} %)"
