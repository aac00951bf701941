"""Models whose activations do not fit the scratchpads: the same bits, with what does not fit in external memory."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from typer.testing import CliRunner

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.backends import fpga
from intaglio.backends.fpga.allocate import allocate
from intaglio.backends.fpga.build import build
from intaglio.backends.fpga.check import ScheduleError, check
from intaglio.backends.fpga.csim import Csim
from intaglio.backends.fpga.cut import cut
from intaglio.backends.fpga.lower import lower
from intaglio.backends.fpga.operations import Attention, Buffer, Fill, Gemm, Operation, Spill
from intaglio.backends.fpga.spill import least_words, page
from intaglio.backends.fpga.trace import trace
from intaglio.cli.app import app
from intaglio.compiler import Options, to_program
from intaglio.errors import UnsupportedError
from intaglio.hw.iss import Simulator
from intaglio.ops.reference import run
from intaglio.program import Step
from intaglio.simulation.frame import Job, MemoryModel, simulate_all
from tests.cpu.networks import SMALL, Vit, VitWriter
from tests.fpga.mixtures import Mixture, MixtureWriter

WIDE = Vit(image=24, patch=4, dim=32, layers=2, heads=4, mlp=128, classes=10)
"""37 tokens; the image takes less than what is computed from it."""

CONFIGS = {name: PRESETS[name] for name in ("tiny", "medium", "large")} | {
    "narrow": AcceleratorConfig(
        rows=2, cols=16, depth=16, weight_entries=256, param_groups=256, weight_ports=2
    ),
    "one row": AcceleratorConfig(rows=1, cols=16, depth=8, weight_entries=512, weight_ports=1),
}


STEP = Step("step", "linear", (), "y", {})


def smaller(config, a_words, x_words):
    return config.model_copy(update={"a_words": a_words, "x_words": x_words})


def bounds(program, config):
    """Words of banks A and X: with which nothing is spilled, and without which nothing helps."""
    graph = trace(program)
    whole = allocate(lower(graph, config), config).words
    return whole, least_words(cut(lower(graph, config, 1), config, config.cols), config)


def spilled(program, config, images=1, orders=2):
    """Check the simulator against the reference, in program order and in random ones; the compiled file."""
    built = build(program, config)
    file = ProgramFile.unpack(built.program.pack())
    simulator = Simulator(config, file, built.weights)
    shape = program.tensors[program.input].shape
    for seed in range(images):
        x = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        for task in range(program.tasks):
            expected = run(program, x, task=task)
            data = simulator.run(x.tobytes(), task=task)
            assert len(data) == file.result_bytes
            assert np.array_equal(fpga.result(program.tensors[program.output], data), expected)
            for order in range(orders):
                assert simulator.run(x.tobytes(), order="random", seed=order, task=task) == data
    return file


def counts(file):
    """How many spills and fills a program has."""
    return (
        sum(d["all_rows"] for d in file.descriptors if d.kind == "STORE"),
        sum(d["spilled"] for d in file.descriptors if d.kind == "LOAD_ROWS"),
    )


# --- values -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(root):
    options = Options(input_kind="uint8", mean=(0.2860,), std=(0.3530,))
    return to_program(root / "examples/fashion_mnist/vit_qdq.onnx", options)


@pytest.mark.parametrize(("words", "images"), [((300, 208), 4), ((150, 100), 2)])
def test_the_shipped_model(shipped, words, images):
    file = spilled(shipped, smaller(PRESETS["tiny"], *words), images, orders=1)
    assert min(counts(file)) > 10
    assert file.spill_bytes > 0
    assert file.spill_bytes % 64 == file.result_bytes % 64 == 0


def test_the_shipped_model_in_c(shipped):
    config = smaller(PRESETS["tiny"], 100, 64)
    built = build(shipped, config)
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 1, 28, 28), np.uint8)
    results = Csim(config, built.program, built.weights).run([image.tobytes() for image in images])
    for image, data in zip(images, results, strict=True):
        found = fpga.result(shipped.tensors[shipped.output], data)
        assert np.array_equal(found, run(shipped, image))


@pytest.mark.simulator
@pytest.mark.slow
def test_the_shipped_model_on_the_rtl(shipped):
    config = smaller(PRESETS["tiny"], 200, 100)
    built = build(shipped, config)
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 1, 28, 28), np.uint8)
    job = Job(config, built.program, built.weights, [image.tobytes() for image in images])
    (frame,) = simulate_all([job], MemoryModel())
    for image, done in zip(images, frame.runs, strict=True):
        assert done.status == 0
        found = fpga.result(shipped.tensors[shipped.output], done.result)
        assert np.array_equal(found, run(shipped, image))


@pytest.mark.parametrize("seed", range(10))
def test_shrinking(seed):
    """Random models on scratchpads between the least that works and the most that is needed."""
    rng = np.random.default_rng(seed)
    config = CONFIGS[list(CONFIGS)[seed % len(CONFIGS)]]
    heads = int(rng.integers(1, 5))
    vit = Vit(
        image=4 * int(rng.integers(4, 7)), patch=4, dim=heads * int(rng.choice([8, 12, 16])), heads=heads,
        layers=2, mlp=int(rng.integers(3, 9)) * 16, classes=10, residual=str(rng.choice(["int8", "int16"])),
    )  # fmt: skip
    program = VitWriter(vit, seed).build()
    whole, least = bounds(program, config)
    for part in (0, float(rng.random()) ** 2):
        words = {bank: max(16, int(least[bank] + part * (whole[bank] - least[bank]))) for bank in "AX"}
        spilled(program, smaller(config, words["A"], words["X"]), orders=1)


@pytest.mark.parametrize("mixture", [Mixture(), Mixture(function="own", experts=4, k=3, tasks=2)])
def test_mixtures_of_experts(mixture):
    """Every chunk of rows has its own routing."""
    vit = replace(WIDE, residual="int16")
    program = MixtureWriter(mixture, vit).build(whole=True)
    whole, least = bounds(program, PRESETS["tiny"])
    words = {bank: (whole[bank] + 3 * least[bank]) // 4 for bank in "AX"}
    file = spilled(program, smaller(PRESETS["tiny"], words["A"], words["X"]), orders=1)
    assert min(counts(file)) > 0
    assert sum(d.kind == "ROUTE" for d in file.descriptors) > 1


# --- when, and what -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["tiny", "large"])
def test_nothing_is_spilled_that_fits(preset):
    """With exactly the words that it needs, a program is the one for large scratchpads."""
    program = VitWriter(WIDE).build()
    whole, _ = bounds(program, PRESETS[preset])
    built = build(program, smaller(PRESETS[preset], whole["A"], max(whole["X"], 16)))
    assert built.program.spill_bytes == 0
    assert counts(built.program) == (0, 0)
    assert list(built.program.descriptors) == list(build(program, PRESETS[preset]).program.descriptors)


def test_heads_come_first():
    """A little less room is made by computing queries, keys and values of some heads at a time, without a spill."""
    program = VitWriter(replace(WIDE, mlp=32)).build()
    whole, _ = bounds(program, PRESETS["tiny"])
    built = build(program, smaller(PRESETS["tiny"], whole["A"] - 1, whole["X"]))
    assert [d.kind for d in built.program.descriptors].count("ATTENTION") == 4
    assert counts(built.program) == (0, 0)


@pytest.mark.parametrize(("bank", "key"), [("A", "a_words"), ("X", "x_words")])
def test_too_small_even_so(bank, key):
    """The refusal says what suffices, and what suffices to spill nothing."""
    program = VitWriter(replace(SMALL, dim=96)).build()
    config = PRESETS["tiny"].model_copy(update={key: 16})
    with pytest.raises(UnsupportedError) as error:
        build(program, config)
    found = re.fullmatch(
        rf"even spilled to external memory, the model's activations need (\d+) words of scratchpad bank {bank} at a "
        rf"time, the configuration has 16; raise {key} in the configuration to at least (\d+), or to (\d+) to spill "
        r"none\.",
        str(error.value),
    )
    least, again, whole = map(int, found.groups())
    assert 16 < least == again < whole
    assert build(program, config.model_copy(update={key: least})).program.spill_bytes > 0
    with pytest.raises(UnsupportedError):
        build(program, config.model_copy(update={key: least - 1}))
    assert build(program, config.model_copy(update={key: whole})).program.spill_bytes == 0


def test_chunks_hold_whole_column_tiles_of_keys():
    config = PRESETS["medium"]
    for op in cut(lower(trace(VitWriter(WIDE).build()), config, 2), config, config.cols):
        if isinstance(op, Attention):
            assert [buffer.low for buffer in op.k] == [0, 16, 32]
            assert op.heads == 2
        if isinstance(op, Gemm):
            assert op.rows <= 16


@dataclass(eq=False)
class ReadWrite(Operation):
    """Reads some buffers, writes at most one."""

    sources: tuple[Buffer, ...]
    target: Buffer | None

    @property
    def reads(self):
        return list(self.sources)

    @property
    def writes(self):
        return self.target


def test_the_farthest_next_use_leaves():
    """Four buffers of 16 words in 48: the one whose next use is farthest leaves, once stored not again."""
    config = smaller(PRESETS["tiny"], 48, 16)
    a, b, c, d = (Buffer(name, "A", np.arange(32), False, 0, 16) for name in "abcd")
    uses = [
        ([], a),
        ([], b),
        ([], c),
        ([], d),
        ([b], None),
        ([c], None),
        ([a], None),
        ([d, b, c], None),
        ([a], None),
    ]
    operations = [ReadWrite(STEP, tuple(reads), writes) for reads, writes in uses]
    paged = page(operations, config)
    moves = [
        (type(op).__name__, (op.x if isinstance(op, Spill) else op.out).name)
        for op in paged.operations
        if isinstance(op, Spill | Fill)
    ]
    # a goes for d; when it comes back, d goes (used after the others); a's copy is still good when d comes back.
    assert moves == [("Spill", "a"), ("Spill", "d"), ("Fill", "a"), ("Fill", "d"), ("Fill", "a")]
    assert paged.spill_bytes == 2 * 16 * config.word_bytes
    assert page(operations, smaller(config, 47, 16)) is None


# --- waits --------------------------------------------------------------------------------------------------------


def test_a_wait_left_out_is_found():
    """Without waits of spills and fills there is a race: for what they move, and for external memory."""
    config = smaller(PRESETS["tiny"], 100, 24)
    descriptors = list(build(VitWriter(WIDE).build(), config).program.descriptors)
    found = 0
    for index, d in enumerate(descriptors):
        if not (d["all_rows"] or d["spilled"]):
            continue
        for unit in d.waits:
            waits = {u: w for u, w in d.waits.items() if u != unit}
            changed = [*descriptors[:index], replace(d, waits=waits), *descriptors[index + 1 :]]
            with pytest.raises(ScheduleError, match=r"needs \w\w at \d+, which no wait guarantees"):
                check(changed, config)
            found += 1
    assert found > 20


# --- what is shown ------------------------------------------------------------------------------------------------


def test_inspect_and_compile_show_it(root, tmp_path):
    config = smaller(PRESETS["tiny"], 168, 16)
    file = tmp_path / "config.toml"
    file.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in config.model_dump().items()))
    model = str(root / "tests/fixtures/ort_dynamo_s8s8_pc_sym.onnx")
    out = str(tmp_path / "out")
    command = ["compile", model, "--target", "tiny", "--config", str(file), "-o", out]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)["spilling"]
    values = json.loads(CliRunner().invoke(app, ["inspect", out, "--program", "--json"]).stdout)
    assert values["spilling"] == shown
    moved = [line["fields"] for line in values["program"] if "external memory" in line["comment"]]
    stored = [fields["words"] for fields in moved if fields.get("all_rows")]
    loaded = [fields["words"] for fields in moved if fields.get("spilled")]
    assert (shown["spills"], shown["spilled_bytes"]) == (len(stored), sum(stored) * config.word_bytes)
    assert (shown["fills"], shown["filled_bytes"]) == (len(loaded), sum(loaded) * config.word_bytes)
    assert 0 < shown["area"] <= shown["spilled_bytes"]
    table = CliRunner().invoke(app, ["inspect", out, "--program"]).stdout
    assert f"spilled: {shown['area']:,} bytes of external memory" in table
    assert "to external memory, for" in table
