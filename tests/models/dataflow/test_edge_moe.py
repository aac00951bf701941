"""Edge-MoE's design file against its loops, worked out by hand from its source; and other designs' switches."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np
import pytest

from intaglio import toml_file
from intaglio.errors import InputError, UnsupportedError
from intaglio.hw.dataflow import Design, evaluate, find, recorded, spread
from intaglio.hw.dataflow.design import FOLDER
from intaglio.hw.dataflow.workload import Attention, Elementwise, Gate, Linear, Mixture, PatchEmbed, Work

TOKENS, CHANNELS = 129, 192
MIXTURE = Mixture("moe", TOKENS, CHANNELS, 384, 16, 2)
RECORDED = [0, 6, 0, 32, 0, 27, 15, 24, 22, 19, 0, 22, 11, 33, 32, 15]
"""Of Edge-MoE's example image, layer 1, first task."""


@pytest.fixture(scope="module")
def design() -> Design:
    """Edge-MoE with a memory that answers at once: what remains are loops and ports."""
    return changed(find("edge-moe"), memory={"latency": 0})


def changed(design: Design, **parts: dict[str, object]) -> Design:
    values = design.model_dump()
    for name, part in parts.items():
        values[name] |= part
    return Design.model_validate(values)


def cycles(design: Design, *work: Work, tokens: list[list[int]] | None = None) -> int:
    return evaluate(design, work, tokens or []).cycles


def test_it_ships() -> None:
    assert "edge-moe" in toml_file.names(FOLDER)
    assert find("edge-moe").published


def test_linear(design: Design) -> None:
    """129 x 12 x 12 blocks, after a load of 36,864 weights and 192 biases, 8 a cycle."""
    assert cycles(design, Linear("q", TOKENS, CHANNELS, CHANNELS)) == TOKENS * 144 + 36_864 // 8 + 24
    assert cycles(design, Linear("fc1", TOKENS, CHANNELS, 768)) == TOKENS * 576 + 147_456 // 8 + 96


def test_attention(design: Design) -> None:
    """33 blocks of 4 queries x 129 keys x 24 words, twice: 2 cycles a word on a port of 128 bits, 1 on 256."""
    one = Attention("attention", TOKENS, TOKENS, 3, 64)
    assert cycles(design, one) == 2 * 204_336
    assert cycles(changed(design, memory={"port_bits": 256}), one) == 2 * 102_168
    assert cycles(changed(design, attention={"keys": "kept"}), one) == 2 * 102_168
    bounds = [evaluate(d, [one]).by_bound() for d in (design, changed(design, attention={"keys": "kept"}))]
    assert [list(bound) for bound in bounds] == [["memory"], ["compute"]]


def test_patch_embedding(design: Design) -> None:
    one = PatchEmbed("patches", 128, 768, CHANNELS)
    assert cycles(design, one) == 73_728
    loaded = changed(design, patch_embed={"weights": "loaded"})
    assert cycles(loaded, one) == 73_728 + 768 * 192 // 8


def test_elementwise() -> None:
    """24 words of 256 bits a token take 48 cycles of a port; LayerNorm waits for every token's burst."""
    design = find("edge-moe")
    assert cycles(design, Elementwise("add", "add", TOKENS, CHANNELS)) == TOKENS * 48 + 64
    assert cycles(design, Elementwise("norm", "layernorm", TOKENS, CHANNELS)) == TOKENS * (48 + 64)


def by_hand(tokens: list[int], port: int = 128) -> int:
    """load + sum over experts of max(first product, second load) + max(second product, next first load)."""
    loads = (ceil((CHANNELS + 1) * 384 * 16 / port), ceil(385 * CHANNELS * 16 / port))
    active = [n for n in tokens if n]
    total = loads[0]
    for n, following in zip(active, [*active[1:], 0], strict=True):
        compute = max(288 * n, n * 384 * 32 // port)
        total += max(compute, loads[1]) + max(compute, loads[0] if following else 0)
    return total


@pytest.mark.parametrize("tokens", [RECORDED, spread([MIXTURE], "uniform")[0], spread([MIXTURE], "worst")[0]])
@pytest.mark.parametrize("port", [128, 256])
def test_experts(design: Design, tokens: list[int], port: int) -> None:
    clear = TOKENS * CHANNELS * 32 // port
    found = cycles(changed(design, memory={"port_bits": port}), MIXTURE, tokens=[tokens])
    assert found == clear + by_hand(tokens, port)


def test_experts_with_serial_loads(design: Design) -> None:
    serial = cycles(changed(design, linear={"expert_loads": "serial"}), MIXTURE, tokens=[RECORDED])
    assert serial - cycles(design, MIXTURE, tokens=[RECORDED]) > 11 * 9_216


def test_loads_overlap_what_came_before(design: Design) -> None:
    overlapped = changed(design, linear={"dense_loads": "overlapped"})
    work = [Linear("q", TOKENS, CHANNELS, CHANNELS), Linear("k", TOKENS, CHANNELS, CHANNELS)]
    load = 36_864 // 8 + 24
    assert cycles(design, *work) - cycles(overlapped, *work) == load


def test_gate(design: Design) -> None:
    one = Gate("gate", TOKENS, CHANNELS, 16)
    assert cycles(design, one) == CHANNELS * 16 // 8 + TOKENS * 48
    values = design.model_dump(exclude={"gate"})
    with pytest.raises(UnsupportedError, match="'gate' chooses experts, the design 'edge-moe' has no router"):
        evaluate(Design.model_validate(values), [one])


def test_nothing_takes_longer_than_the_worst_routing() -> None:
    design = find("edge-moe")
    (worst,) = spread([MIXTURE], "worst")
    limit = cycles(design, MIXTURE, tokens=[list(worst)])
    rng = np.random.default_rng(0)
    for _ in range(200):
        shares = rng.dirichlet(np.full(16, rng.choice([0.1, 1.0, 10.0])))
        experts = np.array(
            [rng.choice(16, 2, replace=False, p=(shares + 1e-9) / (shares + 1e-9).sum()) for _ in range(129)]
        )
        tokens = np.bincount(experts.reshape(-1), minlength=16).tolist()
        assert cycles(design, MIXTURE, tokens=[tokens]) <= limit


def test_spread_routings_are_routings() -> None:
    for how in ("uniform", "worst"):
        assert recorded([MIXTURE], spread([MIXTURE], how)) == spread([MIXTURE], how)


@pytest.mark.parametrize(
    ("routing", "sentence"),
    [
        ([], "the model has 1 mixtures of experts, the recording 0"),
        ([[1] * 16], "sends 129 tokens to 2 of 16 experts, the recording has"),
        ([[258] + [0] * 15], "sends 129 tokens"),
        ([[0] * 16 + [258]], "sends 129 tokens"),
        ([[129, 129]], "sends 129 tokens"),
    ],
)
def test_a_routing_of_another_model(routing: list[list[int]], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        recorded([MIXTURE], routing)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("clock_mhz = 300", ""), "key 'clock_mhz' is missing"),
        (("lanes = 8\nburst", "lane = 8\nburst"), "key 'layernorm.lanes' is missing"),
        (("clock_mhz = 300", "clock_mhz = 300\nspeed = 1"), "key 'speed' is unknown"),
        (
            ("passes = 2", "passes = 0"),
            "key 'attention.passes': input should be greater than or equal to 1, not 0",
        ),
        (("passes = 2", "passes ="), "is not valid TOML"),
    ],
)
def test_files_with_mistakes(root: Path, tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    text = (root / "hw_models/intaglio/hw/designs/edge-moe.toml").read_text()
    assert change[0] in text
    (tmp_path / "mine.toml").write_text(text.replace(*change))
    with pytest.raises(InputError, match=sentence):
        find(str(tmp_path / "mine.toml"))


def test_unknown_designs() -> None:
    with pytest.raises(InputError, match=r"no design 'edge-mo'; known: edge-moe, or give the path"):
        find("edge-mo")
    with pytest.raises(InputError, match="there is no such design file"):
        find("/no/such.toml")
