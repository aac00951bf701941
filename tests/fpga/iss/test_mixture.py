"""Mixtures of experts and tasks on the simulator: values against the literal accelerator, and every refusal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor, ProgramFile
from intaglio.hw.iss import IssError, Simulator
from intaglio.hw.iss.random_data import Dice
from intaglio.hw.iss.random_mixture import logits
from intaglio.hw.iss.random_program import random_program
from intaglio.hw.iss.routing import RoutingRecord
from tests.fpga.iss.literal import Literal

CONFIG = AcceleratorConfig(
    rows=4, cols=8, depth=8, weight_entries=64, a_words=64, x_words=32, param_groups=16, norm_channels=64,
    table_slots=2, max_keys=32, weight_ports=1, experts=4,
)  # fmt: skip
CONFIGS = {name: PRESETS[name] for name in ("tiny", "medium", "large")} | {
    "narrow": AcceleratorConfig(
        rows=2, cols=16, depth=16, weight_entries=64, a_words=256, x_words=128, weight_ports=8, experts=5
    ),
    "one row": AcceleratorConfig(
        rows=1, cols=8, depth=8, a_words=512, weight_entries=64, weight_ports=1, max_keys=64
    ),
}

LOAD_A = Descriptor("LOAD_ROWS", {"words": 64})
TABLES = tuple(Descriptor("LOAD_TABLE", {"table": 3, "slot": slot, "offset": 1024}) for slot in range(2))
ROUTING = {"rows": 8, "stride": 1, "experts": 4, "k": 2, "normalize": 1}
MOVE = {"queue": 1, "s_addr": 0, "s_stride": 1, "o_addr": 8, "o_stride": 1, "rows": 8, "chunks": 1}
SCATTER = MOVE | {"scatter": 1, "k": 2, "slot_stride": 2}
GEMM = {"queue": 1, "k_steps": 1, "groups": 2, "rows": 8, "a_stride": 1, "o_addr": 8, "o_stride": 1}
COMBINE = {
    "a_stride": 1, "slot_stride": 2, "k": 2, "groups": 2, "o_addr": 8, "o_stride": 1, "rows": 8,
    "multiplier": 1, "shift": 1,
}  # fmt: skip
ROUTE = Descriptor("ROUTE", ROUTING)
BEFORE = (LOAD_A, *TABLES, ROUTE)


def run(*descriptors, config=CONFIG, weights=None, **options):
    weights = np.full(1 << 14, 65535, np.uint16).tobytes() if weights is None else weights
    program = ProgramFile(config.hash, 64, 64, len(weights), descriptors)
    return Simulator(config, program, weights).run(bytes(64), **options)


def fails(what, *descriptors, **options):
    with pytest.raises(IssError) as error:
        run(*descriptors, **options)
    d = descriptors[-1]
    assert str(error.value) == f"descriptor {len(descriptors) - 1} ({d.kind}): {what}"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(6))
def test_values(name, seed):
    """Every task, in program order and in random order."""
    config = CONFIGS[name]
    program, weights, image = random_program(config, seed, ["mixture"], size=2)
    simulator = Simulator(config, program, weights)
    for task in range(program.tasks):
        expected = Literal(config, program, weights, image, task).run()
        assert simulator.run(image, task=task) == expected
        assert simulator.run(image, order="random", seed=seed, task=task) == expected


def test_tasks_differ():
    programs = [random_program(CONFIGS["large"], seed, ["mixture"]) for seed in range(20)]
    for program, weights, image in (item for item in programs if item[0].tasks > 1):
        simulator = Simulator(CONFIGS["large"], program, weights)
        first = simulator.run(image)
        assert simulator.run(image, task=1) != first
        assert simulator.run(image) == first


def test_random_mixtures_are_varied():
    """Empty experts, experts that take all tokens, experts with one, k = experts: all of them occur."""
    seen = set()
    for seed in range(40):
        program, weights, image = random_program(CONFIGS["large"], seed, ["mixture"], size=2)
        record = RoutingRecord()
        Simulator(CONFIGS["large"], program, weights).run(image, trace=record)
        routes = [d for d in program.descriptors if d.kind == "ROUTE"]
        for d, routing in zip(routes, record.routings, strict=True):
            tokens = routing.tokens[: d["experts"]]
            assert sum(routing.tokens) == sum(tokens) == d["k"] * d["rows"]
            seen |= {"all" for n in tokens if n == d["rows"] and d["k"] < d["experts"]}
            seen |= {"none" for n in tokens if n == 0} | {"one" for n in tokens if n == 1}
            seen |= {"every"} if d["k"] == d["experts"] > 1 else set()
            seen |= {("k", d["k"]), ("normalize", d["normalize"]), ("wide", d["wide"])}
    assert {"all", "none", "one", "every", *(("k", k) for k in range(1, 5))} <= seen
    assert {(name, value) for name in ("normalize", "wide") for value in range(2)} <= seen


def test_logits_reach_the_ends():
    for wide, low, high in ((0, -128, 127), (1, -(1 << 15), (1 << 15) - 1)):
        values = [logits(Dice(CONFIG, np.random.default_rng(seed)), 9, 4, wide) for seed in range(50)]
        assert min(v.min() for v in values) == low
        assert max(v.max() for v in values) == high


STATIC = [
    ("ROUTE", ROUTING | {"experts": 5}, "the number of experts 5 exceeds the 4 experts of the configuration."),
    ("ROUTE", ROUTING | {"k": 0}, "k must be in 1..4, not 0."),
    ("ROUTE", ROUTING | {"k": 3, "experts": 2}, "k must be in 1..2, not 3."),
    ("ROUTE", ROUTING | {"rows": 33}, "rows 0..32 exceed the 32 of max_keys."),
    ("ROUTE", ROUTING | {"addr": 63}, "its words 63..64 exceed the 64 of bank A."),
    ("ROUTE", ROUTING | {"experts": 0}, "experts must be at least 1, not 0."),
    ("LOAD_WEIGHTS", {"entries": 1, "queue": 5}, "queue 5 exceeds the 4 experts of the configuration."),
    ("LOAD_TABLE", {"table": 3, "slot": 2}, "slot 2 exceeds the 2 of the router table."),
    ("MOVE_ROWS", MOVE | {"queue": 0}, "queue must name an expert, not be 0."),
    ("MOVE_ROWS", MOVE | {"rows": 7}, "rows must be at least the 8 of the last ROUTE, not 7."),
    ("MOVE_ROWS", MOVE | {"rows": 33}, "rows 0..32 exceed the 32 of max_keys."),
    ("MOVE_ROWS", MOVE | {"s_addr": 63}, "s words 63..64 exceed the 64 of bank A."),
    ("MOVE_ROWS", MOVE | {"o_addr": 63}, "o words 63..64 exceed the 64 of bank A."),
    ("MOVE_ROWS", MOVE | {"o_addr": 1}, "o overlaps s: it is written while s is still read."),
    ("MOVE_ROWS", SCATTER | {"k": 1}, "k must be the 2 of the last ROUTE, not 1."),
    ("MOVE_ROWS", SCATTER | {"o_addr": 61}, "o words 63..64 exceed the 64 of bank A."),
    ("MOVE_ROWS", SCATTER | {"s_addr": 11}, "o overlaps s: it is written while s is still read."),
    ("GEMM", GEMM | {"rows": 7}, "rows must be at least the 8 of the last ROUTE, not 7."),
    ("GEMM", GEMM | {"o_addr": 1}, "o overlaps a: with queue, row tiles do not wait for each other."),
    (
        "GEMM", GEMM | {"o_bank": 1, "residual": 1, "add_shift": 1, "r_addr": 9, "r_stride": 1},
        "o overlaps r: with queue, row tiles do not wait for each other.",
    ),
    ("COMBINE", COMBINE | {"rows": 7}, "rows must be the 8 of the last ROUTE, not 7."),
    ("COMBINE", COMBINE | {"k": 1}, "k must be the 2 of the last ROUTE, not 1."),
    ("COMBINE", COMBINE | {"o_addr": 2}, "o overlaps a within a row tile: it is written while a is still read."),
    ("COMBINE", COMBINE | {"a_addr": 61}, "a words 63..64 exceed the 64 of bank A."),
    ("COMBINE", COMBINE | {"o_addr": 63}, "o words 63..64 exceed the 64 of bank A."),
    ("COMBINE", COMBINE | {"wide": 1}, "o_wide is 0 and wide 1: without residual they must agree."),
    ("COMBINE", COMBINE | {"residual": 1}, "add_shift must be in 1..62, not 0."),
    ("COMBINE", COMBINE | {"shift": 49}, "shift must be in 1..48, not 49."),
    ("COMBINE", COMBINE | {"multiplier": 1 << 26}, "multiplier must be below 2^26, not 67108864."),
    ("COMBINE", COMBINE | {"y_zero": 128}, "y_zero must be in -128..127, not 128."),
    (
        "LOAD_PARAMS", {"groups": 2, "offset": 32576, "tasks": 3, "select": 2},
        "bytes 32576..32895 exceed the 32768 of weights.bin.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "what"), STATIC)
def test_static(kind, fields, what):
    fails(what, ROUTE, Descriptor(kind, fields))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("LOAD_WEIGHTS", {"entries": 1, "queue": 1}), ("MOVE_ROWS", MOVE), ("GEMM", GEMM), ("COMBINE", COMBINE)],
)
def test_a_route_comes_first(kind, fields):
    fails("no ROUTE comes before it.", Descriptor(kind, fields))


def test_without_a_router():
    config = replace_config(experts=0)
    fails("the number of experts 4 exceeds the 0 experts of the configuration.", ROUTE, config=config)
    fails("a router table is for experts, the configuration has none.", TABLES[0], config=config)


def replace_config(**fields):
    return AcceleratorConfig(**CONFIG.model_dump() | fields)


UNWRITTEN = [
    ("row 0 of word 0 of bank A", ROUTE, ()),
    ("slot 0 of the router table", ROUTE, (LOAD_A,)),
    ("slot 1 of the router table", ROUTE, (LOAD_A, TABLES[0])),
    ("row 0 of word 40 of bank A", Descriptor("MOVE_ROWS", MOVE | {"s_addr": 40}), BEFORE),
    ("row 0 of word 40 of bank A", Descriptor("MOVE_ROWS", SCATTER | {"s_addr": 40}), BEFORE),
    ("row 0 of word 40 of bank A", Descriptor("GEMM", GEMM | {"a_addr": 40}), BEFORE),
    ("row 0 of word 40 of bank A", Descriptor("COMBINE", COMBINE | {"a_addr": 40}), BEFORE),
]


@pytest.mark.parametrize(("place", "d", "before"), UNWRITTEN)
def test_unwritten(place, d, before):
    before = [replace(one, fields=one.fields | {"words": 32}) if one is LOAD_A else one for one in before]
    fails(f"it reads {place}, which nothing has written yet.", *before, d)


def test_an_empty_expert_reads_and_writes_nothing():
    """All logits are equal, so experts 0 and 1 take every token: what those of expert 3 would read is not there."""
    nothing = [
        Descriptor("LOAD_WEIGHTS", {"queue": 4, "entries": 1}),
        Descriptor("MOVE_ROWS", MOVE | {"queue": 4}),
        Descriptor("GEMM", GEMM | {"queue": 4}),
        Descriptor("MOVE_ROWS", SCATTER | {"queue": 4}),
    ]
    rows = Descriptor("LOAD_ROWS", {"words": 2, "offset": 0})
    run(rows, *TABLES, ROUTE, *nothing)
    fails(
        "it reads row 0 of word 8 of bank A, which nothing has written yet.",
        rows, *TABLES, ROUTE, *nothing, Descriptor("STORE", {"words": 1, "addr": 8}),
    )  # fmt: skip


def test_router_tables_begin_with_the_largest_entry():
    what = "entry 0 of a router table must be 65535, not 65534."
    fails(what, TABLES[0], weights=np.full(4096, 65534, np.uint16).tobytes())


def test_task_register():
    load = Descriptor("LOAD_PARAMS", {"groups": 1, "tasks": 2, "select": 1})
    run(load, task=1)
    for task in (2, -1):
        with pytest.raises(IssError, match=rf"^task must be in 0\.\.1, not {task}\.$"):
            run(load, task=task)


READERS = [
    ("the length of the queue of expert 0", Descriptor("LOAD_WEIGHTS", {"queue": 1, "entries": 1})),
    ("the length of the queue of expert 0", Descriptor("MOVE_ROWS", MOVE)),
    ("the length of the queue of expert 0", Descriptor("GEMM", GEMM)),
    ("the gate weights of token 0", Descriptor("COMBINE", COMBINE)),
]


@pytest.mark.parametrize(("place", "d"), READERS)
def test_who_reads_a_routing_waits_for_it(place, d):
    head = (LOAD_A, *TABLES, replace(ROUTE, waits={"io": (3, 0)}))
    for seed in range(3):
        message = f"reads {place}(, which nothing has written| in a race with cp: .* that cp has reached 1)"
        with pytest.raises(IssError, match=message):
            run(*head, d, order="random", seed=seed)


def test_a_route_waits_for_who_read_the_last_one():
    head = (LOAD_A, *TABLES, replace(ROUTE, waits={"io": (3, 0)}))
    load = Descriptor("LOAD_WEIGHTS", {"queue": 1, "entries": 1}, {"cp": (1, 0)})
    run(*head, load, replace(ROUTE, waits={"io": (3, 0), "dm": (1, 0)}), order="random")
    message = r"it writes the length of the queue of expert 0 in a race with dm: .* that dm has reached 1|LOAD_WEIGHTS"
    for seed in range(3):
        with pytest.raises(IssError, match=message):
            run(*head, load, head[-1], order="random", seed=seed)
