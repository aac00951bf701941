"""The parts of the cycle model against brute force, and what a prediction must keep to whatever the program."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import UNITS, Descriptor, ProgramFile
from intaglio.errors import InputError
from intaglio.hw.cycles import bank, predict
from intaglio.hw.cycles.clock import Clock
from intaglio.hw.cycles.machine import Machine
from intaglio.hw.cycles.memory import Burst, Port, Server, split
from intaglio.hw.cycles.sequencer import Sequencer
from intaglio.hw.cycles.vector import VU, Vector
from intaglio.simulate import macs
from intaglio.simulation.frame import MemoryModel

TINY = PRESETS["tiny"]
MEMORY = MemoryModel(latency=20, bytes_per_cycle=8.0)

runs = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 5), st.integers(0, 4), st.integers(1, 4)), max_size=6
)


def usage(steps: list[tuple[int, int, int, int]]) -> bank.Usage:
    """A usage from gaps, widths, gaps within a run and counts."""
    found, time = bank.Usage(), 0
    for gap, width, inner, count in steps:
        found.add(time + gap, width, width + inner, count)
        time += gap + count * (width + inner)
    return found


@given(st.lists(runs, min_size=1, max_size=3), st.integers(0, 60), st.integers(1, 20))
def test_free_cycles(steps: list, start: int, count: int) -> None:
    """Where two want the same cycle, one waits."""
    usages = [usage(part) for part in steps]
    asked = Counter(
        cycle for one in usages for begin, end in one.intervals(-1) for cycle in range(begin, end)
    )
    waiting, wanted = 0, []
    for cycle in range(start, start + 400):
        waiting += asked[cycle]
        if waiting:
            waiting -= 1
        else:
            wanted.append(cycle)
    wanted = wanted[:count]
    found = [cycle for begin, end in bank.free(usages, start, count) for cycle in range(begin, end)]
    assert found == wanted


@given(runs, st.integers(0, 40), st.integers(1, 12), st.integers(1, 5))
def test_accesses_that_come_slowly(steps: list, start: int, count: int, spacing: int) -> None:
    """One every `spacing` cycles; each waits for the one before and for a free cycle."""
    one = usage(steps)
    taken = {cycle for begin, end in one.intervals(-1) for cycle in range(begin, end)}
    time = start - 1
    for number in range(count):
        time = max(time + 1, start + number * spacing)
        while time in taken:
            time += 1
    assert bank.served([one], start, start + (count - 1) * spacing, count) == time


@given(st.integers(0, 1 << 16).map(lambda n: 8 * n), st.integers(1, 700))
def test_bursts(address: int, beats: int) -> None:
    bursts = split(address, beats, TINY)
    assert sum(bursts) == beats
    assert all(0 < size <= TINY.burst for size in bursts)
    for size in bursts:
        assert address // 4096 == (address + size * TINY.depth - 1) // 4096
        address += size * TINY.depth


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100), st.integers(1, 16)), min_size=1, max_size=20),
    st.sampled_from([0.2, 0.5, 1.0, 1.7, 8.0]),
)
def test_bandwidth(requests: list, capacity: float) -> None:
    """Nobody gets more than a beat a cycle, all together not more than the memory has, and the memory is never idle."""
    clock, served = Clock(), []
    server = Server(clock, capacity)
    ports = [Port(clock, server, 1, served.append) for _ in range(3)]
    requests.sort(key=lambda request: request[1])
    for port, due, beats in requests:
        clock.at(due, lambda port=port, due=due, beats=beats: ports[port].request(beats, due))
    clock.run()
    assert sorted(burst.beats for burst in served) == sorted(beats for _, _, beats in requests)
    total = sum(beats for _, _, beats in requests)
    first, last = min(due for _, due, _ in requests), max(burst.finish for burst in served)
    # A port that comes new is ahead of its share by less than a beat (`Server.enter`), and a beat may be saved.
    assert total <= capacity * (last - first) + 1 + len(requests) + 1e-3
    for burst in served:
        assert isinstance(burst, Burst)
        assert burst.start >= burst.due
        assert burst.finish - burst.start >= burst.beats - 1 - 1e-6
    if len(requests) == 1:
        assert last - first == pytest.approx(max(total, (total - 1) / capacity))


def gemm(rows: int, **fields: int) -> Descriptor:
    return Descriptor("GEMM", {"rows": rows, "groups": 4, "k_steps": 12, "shift": 1, **fields})


def weights(entries: int) -> Descriptor:
    return Descriptor("LOAD_WEIGHTS", {"entry": 0, "entries": entries})


def test_one_gemm() -> None:
    """By hand: 12 steps for each of 2 column tiles of 3 row tiles, then the pipelines of array and post_process."""
    d = gemm(3 * TINY.rows)
    found = predict([d], TINY, MEMORY)
    (span,) = found.spans
    steps = 3 * 2 * 12
    assert found.array_steps == steps
    # Taken in cycle 0, planned in 3, first step in 5; array and FIFO 6, the last tile's 2 groups, post_process 26.
    assert span.cycles == 5 + (steps - 1) + 6 + 2 + 26
    assert found.cycles == span.end + 1
    assert span.bound == "compute"
    assert found.macs == macs(ProgramFile(0, 0, 0, 0, [d]), TINY)
    assert found.utilization == found.macs / (found.cycles * TINY.macs)


def test_waiting_is_told_from_computing() -> None:
    program = [weights(500), replace(gemm(1), waits={"dm": (1, 0)})]
    load, product = predict(program, TINY, MEMORY).spans
    assert product.bound == "wait dm"
    assert product.end > load.end
    assert load.bound == "port"
    slow = predict(program, TINY, MemoryModel(latency=20, bytes_per_cycle=1.0)).spans
    assert slow[0].bound == "bandwidth"
    far = predict([weights(1)], TINY, MemoryModel(latency=500, bytes_per_cycle=64.0)).spans
    assert far[0].bound == "latency"


def test_a_page_border_in_one_port_s_part() -> None:
    """Two ports read 16 beats of 128 bytes each, a burst if no page begins in them, and one burst at a time."""
    config = PRESETS["medium"].model_copy(update={"outstanding": 1})
    offsets = (0, 4096 - 128, 4096 - 64, 4096 - 192)
    loads = [Descriptor("LOAD_WEIGHTS", {"entries": 2, "offset": offset}) for offset in offsets]
    times = [predict([load], config, MEMORY).spans[0].cycles for load in loads]
    assert times[0] == times[1]
    assert min(times[2:]) > times[0] + MEMORY.latency


def test_layernorm_waits_for_reads_of_residuals() -> None:
    """A product with as many steps as groups reads bank X in every cycle: LayerNorm's words come when it is over."""
    fields = {"o_bank": 1, "o_wide": 1, "r_wide": 1, "k_steps": 2}
    norm = Descriptor("LAYERNORM", {"rows": 4, "channels": 16}, {"mm": (1, 0)})
    free, held = (
        predict([norm, gemm(60 * TINY.rows, residual=one, **fields)], TINY, MEMORY).spans for one in (0, 1)
    )
    # The check of a residual takes a step more.
    assert held[1].end == free[1].end + 4
    # The last residual is read 12 cycles before the end shows. Two words in the next two cycles, 2 more to the first
    # channel; 16 channels, 94 cycles in series, 16 channels and their pipeline.
    last = held[1].end - 12
    assert held[0].end == last + 1 + 2 + 15 + 94 + 1 + 15 + 18
    assert free[0].end < held[0].end - 150


def test_a_store_waits_for_layernorm_s_reads_of_its_bank() -> None:
    """60 words are read a cycle each, but for those in which LayerNorm's sums and its results read bank X."""
    norm = Descriptor("LAYERNORM", {"rows": 12, "channels": 64, "x_wide": 1})
    store = Descriptor("STORE", {"words": 60, "bank": 1})
    alone, (_, beside) = (predict(program, TINY, MEMORY).spans for program in ([store], [norm, store]))
    assert 0 < beside.cycles - alone[0].cycles <= 2 * 60 // (TINY.group - 1)


@pytest.mark.parametrize("words", [2, 5])
def test_layernorm_holds_two_words(words: int) -> None:
    """The first words of a row tile are read when the last two of the one before are used up."""
    alone, both = (_normalized(tiles, words * TINY.group) for tiles in (1, 2))
    last = alone.popped[VU].times[0]  # channel of the first row tile
    reads = [begin for begin, _ in both.sum_reads.intervals(0)]
    assert len(reads) == 2 * words
    assert reads[words : words + 2] == [last - TINY.group + 1, last + 1]


def _normalized(tiles: int, channels: int) -> Machine:
    """After a LAYERNORM alone."""
    norm = Descriptor("LAYERNORM", {"rows": tiles * TINY.rows, "channels": channels, "x_wide": 1})
    machine = Machine([norm], TINY, MEMORY, [], 0)
    for process in (Sequencer(machine, [norm]).run(), Vector(machine).run()):
        machine.clock.start(process)
    machine.clock.run()
    return machine


def test_what_never_ends() -> None:
    with pytest.raises(InputError, match=r"descriptor 0 \(GEMM\) never ends: it waits for progress"):
        predict([replace(gemm(1), waits={"vu": (1, 0)})], TINY, MEMORY)


def test_rows_by_routing() -> None:
    with pytest.raises(InputError, match="depend on how many tokens choose expert 2"):
        predict([gemm(8, queue=3)], TINY, MEMORY)


def test_json_says_all() -> None:
    found = predict([weights(3), gemm(2)], TINY, MEMORY)
    values = found.as_json()
    assert values["cycles"] == found.cycles
    assert [d["kind"] for d in values["descriptors"]] == ["LOAD_WEIGHTS", "GEMM"]
    assert {d["unit"] for d in values["descriptors"]} <= set(UNITS)
    assert values["by_kind"] == {d["kind"]: d["cycles"] for d in values["descriptors"]}
    assert values["frames_per_second"] == pytest.approx(TINY.clock_mhz * 1e6 / found.cycles)
