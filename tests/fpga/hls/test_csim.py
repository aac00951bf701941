"""C simulation against the functional simulator, and what a program that breaks the contract gets."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.accelerator.descriptors import (
    BYTES,
    HEADER,
    KINDS,
    WORDS,
    Descriptor,
    Kind,
    ProgramFile,
    checksum,
    encode,
)
from intaglio.accelerator.registers import ERRORS
from intaglio.backends.fpga import csim, hls
from intaglio.backends.fpga.csim import Csim
from intaglio.errors import InputError, ToolError
from intaglio.hw.iss import Simulator
from intaglio.hw.iss.random_program import KINDS as OPERATIONS
from intaglio.hw.iss.random_program import random_program

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

CONFIGS = PRESETS | {
    "narrow": AcceleratorConfig(
        rows=2, cols=16, depth=16, weight_entries=64, a_words=256, x_words=128, weight_ports=8
    ),
}
TINY = PRESETS["tiny"]
SANITIZERS = ("-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")


def same_results(
    config: AcceleratorConfig, program: ProgramFile, weights: bytes, image: bytes, what: str = ""
) -> None:
    """Csim gives the simulator's bytes, for every task."""
    simulator, simulation = Simulator(config, program, weights), Csim(config, program, weights)
    for task in range(program.tasks):
        assert simulation.run([image], task) == [simulator.run(image, task=task)], f"{what}, task {task}"


@pytest.mark.parametrize("name", CONFIGS)
def test_random_programs(name: str) -> None:
    config = CONFIGS[name]
    for seed in range(300, 320):
        same_results(config, *random_program(config, seed), f"seed {seed}")


@pytest.mark.parametrize("kind", OPERATIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_one_kind(name: str, kind: str) -> None:
    config = CONFIGS[name]
    for seed in range(400, 405):
        same_results(config, *random_program(config, seed, [kind], size=3), f"seed {seed}")


def test_images_do_not_influence_each_other() -> None:
    config = PRESETS["large"]
    program, weights, image = random_program(config, 1, size=8)
    other = np.random.default_rng(0).integers(0, 256, len(image), np.uint8).tobytes()
    simulator = Simulator(config, program, weights)
    images = [image, other, other, image]
    assert Csim(config, program, weights).run(images) == [simulator.run(data) for data in images]


def test_more_heads_than_buffers() -> None:
    """Keys and values of later heads are copied while ATTENTION runs: units take turns by progress counters."""
    program, weights, image = random_program(TINY, 12, ["attention"], size=6)
    heads = [d["heads"] for d in program.descriptors if d.kind == "ATTENTION"]
    assert max(heads) > 2
    expected = Simulator(TINY, program, weights).run(image)
    assert Csim(TINY, program, weights).run([image]) == [expected]


# --- errors ---


def edit(change: Callable[[list[int]], None], restore_checksum: bool = True) -> bytes:
    """The last descriptor of a small program, with its words changed."""
    words = list(struct.unpack(f"<{WORDS}I", encode(Descriptor("STORE", {"words": 1}), 1)))
    change(words)
    if restore_checksum:
        words[-1] = checksum(words[:-1])
    return struct.pack(f"<{WORDS}I", *words)


def assign(word: int, mask: int, value: int) -> Callable[[list[int]], None]:
    def change(words: list[int]) -> None:
        words[word] = words[word] & ~mask | value

    return change


def run_raw(
    folder: Path,
    binary: Path,
    descriptors: bytes,
    config_hash: int = TINY.hash,
    weights: bytes = bytes(1 << 16),
    task: int = 0,
) -> str:
    """What the C simulation says of a program file with these descriptors: "" if it runs."""
    header = HEADER.pack(
        b"ITGP", 1, HEADER.size, config_hash, len(descriptors) // BYTES, 64, 64, 1 << 16, 1, 0
    )
    files = {"program": header + descriptors, "weights": weights, "input": bytes(64)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        csim._run([str(binary), *(str(folder / name) for name in (*files, "output")), str(task)])
    except ToolError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C simulation of the tiny configuration, with sanitizers."""
    folder = write(TINY, tmp_path_factory.mktemp("sanitized"))
    return csim.build(folder, SANITIZERS)


@pytest.mark.parametrize("kind", OPERATIONS)
def test_no_undefined_behaviour(kind: str, tmp_path: Path, binary: Path) -> None:
    for seed in range(600, 606):
        program, weights, image = random_program(TINY, seed, [kind], size=3)
        files = {"program": program.pack(), "weights": weights, "input": image}
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        task = program.tasks - 1
        csim._run([str(binary), *(str(tmp_path / name) for name in (*files, "output")), str(task)])
        expected = Simulator(TINY, program, weights).run(image, task=task)
        assert (tmp_path / "output").read_bytes() == expected, f"seed {seed}"


def write(config: AcceleratorConfig, folder: Path) -> Path:
    for path, text in hls.emit(config).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    return folder / hls.FOLDER


FIRST = encode(Descriptor("LOAD_ROWS", {"words": 1}), 0)

ILLEGAL = [
    (1, edit(assign(0, 0xFF, 0x7F))),
    (2, edit(assign(0, 0xFF00, 0x200))),
    (3, edit(assign(9, 0xFF, 3), restore_checksum=False)),
    (4, edit(assign(0, 0xFFFF0000, 0x20000))),
    (5, edit(assign(9, 0xFFFF, TINY.a_words))),
    (5, edit(assign(9, 0xFFFF0000, 0))),
    (8, encode(Descriptor("STORE", {"words": 1}, {"mm": (1, 0)}), 1)),
]


@pytest.mark.parametrize(("code", "descriptor"), ILLEGAL)
def test_illegal_descriptor(code: int, descriptor: bytes, tmp_path: Path, binary: Path) -> None:
    said = run_raw(tmp_path, binary, FIRST + descriptor)
    assert said == f"csim: descriptor 1: error {code}: {ERRORS[code]}."


SHIFTS = {"score_shift": 1, "shift": 1}
OUTSIDE = [
    ("LOAD_WEIGHTS", {"entry": 512, "entries": 1}),
    ("LOAD_WEIGHTS", {"offset": 32, "entries": 1}),
    ("LOAD_PARAMS", {"group": 128, "groups": 1}),
    ("LOAD_NORM", {"channel": 255, "channels": 2}),
    ("LOAD_TABLE", {"slot": 4}),
    ("LOAD_TABLE", {"table": 3, "slot": 2}),
    ("LOAD_TABLE", {"table": 4}),
    ("LOAD_ROWS", {"addr": 512, "words": 1, "bank": 1}),
    (
        "LOAD_IMAGE",
        {"channels": 1, "patch_h": 2, "patch_w": 4, "grid_h": 1, "grid_w": 1, "stride": 1, "piece": 8},
    ),
    (
        "LOAD_IMAGE",
        {"channels": 5, "patch_h": 1, "patch_w": 8, "grid_h": 1, "grid_w": 1, "stride": 1, "piece": 8},
    ),
    ("STORE", {"words": 1, "row": 4}),
    ("STORE", {"words": 1, "row": 1, "all_rows": 1}),
    ("STORE", {"words": 1, "offset": 32, "all_rows": 1}),
    ("COPY_KV", {"chunks": 1, "rows": 257}),
    ("COPY_KV", {"chunks": 2, "rows": 8, "entry": 511}),
    ("COPY_KV", {"chunks": 2, "rows": 8, "entry": 511, "values": 1}),
    ("GEMM", {"k_steps": 1, "groups": 1, "rows": 5, "a_addr": 1000, "a_stride": 24}),
    ("GEMM", {"k_steps": 2, "groups": 2, "rows": 1, "entry": 511}),
    ("GEMM", {"k_steps": 1, "groups": 1, "rows": 1, "o_addr": 512, "o_bank": 1}),
    ("GEMM", {"k_steps": 1, "groups": 1, "rows": 1, "residual": 1, "r_addr": 512, "add_shift": 1}),
    ("GEMM", {"k_steps": 1, "groups": 1, "rows": 1, "residual": 1, "add_shift": 63}),
    (
        "ATTENTION",
        {"heads": 2, "qk_steps": 1, "v_words": 1, "keys": 8, "rows": 1, "entry_step": 512} | SHIFTS,
    ),
    ("ATTENTION", {"heads": 1, "qk_steps": 1, "v_words": 1, "keys": 257, "rows": 1} | SHIFTS),
    ("ATTENTION", {"heads": 1, "qk_steps": 1, "v_words": 1, "keys": 8, "rows": 1} | SHIFTS | {"shift": 49}),
    ("LAYERNORM", {"channels": 9, "rows": 1, "x_addr": 511, "shift": 1}),
    ("LAYERNORM", {"channels": 9, "rows": 1, "o_addr": 1023, "shift": 1}),
    ("LAYERNORM", {"channels": 8, "rows": 1}),
]


@pytest.mark.parametrize(("kind", "fields"), OUTSIDE)
def test_addresses_outside(kind: str, fields: dict[str, int], tmp_path: Path, binary: Path) -> None:
    said = run_raw(tmp_path, binary, encode(Descriptor(kind, fields), 0))
    assert said == f"csim: descriptor 0: error 5: {ERRORS[5]}."


ROUTE = {"rows": 6, "experts": 3, "k": 2, "stride": 1}
GATHER = {"queue": 1, "rows": 6, "chunks": 1, "s_stride": 1, "o_addr": 8, "o_stride": 1, "slot_stride": 2}
SCATTER = GATHER | {"scatter": 1, "k": 2}
GEMM = {"queue": 1, "rows": 6, "k_steps": 1, "groups": 1, "a_stride": 1, "o_addr": 8, "o_stride": 1}
COMBINE = {
    "rows": 6,
    "k": 2,
    "groups": 2,
    "shift": 1,
    "a_stride": 1,
    "slot_stride": 2,
    "o_stride": 1,
    "o_addr": 8,
}
ROUTED = [
    ("ROUTE", ROUTE, [{"experts": 9}, {"experts": 1}, {"k": 0}, {"k": 5, "experts": 8}, {"rows": 257}, {"addr": 1023}]),
    ("LOAD_WEIGHTS", {"queue": 8, "entries": 1}, [{"queue": 9}]),
    ("LOAD_PARAMS", {"queue": 8, "groups": 1}, [{"queue": 9}]),
    ("LOAD_TABLE", {"queue": 8, "table": 3, "slot": 1}, [{"queue": 9}]),
    (
        "MOVE_ROWS", GATHER,
        [{"queue": 0}, {"queue": 9}, {"rows": 5}, {"rows": 257}, {"s_addr": 1023}, {"o_addr": 1023}, {"chunks": 0}],
    ),
    ("MOVE_ROWS", SCATTER, [{"k": 1}, {"k": 3}, {"slot_stride": 1016}]),
    ("GEMM", GEMM, [{"queue": 9}, {"rows": 5}]),
    (
        "COMBINE", COMBINE,
        [{"rows": 7}, {"k": 1}, {"groups": 0}, {"shift": 0}, {"shift": 49}, {"slot_stride": 1023}, {"a_addr": 1023},
         {"o_addr": 1023}, {"o_addr": 511, "o_bank": 1}, {"residual": 1},
         {"residual": 1, "add_shift": 1, "r_addr": 512}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "wrong"), ROUTED)
def test_router_descriptors(
    kind: str, fields: dict[str, int], wrong: list[dict[str, int]], tmp_path: Path, binary: Path
) -> None:
    """What a descriptor of the router may address, and that it needs a ROUTE of the same sizes before it."""

    def said(change: dict[str, int], route: bool = True) -> str:
        program = [Descriptor("ROUTE", ROUTE)] * route + [Descriptor(kind, fields | change)]
        return run_raw(tmp_path, binary, b"".join(encode(d, i) for i, d in enumerate(program)))

    assert said({}) == ""
    for change in wrong:
        assert said(change) == f"csim: descriptor 1: error 5: {ERRORS[5]}.", change
    assert (said({}, route=False) == "") == (kind == "ROUTE")


def test_no_router(tmp_path: Path) -> None:
    """Without experts, descriptors of the router are illegal."""
    config = PRESETS["ecp5"]
    binary = csim.build(write(config, tmp_path))
    for kind, fields, _ in ROUTED:
        said = run_raw(tmp_path, binary, encode(Descriptor(kind, fields), 0), config.hash)
        assert said == f"csim: descriptor 0: error 5: {ERRORS[5]}."


TASKS = [("LOAD_WEIGHTS", {"entries": 1}), ("LOAD_PARAMS", {"groups": 1})]


@pytest.mark.parametrize(("kind", "fields"), TASKS)
def test_tasks_outside(kind: str, fields: dict[str, int], tmp_path: Path, binary: Path) -> None:
    def said(task: int, **change: int) -> str:
        return run_raw(tmp_path, binary, encode(Descriptor(kind, fields | change), 0), task=task)

    assert said(2, tasks=3, select=511) == ""
    assert said(3, tasks=3, select=511) == f"csim: descriptor 0: error 9: {ERRORS[9]}."
    assert said(0, tasks=3, select=512) == f"csim: descriptor 0: error 6: {ERRORS[6]}."
    assert said(7, select=512) == ""
    assert said(3, tasks=3, offset=32) == f"csim: descriptor 0: error 5: {ERRORS[5]}.", "as the RTL does"


EXTERNAL = [
    (6, "LOAD_WEIGHTS", {"offset": 1 << 16, "entries": 1}),
    (6, "LOAD_TABLE", {"offset": (1 << 16) - 448}),
    (
        6,
        "LOAD_IMAGE",
        {"channels": 1, "patch_h": 2, "patch_w": 4, "piece": 4, "grid_h": 9, "grid_w": 1, "stride": 1},
    ),
    (7, "STORE", {"words": 9}),
    (6, "LOAD_ROWS", {"words": 1, "offset": 64, "spilled": 1}),
    (7, "STORE", {"words": 1, "offset": 64}),
    (7, "STORE", {"words": 3, "all_rows": 1}),
]


@pytest.mark.parametrize(("code", "kind", "fields"), EXTERNAL)
def test_external_memory_outside(
    code: int, kind: str, fields: dict[str, int], tmp_path: Path, binary: Path
) -> None:
    said = run_raw(tmp_path, binary, encode(Descriptor(kind, fields), 0))
    assert said == f"csim: descriptor 0: error {code}: {ERRORS[code]}."


LOADS = [
    Descriptor("LOAD_WEIGHTS", {"entries": 512}),
    Descriptor("LOAD_PARAMS", {"groups": 128}),
    Descriptor("LOAD_NORM", {"channels": 256}),
    Descriptor("LOAD_ROWS", {"words": 1024}),
    Descriptor("LOAD_ROWS", {"words": 512, "bank": 1}),
    *(Descriptor("LOAD_TABLE", {"slot": slot, "table": table}) for table in range(3) for slot in range(4)),
    *(Descriptor("LOAD_TABLE", {"slot": slot, "table": 3}) for slot in range(2)),
    Descriptor("ROUTE", {"rows": 3, "experts": 3, "k": 2}, {"io": (18, 0)}),
]
SIZES = {
    "addr", "stride", "table", "entry", "entries", "entry_step", "v_entry", "slot", "chunks", "words", "row", "heads",
    "keys", "rows", "grid_h", "grid_w", "patch_h", "qk_steps", "k_steps", "v_words", "groups", "group", "channels",
    "channel", "slot_stride", "experts", "k", "queue", "select", "tasks",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_noise_does_no_harm(kind: Kind, tmp_path: Path, binary: Path) -> None:
    """Random fields and data end with a result or an error code, never with a sanitizer's report."""
    rng = np.random.default_rng(kind.opcode)
    weights = rng.integers(0, 256, 1 << 16, np.uint8).tobytes()
    verdicts = set()
    for _ in range(30):
        program = [*LOADS, Descriptor(kind.name, noise(rng, kind))]
        descriptors = b"".join(encode(d, index) for index, d in enumerate(program))
        said = run_raw(tmp_path, binary, descriptors, weights=weights)
        assert said in (
            "",
            *(f"csim: descriptor {len(LOADS)}: error {code}: {ERRORS[code]}." for code in (5, 6, 7)),
        )
        verdicts.add(said == "")
    assert verdicts == {True, False}


def noise(rng: np.random.Generator, kind: Kind) -> dict[str, int]:
    """Small sizes, of which one in four descriptors breaks one; anything in all other fields."""
    fields = {}
    sizes = [entry.name for entry in kind.fields if is_size(entry.name)]
    broken = sizes[rng.integers(len(sizes))] if rng.random() < 0.25 else ""
    for entry in kind.fields:
        low, high = entry.limits
        value = int(rng.integers(low, high, dtype=np.int64 if low else np.uint64, endpoint=True))
        if is_size(entry.name) and entry.name != broken:
            value = min(int(rng.integers(1, 4)), high)
        fields[entry.name] = value
    if "offset" in fields:
        fields["offset"] = 64 * int(rng.integers(0, 3)) if kind.name != "STORE" else 0
    if kind.name == "LOAD_IMAGE":
        fields |= {"patch_w": 8, "patch_h": 1, "grid_h": 2, "piece": 8}
    routed = {"MOVE_ROWS": ("rows", "k"), "COMBINE": ("rows", "k"), "GEMM": ("rows",)}.get(kind.name, ())
    return fields | {name: LOADS[-1][name] for name in routed if name != broken}


def is_size(name: str) -> bool:
    return name in SIZES or name[2:] in ("addr", "stride")


def test_files_that_do_not_fit(tmp_path: Path, binary: Path) -> None:
    said = run_raw(tmp_path, binary, FIRST, config_hash=1)
    wanted = "csim: the program was compiled for another configuration; compile the model for this one."
    assert said == wanted
    program = ProgramFile(TINY.hash, 64, 64, 0, [])
    with pytest.raises(InputError, match=r"an image must have 64 bytes, not 3"):
        Csim(TINY, program, b"").run([bytes(3)])
    with pytest.raises(ToolError, match=r"csim: weights\.bin has another size than the program says\."):
        Csim(TINY, program, b"1").run([bytes(64)])


def test_missing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ToolError, match="'no-such-compiler' was not found on PATH; install g\\+\\+ or set CXX"
    ):
        csim.build(tmp_path)
