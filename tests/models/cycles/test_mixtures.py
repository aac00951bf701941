"""Mixtures of experts, tasks and spilled words in the cycle model: by hand, by brute force, and what always holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import Descriptor
from intaglio.errors import InputError
from intaglio.hw.cycles import bank, predict
from intaglio.hw.cycles.moves import moved
from intaglio.hw.cycles.routing import assumed
from intaglio.simulation.frame import MemoryModel

TINY = PRESETS["tiny"]
MEMORY = MemoryModel(latency=20, bytes_per_cycle=8.0)
ROUTE = Descriptor("ROUTE", {"rows": 10, "experts": 6, "k": 2, "wide": 1, "stride": 2})
LENGTHS = [9, 5, 3, 2, 1, 0]


def queued(kind: str, expert: int, **fields: int) -> Descriptor:
    """A descriptor of an expert, after ROUTE."""
    return Descriptor(kind, {"queue": 1 + expert, "rows": 10, **fields}, {"cp": (1, 0)})


# ------------------------------------------------------------------------------------------------------- MOVE_ROWS

runs = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), max_size=8)


def usage(steps: list[tuple[int, int]]) -> bank.Usage:
    found, time = bank.Usage(), 0
    for gap, width in steps:
        found.add(time + gap, width)
        time += gap + width
    return found


def brute_force(reader: set[int], writer: set[int], first: int, count: int) -> tuple[list[int], int]:
    """Cycle by cycle: a queue whose words may be written from the third cycle after their read on; 5 places."""
    reads: list[int] = []
    written: list[int] = []
    cycle = first
    while len(written) < count:
        waiting = reads[len(written) :]
        room = len(reads) - sum(time < cycle for time in written) < 5
        if waiting and cycle >= waiting[0] + 3 and cycle not in writer:
            written.append(cycle)
        if len(reads) < count and room and cycle not in reader:
            reads.append(cycle)
        cycle += 1
    return reads, written[-1]


@given(runs, st.lists(runs, min_size=1, max_size=3), st.integers(0, 30), st.integers(1, 40))
def test_moved_words(reader: list, writers: list, first: int, count: int) -> None:
    ports = [usage(reader)], [usage(one) for one in writers]
    taken = [
        {cycle for one in port for begin, end in one.intervals(-1) for cycle in range(begin, end)}
        for port in ports
    ]
    reads, last = moved(*ports, first, count)
    found = [cycle for begin, end in reads for cycle in range(begin, end)]
    assert (found, last) == brute_force(*taken, first, count)


def test_a_move_and_an_empty_one() -> None:
    move = [queued("MOVE_ROWS", expert, chunks=3) for expert in (0, 5)]
    spans = predict([ROUTE, *move], TINY, MEMORY, [LENGTHS]).spans
    # The first read 6 cycles after the waits are met, progress 4 after the last; the unit is free after that read.
    first = spans[0].end + 6
    last = first + 9 * 3 - 1
    assert spans[1].end == last + 4
    # It is taken up when everything is written, 3 cycles after the last read, and its end shows in the next cycle.
    assert spans[2].end == last + 5
    alone = predict([ROUTE, move[1]], TINY, MEMORY, [LENGTHS]).spans
    assert alone[1].end == alone[0].end + 3


# ------------------------------------------------------------------------------------------------- ROUTE, COMBINE


@pytest.mark.parametrize(("experts", "wide", "rows"), [(6, 1, 10), (8, 0, 4), (1, 0, 1), (5, 1, 256)])
def test_route(experts: int, wide: int, rows: int) -> None:
    """As route_unit says of itself: a token takes `experts` + 1 cycles, a row tile one more."""
    fields = {"rows": rows, "experts": experts, "k": 1, "wide": wide, "stride": 2}
    tokens = [rows] + [0] * (experts - 1)
    (span,) = predict([Descriptor("ROUTE", fields)], TINY, MEMORY, [tokens]).spans
    words = -(-experts // (4 if wide else 8))
    assert span.cycles == rows * (experts + 1) + -(-rows // 4) + words + experts + 9


def test_combine() -> None:
    """A row tile by hand: totals, their division, then a word and two steps per slot and column tile."""
    combine = Descriptor("COMBINE", {"rows": 4, "k": 3, "groups": 4, "shift": 1})
    found = predict([combine], TINY, MEMORY)
    (span,) = found.spans
    # Totals asked for in cycle 3, summed in 5, divided from 6 on; planned when 6 steps of 26 remain, and the array
    # takes its job in the next cycle but one: 2 tiles of 3 slots, of 3 cycles each. Then as for a GEMM.
    planned = 3 + 2 + 1 + 26 - 6 + 1
    assert span.cycles == planned + 1 + 2 * 3 * 3 + 6 + 2 + 26
    assert found.array_steps == 2 * 3 * 2
    assert span.bound == "softmax"


def test_totals_wait_for_factors_of_the_fourth_before() -> None:
    combine = Descriptor("COMBINE", {"rows": 40, "k": 1, "groups": 2, "shift": 1})
    found = predict([combine], TINY, MEMORY)
    # Never faster than the division of a row tile, 27 cycles.
    assert found.cycles > 10 * 27


# ---------------------------------------------------------------------------------------------- what is left out


def test_experts_without_tokens() -> None:
    def layer(expert: int) -> list[Descriptor]:
        return [
            queued("LOAD_WEIGHTS", expert, entries=300),
            queued("LOAD_PARAMS", expert, groups=4),
            queued("LOAD_TABLE", expert),
            queued("GEMM", expert, groups=4, k_steps=12),
        ]

    program = [ROUTE, *layer(0), *layer(5)]
    found = predict(program, TINY, MEMORY, [LENGTHS])
    for loaded, skipped in zip(found.spans[1:4], found.spans[5:8], strict=True):
        assert loaded.cycles > 20
        assert skipped.cycles < 10
    # Taken in cycle 0, planned in 4, its one step in 6; array and FIFO 6, one group, post_process 26.
    assert found.spans[8].cycles <= 6 + 6 + 1 + 26
    # The steps of 9 rows in 3 row tiles, and one for the queue that is empty.
    assert found.array_steps == 3 * 2 * 12 + 1
    assert found.macs == 9 * 4 * 4 * 12 * 8
    # A GEMM with a queue waits once, and counts once.
    after = replace(queued("GEMM", 1, groups=2, k_steps=4), waits={"mm": (3, 0)})
    with pytest.raises(InputError, match=r"descriptor 9 \(GEMM\) never ends"):
        predict([*program, after], TINY, MEMORY, [LENGTHS])
    assert predict([*program, replace(after, waits={"mm": (2, 0)})], TINY, MEMORY, [LENGTHS])


def test_blocks_of_a_task() -> None:
    """A task's block lies elsewhere: here it crosses a page, so that there is a burst more."""
    fields = {"entry": 0, "entries": 16, "tasks": 2, "select": 63}
    spans = [
        predict([Descriptor("LOAD_WEIGHTS", fields)], TINY, MEMORY, task=task).spans[0] for task in (0, 1)
    ]
    other = predict([Descriptor("LOAD_WEIGHTS", {"entries": 16, "offset": 63 * 64})], TINY, MEMORY).spans[0]
    assert spans[0].cycles <= spans[1].cycles == other.cycles
    with pytest.raises(InputError, match=r"the task must be in 0\.\.1, not 2"):
        predict([Descriptor("LOAD_WEIGHTS", fields)], TINY, MEMORY, task=2)
    # The check multiplies for the block.
    assert spans[0].start == other.start + 4


def test_spilled_words() -> None:
    """A beat per row; not more bursts unanswered than the engine may have."""
    store = Descriptor("STORE", {"words": 64, "all_rows": 1})
    quick = predict([store], TINY, MemoryModel(latency=1, bytes_per_cycle=64.0)).spans[0]
    beats = 64 * TINY.rows
    assert beats < quick.cycles < beats + 30
    assert quick.bound == "port"
    far = predict([store], TINY, MemoryModel(latency=400, bytes_per_cycle=64.0)).spans[0]
    rounds = beats / (TINY.outstanding * TINY.burst)
    assert rounds * 400 < far.cycles < (rounds + 1) * 400 + beats
    slow = predict([store], TINY, MemoryModel(latency=1, bytes_per_cycle=2.0)).spans[0]
    assert 4 * beats < slow.cycles < 4 * beats + 30
    fill = Descriptor("LOAD_ROWS", {"words": 64, "spilled": 1}, {"io": (1, 0)})
    assert predict([store, fill], TINY, MEMORY).spans[1].cycles > beats


# -------------------------------------------------------------------------------------------------------- routings


@given(st.integers(1, 256), st.integers(1, 8), st.data())
def test_assumed_routings(rows: int, experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, min(4, experts)))
    route = Descriptor("ROUTE", {"rows": rows, "experts": experts, "k": k})
    (uniform,), = assumed([route], TINY, "uniform")  # fmt: skip
    assert max(uniform) - min(uniform) <= 1
    spread, crowded, same = (one[0] for one in assumed([route], TINY, "worst"))
    assert same == uniform
    for tokens in (uniform, spread, crowded):
        assert sum(tokens) == rows * k
        assert 0 <= min(tokens) <= max(tokens) <= rows
        # Every expert is loaded that can be.
        assert sum(n > 0 for n in tokens) == min(experts, rows * k)
    tiles = [sum(-(-n // TINY.rows) for n in tokens) for tokens in (uniform, spread, crowded)]
    assert max(tiles) == tiles[1]


def mixture(lengths: int = 6) -> list[Descriptor]:
    """Two experts' loads and products, and loads of the others."""
    program = [ROUTE]
    for expert in range(lengths):
        program += [
            queued("LOAD_WEIGHTS", expert, entries=60),
            replace(queued("GEMM", expert, groups=4, k_steps=20), waits={"dm": (1 + expert, 0)}),
        ]
    return program


def test_a_prediction_says_where_its_routing_comes_from() -> None:
    program = mixture()
    found = {how: predict(program, TINY, MEMORY, how) for how in ("uniform", "worst")}
    recorded = predict(program, TINY, MEMORY, [LENGTHS])
    assert found["worst"].cycles >= max(found["uniform"].cycles, recorded.cycles)
    assert found["uniform"].cycles != recorded.cycles
    assert recorded.as_json()["routing"] == {"how": "recorded", "tokens": [LENGTHS]}
    assert found["uniform"].as_json()["routing"] == {"how": "uniform", "tokens": [[4, 4, 3, 3, 3, 3]]}
    assert found["worst"].routed_by == "worst"
    load = [Descriptor("LOAD_WEIGHTS", {"entries": 3})]
    for plain in (predict(load, TINY, MEMORY), predict(load, TINY, MEMORY, "worst")):
        assert plain.as_json()["routing"] is None


@pytest.mark.parametrize(
    ("routing", "sentence"),
    [
        ([], "the program has 1 mixtures of experts, the routing 0"),
        ([LENGTHS, LENGTHS], "the program has 1 mixtures of experts, the routing 2"),
        ([[10, 10]], r"the routing of mixture 0 is \[10, 10\], but 10 tokens choose 2 of 6 experts each"),
        ([[11, 9, 0, 0, 0, 0]], "but 10 tokens choose 2 of 6"),
        ([[4, 4, 4, 4, 4, 4]], "but 10 tokens choose 2 of 6"),
        ([[0, 0, 0, 0, 0, 0, 10, 10]], "but 10 tokens choose 2 of 6"),
    ],
)
def test_a_routing_of_another_program(routing: list, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        predict(mixture(), TINY, MEMORY, routing)
