"""What random order and the race detector find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import Descriptor, ProgramFile
from intaglio.hw.iss import IssError, Simulator
from intaglio.hw.iss.random_program import random_program

CONFIG = PRESETS["tiny"]


def simulator(*descriptors):
    weights = bytes(1 << 14)
    return Simulator(CONFIG, ProgramFile(CONFIG.hash, 0, 64, len(weights), descriptors), weights)


def load(waits=None, **fields):
    return Descriptor("LOAD_ROWS", {"words": 4} | fields, waits or {})


def race(match, *descriptors):
    for seed in range(5):
        with pytest.raises(IssError, match=match):
            simulator(*descriptors).run(b"", order="random", seed=seed)


NORM = Descriptor("LOAD_NORM", {"channels": 8})
LAYERNORM = {"channels": 8, "rows": 16, "shift": 1, "x_stride": 1, "o_stride": 1, "o_addr": 100}


def test_a_unit_looks_ahead():
    store = Descriptor("STORE", {"words": 4})
    race(
        r"descriptor 1 \(STORE\): it reads row 0 of word 0 of bank A in a race with io: no wait .* io has reached 1",
        load(),
        store,
    )
    simulator(load(), replace(store, waits={"io": (1, 0)})).run(b"", order="random")


def test_read_before_write():
    waits = {"io": (1, 0)}
    race(
        r"descriptor 2 \(LAYERNORM\): it reads row .*(in a race with io: .* has reached 2|nothing has written)",
        NORM, load(bank=1), Descriptor("LAYERNORM", LAYERNORM, waits),
    )  # fmt: skip


def test_write_before_read():
    """The rows of x are overwritten while LayerNorm may still read them."""
    norm = Descriptor("LAYERNORM", LAYERNORM, {"io": (2, 0)})
    again = load({"vu": (3, 0)}, bank=1)
    message = r"descriptor 3 \(LOAD_ROWS\): it writes row 0 of word 3 of bank X in a race with vu: .* vu has reached 4"
    race(f"{message}|LAYERNORM.* in a race with io: .* io has reached 3", NORM, load(bank=1), norm, again)
    simulator(NORM, load(bank=1), norm, replace(again, waits={"vu": (4, 0)})).run(b"", order="random")


def test_tile_by_tile():
    """x arrives in four loads, a row tile each; the wait grows with the tile, by enough or not."""
    loads = [load(bank=1, addr=i, words=1) for i in range(4)]
    simulator(NORM, *loads, Descriptor("LAYERNORM", LAYERNORM, {"io": (2, 1)})).run(b"", order="random")
    race("race with io|nothing has written", NORM, *loads, Descriptor("LAYERNORM", LAYERNORM, {"io": (2, 0)}))


def test_waits_are_transitive():
    """STORE waits for vu alone, and vu for the loads."""
    norm = Descriptor("LAYERNORM", LAYERNORM, {"io": (2, 0)})
    store = Descriptor("STORE", {"words": 1, "bank": 1}, {"vu": (1, 0)})
    simulator(NORM, load(bank=1), norm, store).run(b"", order="random")
    race(
        "it reads row 0 of word 0 of bank X in a race with io",
        NORM,
        load(bank=1),
        norm,
        replace(store, waits={}),
    )


@pytest.mark.parametrize("seed", range(3))
def test_removed_waits(seed):
    """Without one of its waits a program is refused, or gives the same bytes because other waits imply it."""
    program, weights, image = random_program(CONFIG, seed, size=3)
    expected = Simulator(CONFIG, program, weights).run(image)
    refused = total = 0
    for index, d in enumerate(program.descriptors):
        for unit in d.waits:
            total += 1
            waits = {other: wait for other, wait in d.waits.items() if other != unit}
            descriptors = [*program.descriptors]
            descriptors[index] = replace(d, waits=waits)
            changed = Simulator(CONFIG, replace(program, descriptors=descriptors), weights)
            try:
                assert changed.run(image, order="random", seed=total) == expected
            except IssError:
                refused += 1
    assert refused >= 5
