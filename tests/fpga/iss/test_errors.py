"""Every sentence that a program which breaks the contract gets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor, ProgramFile
from intaglio.hw.iss import IssError, Simulator
from intaglio.hw.iss.random_program import random_program

CONFIG = AcceleratorConfig(
    rows=4, cols=8, depth=8, weight_entries=64, a_words=64, x_words=32, param_groups=16, norm_channels=5000,
    table_slots=2, max_keys=32, weight_ports=1,
)  # fmt: skip

LOAD_A = Descriptor("LOAD_ROWS", {"words": 64})
LOAD_X = Descriptor("LOAD_ROWS", {"words": 32, "bank": 1})
WEIGHTS = Descriptor("LOAD_WEIGHTS", {"entries": 64})
PARAMS = Descriptor("LOAD_PARAMS", {"groups": 16})
NORM = Descriptor("LOAD_NORM", {"channels": 16})
TABLES = tuple(Descriptor("LOAD_TABLE", {"table": table}) for table in range(3))
GEMM = {"k_steps": 1, "groups": 2, "rows": 4, "o_addr": 8}
WIDE = GEMM | {"wide": 1, "o_wide": 1, "o_bank": 1}
ADD = GEMM | {"residual": 1, "add_shift": 1, "o_bank": 1}
ATTENTION = {
    "heads": 1, "qk_steps": 1, "keys": 8, "rows": 4, "v_words": 1, "v_entry": 8, "entry_step": 16, "o_addr": 8,
    "score_shift": 1, "shift": 1, "multiplier": 1,
}  # fmt: skip
NORMALIZE = {"channels": 8, "rows": 4, "shift": 1}
IMAGE = {"channels": 1, "patch_h": 4, "patch_w": 4, "piece": 4, "grid_h": 2, "grid_w": 2, "stride": 2}
SPILL = {"words": 2, "offset": 64, "all_rows": 1}
FILL = {"words": 2, "offset": 64, "spilled": 1}
COPY = {"chunks": 1, "rows": 8, "stride": 1}


def run(*descriptors, weights=bytes(1 << 17), **options):
    program = ProgramFile(CONFIG.hash, 64, 192, len(weights), descriptors, spill_bytes=128)
    return Simulator(CONFIG, program, weights).run(bytes(64), **options)


def fails(what, *descriptors, **options):
    with pytest.raises(IssError) as error:
        run(*descriptors, **options)
    d = descriptors[-1]
    assert str(error.value) == f"descriptor {len(descriptors) - 1} ({d.kind}): {what}"


STATIC = [
    ("LOAD_WEIGHTS", {}, "entries must be at least 1, not 0."),
    ("LOAD_WEIGHTS", {"entry": 60, "entries": 5}, "its entries 60..64 exceed the 64 of the weight buffer."),
    ("LOAD_WEIGHTS", {"entries": 1, "offset": 32}, "offset must be a multiple of 64, not 32."),
    ("LOAD_WEIGHTS", {"entries": 2, "offset": 131008}, "bytes 131008..131135 exceed the 131072 of weights.bin."),
    ("LOAD_PARAMS", {"group": 16, "groups": 1}, "groups 16..16 exceed the 16 of the parameter buffer."),
    ("LOAD_PARAMS", {"groups": 3, "offset": 131008}, "bytes 131008..131103 exceed the 131072 of weights.bin."),
    ("LOAD_NORM", {"channel": 1, "channels": 5000}, "channels 1..5000 exceed the 5000 of the LayerNorm buffer."),
    ("LOAD_NORM", {"channels": 5, "offset": 131008}, "bytes 131008..131087 exceed the 131072 of weights.bin."),
    ("LOAD_TABLE", {"table": 4}, "table must be in 0..3, not 4."),
    ("LOAD_TABLE", {"slot": 2}, "slot 2 exceeds the 2 of the activation table."),
    ("LOAD_TABLE", {"slot": 2, "table": 1}, "slot 2 exceeds the 2 of the exponential table."),
    ("LOAD_TABLE", {"slot": 4, "table": 2}, "slot 4 exceeds the 4 of the pixel table."),
    ("LOAD_TABLE", {"offset": 130624}, "bytes 130624..131135 exceed the 131072 of weights.bin."),
    ("LOAD_ROWS", {"addr": 60, "words": 5}, "its words 60..64 exceed the 64 of bank A."),
    ("LOAD_ROWS", {"addr": 32, "words": 1, "bank": 1}, "its words 32..32 exceed the 32 of bank X."),
    ("LOAD_ROWS", {"words": 3, "offset": 131008}, "bytes 131008..131103 exceed the 131072 of weights.bin."),
    ("LOAD_IMAGE", IMAGE | {"channels": 5}, "channels must be at most 4, not 5."),
    ("LOAD_IMAGE", IMAGE | {"piece": 3}, "piece must be a power of two that divides patch_w 4, at most 8, not 3."),
    ("LOAD_IMAGE", IMAGE | {"piece": 8}, "piece must be a power of two that divides patch_w 4, at most 8, not 8."),
    (
        "LOAD_IMAGE", IMAGE | {"patch_h": 1, "grid_w": 1},
        "a band of 4 bytes (patch_h * grid_w * patch_w) is no multiple of 8.",
    ),
    ("LOAD_IMAGE", IMAGE | {"grid_h": 3}, "bytes 0..95 exceed the 64 of the image."),
    ("LOAD_IMAGE", IMAGE | {"addr": 63}, "its words 63..64 exceed the 64 of bank A."),
    ("STORE", {"words": 1, "offset": 4}, "offset must be a multiple of 8, not 4."),
    ("STORE", {"words": 1, "row": 4}, "row 4 exceeds the 4 of a word."),
    ("STORE", {"words": 2, "addr": 31, "bank": 1}, "its words 31..32 exceed the 32 of bank X."),
    ("STORE", {"words": 2, "offset": 56}, "bytes 56..71 exceed the 64 of the result."),
    ("STORE", SPILL | {"offset": 0}, "offset must be at least 64, where the spill area begins, not 0."),
    ("STORE", SPILL | {"offset": 96}, "offset must be a multiple of 64, not 96."),
    ("STORE", SPILL | {"row": 1}, "row must be 0 where all rows are stored, not 1."),
    ("STORE", SPILL | {"words": 5}, "bytes 64..223 exceed the 192 of the output."),
    ("STORE", SPILL | {"addr": 63}, "its words 63..64 exceed the 64 of bank A."),
    ("LOAD_ROWS", FILL | {"offset": 0}, "offset must be at least 64, where the spill area begins, not 0."),
    ("LOAD_ROWS", FILL | {"offset": 65}, "offset must be a multiple of 64, not 65."),
    ("LOAD_ROWS", FILL | {"offset": 128, "words": 3}, "bytes 128..223 exceed the 192 of the output."),
    ("LOAD_ROWS", FILL | {"bank": 1, "addr": 31}, "its words 31..32 exceed the 32 of bank X."),
    ("COPY_KV", COPY | {"addr": 63}, "its words 63..64 exceed the 64 of bank A."),
    ("COPY_KV", COPY | {"entry": 64}, "its entries 64..64 exceed the 64 of the weight buffer."),
    ("COPY_KV", COPY | {"entry": 64, "values": 1}, "its entries 64..64 exceed the 64 of the weight buffer."),
    ("COPY_KV", COPY | {"rows": 33}, "rows 0..32 exceed the 32 of max_keys."),
    ("GEMM", GEMM | {"table": 1, "wide": 1}, "table and wide exclude each other: a table has 256 entries."),
    ("GEMM", GEMM | {"wide": 1}, "o_wide is 0 and wide 1: without residual they must agree."),
    ("GEMM", GEMM | {"o_wide": 1}, "o_wide is 1 and wide 0: without residual they must agree."),
    ("GEMM", GEMM | {"a_addr": 64}, "a words 64..64 exceed the 64 of bank A."),
    ("GEMM", GEMM | {"entry": 63, "groups": 3}, "its entries 63..64 exceed the 64 of the weight buffer."),
    ("GEMM", GEMM | {"group": 15}, "groups 15..16 exceed the 16 of the parameter buffer."),
    ("GEMM", GEMM | {"o_bank": 1, "o_addr": 32}, "o words 32..32 exceed the 32 of bank X."),
    (
        "GEMM", GEMM | {"groups": 3, "rows": 5, "o_stride": 1},
        "o_stride 1 is less than the 2 words of a row tile: its row tiles overlap.",
    ),
    ("GEMM", GEMM | {"o_addr": 0}, "o overlaps a within a row tile: it is written while a is still read."),
    ("GEMM", GEMM | {"table": 1, "slot": 2}, "slot 2 exceeds the 2 of the activation table."),
    ("GEMM", ADD | {"r_addr": 32}, "r words 32..32 exceed the 32 of bank X."),
    ("GEMM", ADD | {"add_shift": 0}, "add_shift must be in 1..62, not 0."),
    ("GEMM", ADD | {"add_a": -(1 << 26)}, "add_a must be below 2^26 in magnitude, not -67108864."),
    ("GEMM", ADD | {"add_b": 1 << 26}, "add_b must be below 2^26 in magnitude, not 67108864."),
    ("GEMM", ADD | {"add_offset": 1 << 47}, f"add_offset must be in -2^46..2^46, not {1 << 47}."),
    ("GEMM", ADD | {"r_addr": 8, "r_wide": 1}, "o overlaps r within a row tile without being r."),
    ("ATTENTION", ATTENTION | {"q_addr": 64}, "q words 64..64 exceed the 64 of bank A."),
    ("ATTENTION", ATTENTION | {"o_addr": 64}, "o words 64..64 exceed the 64 of bank A."),
    ("ATTENTION", ATTENTION | {"keys": 33}, "keys 0..32 exceed the 32 of max_keys."),
    ("ATTENTION", ATTENTION | {"entry": 64}, "K entries 64..64 exceed the 64 of the weight buffer."),
    (
        "ATTENTION", ATTENTION | {"heads": 2, "entry_step": 60},
        "V entries 68..68 exceed the 64 of the weight buffer.",
    ),
    ("ATTENTION", ATTENTION | {"slot": 2}, "slot 2 exceeds the 2 of the exponential table."),
    ("ATTENTION", ATTENTION | {"score_shift": 0}, "score_shift must be in 1..62, not 0."),
    ("ATTENTION", ATTENTION | {"shift": 49}, "shift must be in 1..48, not 49."),
    ("ATTENTION", ATTENTION | {"multiplier": 1 << 26}, "multiplier must be below 2^26, not 67108864."),
    ("ATTENTION", ATTENTION | {"score_multiplier": 1 << 26}, "score_multiplier must be below 2^26, not 67108864."),
    ("ATTENTION", ATTENTION | {"v_zero": 128}, "v_zero must be in -128..127, not 128."),
    ("ATTENTION", ATTENTION | {"score_bias": 1}, "score_bias must be qk_steps * depth * q_zero * k_zero, 0, not 1."),
    ("LAYERNORM", NORMALIZE | {"channels": 4097}, "channels must be at most 4096, not 4097."),
    ("LAYERNORM", NORMALIZE | {"x_addr": 32}, "x words 32..32 exceed the 32 of bank X."),
    ("LAYERNORM", NORMALIZE | {"o_addr": 64}, "o words 64..64 exceed the 64 of bank A."),
    ("LAYERNORM", NORMALIZE | {"channel": 4993}, "channels 4993..5000 exceed the 5000 of the LayerNorm buffer."),
    ("LAYERNORM", NORMALIZE | {"shift": 0}, "shift must be in 1..62, not 0."),
    ("LAYERNORM", NORMALIZE | {"eps": (1 << 61) + 1}, f"eps must be in -2^61..2^61, not {(1 << 61) + 1}."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "what"), STATIC)
def test_static(kind, fields, what):
    fails(what, Descriptor(kind, fields))


UNWRITTEN = [
    ("row 0 of word 0 of bank A", GEMM, "GEMM", ()),
    ("entry 0, column 0 of the weight buffer", GEMM, "GEMM", (LOAD_A,)),
    ("group 0 of the parameter buffer", GEMM, "GEMM", (LOAD_A, WEIGHTS)),
    ("row 0 of word 0 of bank X", ADD, "GEMM", (LOAD_A, WEIGHTS, "params")),
    ("slot 0 of the activation table", GEMM | {"table": 1}, "GEMM", (LOAD_A, WEIGHTS, "params")),
    ("slot 0 of the exponential table", ATTENTION, "ATTENTION", (LOAD_A, WEIGHTS)),
    ("slot 0 of the pixel table", IMAGE, "LOAD_IMAGE", ()),
    ("channel 0 of the LayerNorm buffer", NORMALIZE, "LAYERNORM", (LOAD_X,)),
    ("row 0 of word 0 of bank X", NORMALIZE, "LAYERNORM", ()),
    ("row 2 of word 5 of bank A", {"words": 2, "addr": 5, "row": 2}, "STORE", ()),
    ("row 0 of word 0 of bank A", COPY, "COPY_KV", ()),
    ("row 0 of word 0 of bank A", COPY | {"values": 1}, "COPY_KV", ()),
]


@pytest.mark.parametrize(("place", "fields", "kind", "before"), UNWRITTEN)
def test_unwritten(place, fields, kind, before):
    weights, params = with_params(0, 1, 1)
    before = [params if d == "params" else d for d in before]
    fails(
        f"it reads {place}, which nothing has written yet.",
        *before,
        Descriptor(kind, fields),
        weights=weights,
    )


def test_only_rows_below_rows_are_written():
    weights, params = with_params(0, 1, 1)
    head = (LOAD_A, WEIGHTS, params, Descriptor("GEMM", WIDE | {"rows": 2, "o_addr": 0}))
    run(*head, Descriptor("STORE", {"words": 1, "bank": 1, "row": 1}), weights=weights)
    store = Descriptor("STORE", {"words": 1, "bank": 1, "row": 2})
    fails("it reads row 2 of word 0 of bank X, which nothing has written yet.", *head, store, weights=weights)


def test_a_key_that_was_not_copied():
    copy = Descriptor("COPY_KV", COPY | {"rows": 6})
    what = "it reads entry 0, column 6 of the weight buffer, which nothing has written yet."
    fails(what, LOAD_A, copy, Descriptor("ATTENTION", ATTENTION))


def with_params(bias, multiplier, shift, weight=0):
    """weights.bin of `weight`, parameters at 65536, and the descriptor that loads them."""
    group = np.uint64(bias & 0xFFFFFFFF | multiplier << 32 | shift << 58)
    params = np.full(64, group, np.uint64).tobytes()
    body = np.full(1 << 16, weight, np.int8).tobytes()
    return body + params, Descriptor("LOAD_PARAMS", {"offset": 1 << 16, "groups": 16})


def test_parameter_shift():
    weights, params = with_params(0, 1, 0)
    what = "parameter group 0 has shift 0."
    fails(what, LOAD_A, WEIGHTS, params, Descriptor("GEMM", GEMM), weights=weights)


@pytest.mark.parametrize(("bias", "reaches"), [((1 << 31) - 1, (1 << 31) + 7), ((1 << 31) - 9, None)])
def test_accumulators_are_int32(bias, reaches):
    weights, params = with_params(bias, 1, 1, weight=1)
    program = (LOAD_A, WEIGHTS, params, Descriptor("GEMM", GEMM))
    if reaches is None:
        run(*program, weights=weights)
    else:
        fails(f"an accumulator reaches {reaches}, which is not int32.", *program, weights=weights)


def table(value):
    return bytes(1 << 16) + np.full(256, value, np.int16).tobytes()


def test_table_values():
    load = [Descriptor("LOAD_TABLE", {"offset": 1 << 16, "table": i}) for i in range(3)]
    fails("entry 0 of the exponential table exceeds 15 bits.", load[1], weights=table(-1))
    fails("entry 0 of the pixel table is not int8.", load[2], weights=table(128))
    weights, params = with_params(0, 1, 1)
    load_table = Descriptor("LOAD_TABLE", {"offset": len(weights)})
    weights += np.full(256, 300, np.int16).tobytes()
    head = (LOAD_A, WEIGHTS, params, load_table)
    what = "slot 0 of the activation table gives 300, which is not int8."
    fails(what, *head, Descriptor("GEMM", GEMM | {"table": 1}), weights=weights)
    run(*head, Descriptor("GEMM", GEMM | {"table": 1, "o_wide": 1}), weights=weights)


def attend(value, **fields):
    load = Descriptor("LOAD_TABLE", {"offset": 1 << 16, "table": 1})
    return (LOAD_A, WEIGHTS, load, Descriptor("ATTENTION", ATTENTION | fields)), table(value)


@pytest.mark.parametrize(
    ("value", "fields", "what"),
    [
        (0, {}, "the exponentials of a row are all 0."),
        (
            1000, {"multiplier": (1 << 26) - 1},
            "a row's reciprocal 137438951 exceeds 26 bits: its exponentials sum to less than 2^14.",
        ),
    ],
)  # fmt: skip
def test_softmax(value, fields, what):
    program, weights = attend(value, **fields)
    fails(what, *program, weights=weights)


def test_attention_accumulators_are_int32():
    config = AcceleratorConfig(max_keys=1024, weight_entries=1024)
    d = ATTENTION | {"keys": 1024, "v_entry": 64}
    weights = (
        np.full(1024 * config.entry_bytes, -128, np.int8).tobytes() + np.full(256, 32767, np.int16).tobytes()
    )
    descriptors = (
        Descriptor("LOAD_WEIGHTS", {"entries": 1024}),
        Descriptor("LOAD_TABLE", {"offset": len(weights) - 512, "table": 1}),
        Descriptor("LOAD_ROWS", {"words": 1}),
        Descriptor("ATTENTION", d),
    )
    program = ProgramFile(config.hash, 0, 0, len(weights), descriptors)
    with pytest.raises(
        IssError, match=r"descriptor 3 \(ATTENTION\): an accumulator reaches -4294836224, which is not"
    ):
        Simulator(config, program, weights).run(b"")


@pytest.mark.parametrize(
    ("constants", "what"),
    [
        ((0, (1 << 61) + 1), "a LayerNorm offset exceeds 2^61."),
        ((1 << 25, 0), "a LayerNorm gain exceeds 26 bits."),
    ],
)
def test_layernorm_constants(constants, what):
    weights = np.tile(np.array(constants, np.int64), (16, 1)).tobytes()
    load = Descriptor("LOAD_NORM", {"channels": 16})
    rows = Descriptor("LOAD_ROWS", {"words": 1, "bank": 1})
    fails(what, load, rows, Descriptor("LAYERNORM", NORMALIZE), weights=weights)


@pytest.mark.parametrize("order", ["program", "random"])
def test_deadlock(order):
    store = Descriptor("STORE", {"words": 1}, {"mm": (3, 0)})
    fails("it waits for mm to reach 3, which stays at 0: deadlock.", LOAD_A, store, order=order)


def test_malformed_wait():
    what = "the wait for io must be (base, step), not (-1, 0)."
    fails(what, Descriptor("LOAD_ROWS", {"words": 1}, {"io": (-1, 0)}))


def test_files_belong_together():
    program, weights, image = random_program(CONFIG, 0)
    with pytest.raises(
        IssError, match=r"the program was made for configuration 0x00000001, not for 0x\w{8}; compile"
    ):
        Simulator(CONFIG, replace(program, config_hash=1), weights)
    with pytest.raises(IssError, match=r"weights.bin has 3 bytes, not the \d+ of the program"):
        Simulator(CONFIG, program, bytes(3))
    simulator = Simulator(CONFIG, program, weights)
    with pytest.raises(IssError, match=r"the image has 3 bytes, not the \d+ of the program"):
        simulator.run(bytes(3))
    with pytest.raises(ValueError, match="order must be program or random, not 'reverse'"):
        simulator.run(image, order="reverse")
