"""Programs without races and deadlocks: the scheduler's, the checker that proves it, and what the checker finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import UNITS
from intaglio.backends.fpga.allocate import allocate
from intaglio.backends.fpga.build import build
from intaglio.backends.fpga.check import ScheduleError, check
from intaglio.backends.fpga.emit import Emitter
from intaglio.backends.fpga.lower import lower
from intaglio.backends.fpga.nodes import spaces
from intaglio.backends.fpga.operations import Gemm, Operation
from intaglio.backends.fpga.trace import trace
from intaglio.backends.fpga.waits import fit
from intaglio.errors import UnsupportedError
from tests.cpu.networks import DEIT_TINY, SMALL, VitWriter


def vit(sizes=SMALL):
    """A ViT of random weights."""
    return VitWriter(sizes).build()


@pytest.mark.parametrize("preset", PRESETS)
def test_proven(preset):
    check(build(vit(), PRESETS[preset]).program.descriptors, PRESETS[preset])


@pytest.mark.parametrize("unit", UNITS)
def test_a_wait_left_out_is_found(unit):
    """Without the waits for one unit there is a race."""
    config = PRESETS["tiny"]
    descriptors = build(vit(), config).program.descriptors
    without = [replace(d, waits={u: w for u, w in d.waits.items() if u != unit}) for d in descriptors]
    with pytest.raises(ScheduleError, match=r"needs \w\w at \d+, which no wait guarantees"):
        check(without, config)


def test_most_single_waits_matter():
    config = PRESETS["tiny"]
    descriptors = build(vit(), config).program.descriptors
    found = total = 0
    for index, d in enumerate(descriptors):
        for unit in d.waits:
            waits = {u: w for u, w in d.waits.items() if u != unit}
            changed = [*descriptors[:index], replace(d, waits=waits), *descriptors[index + 1 :]]
            total += 1
            try:
                check(changed, config)
            except ScheduleError:
                found += 1
    assert found > 0.9 * total, f"{found} of {total}"


def test_deadlock_is_found():
    config = PRESETS["tiny"]
    descriptors = list(build(vit(), config).program.descriptors)
    descriptors[0] = replace(descriptors[0], waits={"mm": (1, 0)})
    with pytest.raises(ScheduleError, match=r"descriptor 0 \(LOAD_TABLE\) waits for ever"):
        check(descriptors, config)


def test_an_operation_without_descriptors_is_no_silence():
    class Mystery(Operation):
        pass

    program = vit()
    emitter = Emitter(PRESETS["tiny"], None)
    with pytest.raises(TypeError, match="no descriptors are known for Mystery"):
        emitter.emit([Mystery(program.steps[0])])


def test_addresses_are_checked():
    config = PRESETS["tiny"]
    descriptors = list(build(vit(), config).program.descriptors)
    index = next(i for i, d in enumerate(descriptors) if d.kind == "LOAD_ROWS")
    d = descriptors[index]
    descriptors[index] = replace(d, fields={**d.fields, "addr": config.x_words - 1})
    with pytest.raises(ScheduleError, match=r"LOAD_ROWS .* writes X .* leaves the memory of 512"):
        check(descriptors, config)


def test_weights_run_ahead():
    """Every load but the first few precedes the end of a computation before its reader."""
    config = PRESETS["large"]
    descriptors = build(vit(), config).program.descriptors
    gemms = [i for i, d in enumerate(descriptors) if d.kind == "GEMM"]
    loads = [i for i, d in enumerate(descriptors) if d.kind == "LOAD_WEIGHTS"]
    assert len(gemms) == len(loads)
    ahead = [sum(load < gemm for load in loads) - n for n, gemm in enumerate(gemms)]
    assert min(ahead[:-3]) >= 3


def test_row_tiles_flow():
    """LayerNorm, and what reads it, wait per row tile."""
    descriptors = build(vit(), PRESETS["ecp5"]).program.descriptors
    norms = [d for d in descriptors if d.kind == "LAYERNORM"]
    readers = [d for d in descriptors if d.kind == "GEMM" and d.waits.get("vu", (0, 0))[1] == 1]
    assert sum(d.waits.get("mm", (0, 0))[1] == 1 for d in norms) == 2
    assert len(readers) == 3


def test_only_the_class_token_at_the_end():
    """The last block computes queries, projection and MLP for one row tile."""
    config = PRESETS["tiny"]
    operations = lower(trace(vit()), config)
    rows = [op.rows for op in operations if isinstance(op, Gemm)]
    assert rows[-5:] == [2] * 5  # 25 patches and the class token: the last tile has rows 24 and 25
    assert rows[1] == 26


def test_buffers_do_not_overlap():
    config = PRESETS["tiny"]
    operations = lower(trace(vit()), config)
    addresses = allocate(operations, config)
    owner = {bank: np.full(spaces(config)[bank], -1) for bank in "AX"}
    for op in operations:
        for buffer in op.reads:
            cells = owner[buffer.bank][addresses.of(buffer) :][: buffer.words(config)]
            assert (cells == id(buffer) % (1 << 60)).all() or buffer.bank == "X"
        if op.writes:
            out = op.writes
            owner[out.bank][addresses.of(out) :][: out.words(config)] = id(out) % (1 << 60)


@pytest.mark.parametrize(
    ("needed", "available", "wait"),
    [
        ([0, 0, 0], 9, (0, 0)),
        ([5], 9, (5, 0)),
        ([5, 6, 7], 9, (5, 1)),
        ([5, 6, 7], 6, (7, 0)),
        ([5, 5, 5], 9, (5, 0)),
        ([0, 0, 4], 9, (0, 2)),
        ([2, 4, 6], 9, (2, 2)),
    ],
)
def test_fit(needed, available, wait):
    base, step = fit(np.array(needed), available)
    assert all(base + step * i >= n for i, n in enumerate(needed))
    assert (base, step) == wait


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_keys", 16, "it has 26 keys, the configuration allows 16; raise max_keys .* at least 26"),
        ("norm_channels", 32, "it has 48 channels, the LayerNorm buffer 32; raise norm_channels"),
        ("weight_entries", 16, "of the configuration's 16 weight_entries; raise weight_entries to at least"),
    ],
)
def test_other_memories_too_small(key, value, message):
    with pytest.raises(UnsupportedError, match=message):
        build(vit(), PRESETS["tiny"].model_copy(update={key: value}))


def test_deit_tiny():
    """197 tokens, 192 channels, 12 layers: activations stay on the chip."""
    config = PRESETS["large"]
    built = build(vit(DEIT_TINY), config)
    kinds = [d.kind for d in built.program.descriptors]
    assert kinds.count("ATTENTION") == 12
    assert kinds.count("LAYERNORM") == 25
    assert kinds.count("COPY_KV") == 12 * 3 * 2
