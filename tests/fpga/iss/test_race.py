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


def spilling(*descriptors):
    """A simulator with a spill area of 128 bytes after 64 of result."""
    weights = bytes(range(256)) * 64
    return Simulator(CONFIG, ProgramFile(CONFIG.hash, 0, 192, len(weights), descriptors, 128), weights)


SPILL = Descriptor("STORE", {"words": 4, "offset": 64, "all_rows": 1}, {"io": (1, 0)})
FILL = Descriptor("LOAD_ROWS", {"words": 4, "offset": 64, "spilled": 1, "addr": 9}, {"io": (2, 0)})
LAST = Descriptor("STORE", {"words": 4, "addr": 9, "row": 2}, {"io": (3, 0)})


def test_spilled_words_come_back():
    """Whole words go to external memory and come back to another place."""
    for order in ("program", "random"):
        result = spilling(load(), SPILL, FILL, LAST).run(b"", order=order)
        # Row 2 of a word of 4 rows of 8 bytes, four words of 32 bytes.
        expected = [bytes(range(32 * word + 16, 32 * word + 24)) for word in range(4)]
        assert result == b"".join(expected).ljust(64, b"\0")


def test_a_fill_waits_for_its_spill():
    late = replace(FILL, waits={"io": (1, 0)})
    for seed in range(5):
        with pytest.raises(
            IssError, match=r"descriptor 2 \(LOAD_ROWS\): it reads beat 8 of the output in a race with io"
        ):
            spilling(load(), SPILL, late, LAST).run(b"", order="random", seed=seed)


def test_what_nothing_defined_stays_undefined():
    """A spill copies words of which only some rows are written, and words that were never spilled hold nothing."""
    for descriptors in ([load(words=3), SPILL, FILL, LAST], [load(), FILL, LAST]):
        again = [replace(d, waits={"io": (i, 0)}) if i else d for i, d in enumerate(descriptors)]
        with pytest.raises(
            IssError, match=r"STORE.* it reads row 2 of word \d+ of bank A, which nothing has written"
        ):
            spilling(*again).run(b"")


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
