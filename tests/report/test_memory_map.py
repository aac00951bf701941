"""Lifetimes of tensors in the accelerator's memories."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import Descriptor
from intaglio.backends.fpga.touches import touches
from intaglio.report import Facts
from intaglio.report.memory_map import MemoryMap, Region, memory_maps

TINY = PRESETS["tiny"]


def rows(addr: int, words: int, bank: int = 0) -> Descriptor:
    return Descriptor("LOAD_ROWS", {"offset": 0, "addr": addr, "words": words, "bank": bank})


def store(addr: int, words: int, bank: int = 0) -> Descriptor:
    return Descriptor("STORE", {"offset": 0, "addr": addr, "words": words, "bank": bank, "row": 0})


def bank(program: list[Descriptor], times: list[tuple[float, float]], name: str = "A") -> MemoryMap:
    return next(found for found in memory_maps(program, TINY, times) if found.name == name)


def test_a_tensor_lives_from_its_write_to_its_last_read() -> None:
    program = [rows(4, 2), store(4, 1), store(5, 1), store(4, 2, bank=1)]
    found = bank(program, [(0, 10), (10, 15), (15, 40), (40, 90)])
    assert [(r.writer, r.start, r.end, r.runs) for r in found.regions] == [
        (0, 0, 15, [(4, 1)]),
        (0, 0, 40, [(5, 1)]),
    ]
    assert (found.peak, found.top, found.cells) == (2, 6, TINY.a_words)


def test_new_contents_begin_when_the_old_ones_were_last_read() -> None:
    program = [rows(0, 4), store(0, 4), rows(2, 4), store(2, 4)]
    found = bank(program, [(0, 10), (10, 30), (5, 35), (35, 50)])
    assert sorted((r.writer, r.start, r.end, tuple(r.runs)) for r in found.regions) == [
        (0, 0, 30, ((0, 2),)),
        (0, 0, 30, ((2, 2),)),
        (2, 5, 50, ((4, 2),)),
        (2, 30, 50, ((2, 2),)),
    ]
    assert found.peak == 6


def test_cells_apart_are_one_tensor() -> None:
    gemm = Descriptor(
        "GEMM",
        {"a_addr": 0, "a_stride": 2, "rows": 8, "k_steps": 2, "groups": 2, "o_addr": 10, "o_stride": 4},
    )
    found = bank([rows(0, 4), gemm, store(10, 6)], [(0, 5), (5, 20), (20, 30)])
    (result,) = (r for r in found.regions if r.writer == 1)
    assert (result.start, result.end, result.runs) == (5, 30, [(10, 1), (14, 1)])


def test_heads_that_take_turns_are_read_to_the_attentions_end() -> None:
    """COPY_KV of a later head stands behind the ATTENTION in the program and ends before it."""
    copy = Descriptor("COPY_KV", {"addr": 0, "stride": 1, "rows": 8, "chunks": 1, "entry": 0})
    attention = Descriptor(
        "ATTENTION",
        {
            "heads": 3, "rows": 4, "keys": 8, "qk_steps": 1, "v_words": 1, "entry": 0, "entry_step": 2, "v_entry": 1,
            "q_addr": 0, "q_stride": 3, "o_addr": 100, "o_stride": 3,
        },
    )  # fmt: skip
    found = bank([copy, attention, copy], [(0, 10), (10, 90), (40, 50)], "weights")
    assert [(r.writer, r.start, r.end) for r in found.regions] == [(0, 0, 50), (2, 50, 90)]


def occupied(regions: list[Region], time: float, cells: int) -> np.ndarray:
    """How many tensors hold each cell at a time."""
    held = np.zeros(cells, np.int64)
    for region in regions:
        if region.start < time < region.end:
            for first, count in region.runs:
                held[first : first + count] += 1
    return held


def test_no_cell_holds_two_tensors_at_a_time(facts: Facts) -> None:
    assert [memory.name for memory in facts.memories] == ["A", "X", "weights"]
    for memory in facts.memories:
        borders = sorted({time for region in memory.regions for time in (region.start, region.end)})
        most = 0
        for early, late in pairwise(borders):
            held = occupied(memory.regions, (early + late) / 2, memory.cells)
            assert held.max() <= 1
            most = max(most, int(held.sum()))
        assert most == memory.peak


def test_everything_that_is_read_lies_there(facts: Facts) -> None:
    """What a descriptor reads of bank A and X is held by a tensor when it ends."""
    timing = facts.timing
    assert timing is not None
    for memory in facts.memories[:2]:
        for index, d in enumerate(facts.program):
            read = [t for t in touches(d, facts.compiled.config) if t.space == memory.name and not t.write]
            wanted = {int(cell) for touch in read for cell in touch.cells.reshape(-1)}
            end = timing.spans[index].end
            held = {
                cell
                for region in memory.regions
                if region.start < end <= region.end
                for first, count in region.runs
                for cell in range(first, first + count)
            }
            assert wanted <= held, (index, d.kind)


@pytest.mark.parametrize("name", ["A", "X", "weights"])
def test_shares_are_of_the_memory(facts: Facts, name: str) -> None:
    memory = next(m for m in facts.memories if m.name == name)
    assert 0 < memory.share == memory.peak / memory.cells <= 1
