"""The board targets: complete, within their boards, and as docs/boards.md says."""

from __future__ import annotations

import tomllib
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from intaglio import target
from intaglio.accelerator.config import AcceleratorConfig
from intaglio.resources import data_folder

BOARDS = (
    "zcu102", "zcu104", "kv260", "ultra96v2", "pynq-z2", "u50", "u250", "u280", "vck190", "arty-a7", "ulx3s",
)  # fmt: skip
FAMILIES = {"ultrascale+": "dsp48e2", "7-series": "generic", "versal": "generic", "ecp5": "generic"}
FACTS = ("part", "family", "luts", "ffs", "dsps", "bram36", "urams", "bandwidth_gb_s", "latency_ns")
BRAM18_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096))


class Budget(NamedTuple):
    """What a configuration is expected to take, by the rules of docs/boards.md."""

    dsps: int
    bram36: float
    urams: int


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((data_folder("targets") / f"{name}.toml").read_text())


def brams(bits: int, depth: int) -> float:
    """BRAM36 of one memory; halves are BRAM18."""
    return min(ceil(bits / width) * ceil(depth / words) for width, words in BRAM18_SHAPES) / 2


def budget(config: AcceleratorConfig, has_urams: bool) -> Budget:
    banks = (config.a_words, config.x_words)
    if has_urams:
        in_bram, urams = 0.0, sum(ceil(config.word_bytes / 8) * ceil(words / 4096) for words in banks)
    else:
        bits = 8 * config.word_bytes
        in_bram, urams = sum(max(ceil(words * bits / 32768), ceil(bits / 72)) for words in banks), 0
    granule = max(config.rows, 4)
    weights = config.entry_bytes // granule * brams(8 * granule, config.weight_entries)
    tables = config.lanes
    params = brams(64 * config.group, config.param_groups) + brams(128, config.norm_channels)
    macs = config.macs // 2 if config.multiplier == "dsp48e2" else config.macs
    return Budget(macs + 4 * config.lanes + 6 * config.rows, in_bram + weights + tables + params, urams)


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
    values = read(name)
    board, config = values["board"], AcceleratorConfig(**values["accelerator"])
    assert config.multiplier == FAMILIES[board["family"]]
    need = budget(config, board["urams"] > 0)
    # The ZCU102 is filled on purpose.
    assert need.dsps <= (0.95 if name == "zcu102" else 0.85) * board["dsps"]
    assert need.bram36 <= 0.85 * board["bram36"]
    assert need.urams <= 0.85 * board["urams"]


def test_the_zcu102_is_the_default_with_more_weights() -> None:
    config = AcceleratorConfig(**read("zcu102")["accelerator"])
    assert config == AcceleratorConfig(weight_entries=1536)
    assert config.macs == 4096
    assert budget(config, False).dsps <= 0.6 * config.macs


def test_the_table_of_configurations_is_up_to_date(root: Path) -> None:
    text = (root / "docs/boards.md").read_text()
    for name in BOARDS:
        assert row(name) in text, f"docs/boards.md lacks or has another row than\n{row(name)}"


def row(name: str) -> str:
    """One line of the second table of docs/boards.md."""
    values = read(name)
    board, config = values["board"], AcceleratorConfig(**values["accelerator"])
    need = budget(config, board["urams"] > 0)
    shape = f"{config.rows} x {config.cols} x {config.depth}"
    peak = f"{2 * config.macs * config.clock_mhz / 1e6:.2f}"
    urams = share(need.urams, board["urams"]) if board["urams"] else "-"
    return (
        f"| {name} | {shape} | {config.macs:,} | {config.clock_mhz} | {peak} | {config.weight_ports} x "
        f"{config.axi_bits} | {share(need.dsps, board['dsps'])} | {share(need.bram36, board['bram36'])} | {urams} |"
    )


def share(need: float, have: int) -> str:
    """Amount and percentage."""
    return f"{need:,g} ({100 * need / have:.0f} %)"
