"""From a model to an accelerator's program: the bits it computes, what an artifact holds, and every refusal."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from intaglio import artifact, ops
from intaglio.accelerator.config import PRESETS
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.accelerator.support import reason
from intaglio.backends import fpga
from intaglio.backends.fpga.build import build
from intaglio.backends.fpga.trace import trace
from intaglio.cli.app import app
from intaglio.compiler import Options, to_program
from intaglio.errors import InputError, UnsupportedError
from intaglio.hw.iss import Simulator
from intaglio.ops import Grid
from intaglio.ops.reference import run
from intaglio.target import configuration, configured, find
from tests.cpu.harness import ProgramWriter
from tests.cpu.networks import SMALL, VitWriter


def centred(program, **attrs):
    """`program` with attributes of its attentions replaced: another model, of the same shapes."""
    steps = [
        replace(step, attrs={**step.attrs, **attrs}) if step.op == "attention" else step
        for step in program.steps
    ]
    return replace(program, steps=steps)


def assert_equal(program, config, seed=0):
    """The simulator, in program order and in a random one with race detection, gives the reference's bits."""
    built = build(program, config)
    simulator = Simulator(config, ProgramFile.unpack(built.program.pack()), built.weights)
    tensor = program.tensors[program.input]
    limits = np.iinfo(tensor.dtype)
    x = np.random.default_rng(seed).integers(limits.min, limits.max + 1, tensor.shape).astype(tensor.dtype)
    expected = run(program, x)
    for order in ("program", "random"):
        data = simulator.run(x.tobytes(), order=order, seed=seed)
        assert np.array_equal(fpga.result(program.tensors[program.output], data), expected), order


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("model", ["ort_dynamo_s8s8_pc_sym", "quark_a8w8_legacy"])
def test_fixtures(root, model, preset):
    assert_equal(to_program(root / "tests/fixtures" / f"{model}.onnx"), PRESETS[preset])


@pytest.mark.parametrize("residual", ["int8", "int16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_vit(preset, residual):
    assert_equal(VitWriter(replace(SMALL, residual=residual)).build(), PRESETS[preset])


@pytest.mark.parametrize("zeros", [(-77, 113, 5), (0, 5, -128), (-128, 0, 0), (127, 127, 127)])
def test_zero_points(zeros):
    """Heads of 12 channels: their lanes are filled up."""
    program = VitWriter(replace(SMALL, heads=4)).build()
    attrs = dict(zip(("q_zero", "k_zero", "v_zero"), zeros, strict=True))
    for preset in ("medium", "large"):
        assert_equal(centred(program, **attrs), PRESETS[preset])


@pytest.mark.parametrize(
    "model",
    [
        "ort_dynamo_u8s8_pc",  # zero points, tables on q and k
        "ort_hf_clip_dynamo_u8s8_pc",  # LayerNorm before the residual stream, q, k, v apart
        "ort_hf_vit_legacy_s8s8_pc",
        "ort_static_dynamo_s8s8_pc_gemm",  # residuals that are ops of their own
    ],
)
def test_other_exporters(root, model):
    assert_equal(to_program(root / "tests/fixtures" / f"{model}.onnx"), PRESETS["tiny"])


def test_raw_pixels(root):
    options = Options(input_kind="uint8", mean=(0.2860,), std=(0.3530,))
    program = to_program(root / "examples/fashion_mnist/vit_qdq.onnx", options)
    for preset in ("tiny", "medium", "large"):
        assert_equal(program, PRESETS[preset])


def test_registers_after_the_position():
    """Constant tokens may join after the position embedding."""
    writer = VitWriter(SMALL)
    x = patches(writer)
    x = writer.op("concat", [constant(writer, 1), x], {"axis": 1})
    x = writer.op("add", [x, constant(writer, 26)], added(writer))
    head = {"begin": [0, 0, 0], "end": [1, 1, 48], "strides": [1, 1, 1]}
    tail = {"begin": [0, 1, 0], "end": [1, 26, 48], "strides": [1, 1, 1]}
    parts = [writer.op("slice", [x], head), constant(writer, 4), writer.op("slice", [x], tail)]
    x = writer.op("concat", parts, {"axis": 1})
    writer.vit = SimpleNamespace(**vars(SMALL), tokens=30)
    x = writer.layernorm(writer.mlp(writer.attention(x)))
    x = writer.op("reshape", [writer.op("slice", [x], head)], {"shape": [1, 48]})
    writer.linear(x, Grid(0.04, 0, "int8"), 10, Grid(0.1, 0, "int8"))
    program = writer.program()
    for preset in PRESETS:
        assert_equal(program, PRESETS[preset])


def finish(writer, x):
    writer.linear(
        writer.op("reshape", [first_token(writer, x)], {"shape": [1, 48]}),
        Grid(0.04, 0, "int8"), 10, Grid(0.1, 0, "int8"),
    )  # fmt: skip
    for preset in PRESETS:
        assert_equal(writer.program(), PRESETS[preset])


def test_constant_tokens_without_position():
    writer = VitWriter(SMALL)
    x = writer.op("concat", [constant(writer, 3), patches(writer)], {"axis": 1})
    finish(writer, writer.layernorm(x))


def test_constant_tokens_into_a_linear():
    writer = VitWriter(SMALL)
    x = writer.op("concat", [constant(writer, 3), patches(writer)], {"axis": 1})
    finish(writer, writer.linear(x, writer.stream, 48, Grid(0.04, 0, "int8")))


def test_position_wider_than_the_stream():
    writer = VitWriter(SMALL)
    x = writer.op("concat", [constant(writer, 1), patches(writer)], {"axis": 1})
    position = writer.rng.integers(-9999, 9999, (1, 26, 48)).astype(np.int16)
    attrs = ops.add.parameters(writer.stream, Grid(0.0004, 7, "int16"), writer.stream).attrs
    finish(writer, writer.layernorm(writer.op("add", [x, position], attrs)))


def test_position_that_all_tokens_share():
    writer = VitWriter(SMALL)
    attrs = ops.add.parameters(writer.stream, Grid(0.3, 0, "int8"), writer.stream).attrs
    x = writer.op("add", [patches(writer), constant(writer, 1)[0]], attrs)
    finish(writer, writer.layernorm(x))


# --- refusals -----------------------------------------------------------------------------------------------------

PRODUCT = {"acc_dtype": "int32"}
ATTENTION = {"score_dtype": "int8", "e_bits": 15, "dtype": "int8", "acc_dtype": "int32"}
NORM = {"mean": "exact", "dtype": "int8"}


@pytest.mark.parametrize(
    ("op", "dtypes", "attrs", "message"),
    [
        ("linear", ["int16", "int8"], PRODUCT, "its input is int16"),
        ("linear", ["int8", "int16"], PRODUCT, "its weights are int16"),
        ("patch_embed", ["int8", "int8"], {"acc_dtype": "int64"}, "accumulator may exceed 32 bits"),
        ("attention", ["int16"] * 3, ATTENTION, "q, k and v are int16, int16, int16"),
        ("attention", ["int8"] * 3, ATTENTION | {"score_dtype": "int16"}, "its scores are int16"),
        ("attention", ["int8"] * 3, ATTENTION | {"e_bits": 22}, "its output is 16-bit"),
        ("attention", ["int8"] * 3, ATTENTION | {"acc_dtype": "int64"}, "accumulator may exceed 32 bits"),
        ("layernorm", ["int8"], NORM | {"mean": "rounded"}, r"rounds its mean \(I-ViT\)"),
        ("layernorm", ["int8"], NORM | {"dtype": "int16"}, "its output is int16"),
        ("table", ["int16"], {}, "65536 entries"),
        ("rescale", ["int8"], {}, "no unit for a rescale"),
        ("mean", ["int8"], {}, "no unit for pooling"),
        ("gather", ["int8"], {}, "gathering tokens"),
        ("broadcast", ["int8"], {}, "broadcasting"),
        ("matmul", ["int8"], {}, "only inside attention"),
        ("softmax", ["int8"], {}, "only inside attention"),
        ("topk", ["int8"], {}, "no unit for ranking"),
        ("argmax", ["int8"], {}, "no unit for ranking"),
    ],
)
def test_reasons(op, dtypes, attrs, message):
    why, what_to_do = reason(op, dtypes, attrs)
    assert re.search(message, why)
    assert what_to_do


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "ort_dynamo_s16s8_pc",
            r"patch_embed \(ONNX node 'node_conv2d'\) does not run on the accelerator: its input",
        ),
        (
            "ort_avgpool_dynamo_u8s8_pc",
            r"mean \(ONNX node 'node_mean'\) .*no unit for pooling",
        ),
        ("ort_dinov2_legacy_s8s8_pc", r"rescale \(ONNX node '/blocks/blocks.0/ls1/Mul'\)"),
    ],
)
def test_partition_names_the_node(root, model, message):
    with pytest.raises(UnsupportedError, match=message):
        to_program(root / "tests/fixtures" / f"{model}.onnx", target=find("tiny"))


def patches(writer):
    pixels = Grid(0.018, -3, "int8")
    table = ops.quantize_input.parameters([0.5] * 3, [0.2] * 3, pixels, 3)
    x = writer.op("quantize_input", ["input", *table.constants])
    built = ops.patch_embed.parameters(
        pixels,
        writer.weights(48, 192).reshape(48, 3, 8, 8),
        writer.scale(192, 48),
        writer.bias(48),
        writer.stream,
    )
    return writer.op("patch_embed", [x, *built.constants], built.attrs)


def constant(writer, tokens):
    return writer.rng.integers(-100, 100, (1, tokens, 48)).astype(np.int8)


def added(writer):
    return ops.add.parameters(writer.stream, writer.stream, writer.stream).attrs


def identity():
    return np.arange(-128, 128).astype(np.int8)


def first_token(writer, x):
    return writer.op("slice", [x], {"begin": [0, 0, 0], "end": [1, 1, 48], "strides": [1, 1, 1]})


def refused(writer, message):
    with pytest.raises(UnsupportedError, match=message):
        trace(writer.program())


def test_batch():
    writer = ProgramWriter("two", (2, 3, 16, 16), "int8")
    writer.op("reshape", ["input"], {"shape": [2, 768]})
    refused(writer, "one image at a time, not a batch of 2; compile with --batch 1")


def test_image_is_rearranged():
    writer = ProgramWriter("flat", (1, 3, 16, 16), "int8")
    writer.op("reshape", ["input"], {"shape": [1, 768]})
    refused(writer, "reshape .* it rearranges the image before the patch embedding")


def test_no_patch_embedding():
    writer = ProgramWriter("raw", (1, 3, 16, 16), "uint8")
    table = ops.quantize_input.parameters([0.5] * 3, [0.2] * 3, Grid(0.01, 0, "int8"), 3)
    writer.op("quantize_input", ["input", *table.constants])
    refused(writer, "raw has no patch embedding, so no image can enter the accelerator")


def test_int16_pixels():
    writer = ProgramWriter("wide", (1, 3, 16, 16), "uint8")
    table = ops.quantize_input.parameters([0.5] * 3, [0.2] * 3, Grid(0.001, 0, "int16"), 3)
    writer.op("quantize_input", ["input", *table.constants])
    refused(writer, "quantize_input .* it makes int16 pixels")


@pytest.mark.parametrize("preset", PRESETS)
def test_several_tokens_out(preset):
    writer = VitWriter(SMALL)
    writer.linear(patches(writer), writer.stream, 48, Grid(0.04, 0, "int8"))
    assert_equal(writer.program(), PRESETS[preset])


def test_tokens_of_broken_words():
    writer = VitWriter(SMALL)
    writer.linear(patches(writer), writer.stream, 10, Grid(0.04, 0, "int8"))
    with pytest.raises(
        UnsupportedError, match=r"linear .* the result has 25 tokens of 10 channels, which fill"
    ):
        build(writer.program(), PRESETS["tiny"])


def test_table_after_layernorm():
    writer = VitWriter(SMALL)
    x = writer.layernorm(patches(writer))
    first_token(writer, writer.op("table", [x, identity()]))
    refused(writer, "table .* a table runs only on the result of a linear, not of layernorm")


def test_add_without_linear():
    writer = VitWriter(SMALL)
    x = writer.layernorm(patches(writer))
    first_token(writer, writer.op("add", [x, x], added(writer)))
    refused(writer, "add .* neither operand is the result of a linear")


def test_tokens_from_several_tensors():
    writer = VitWriter(SMALL)
    x = patches(writer)
    x = writer.op("concat", [x, writer.layernorm(x)], {"axis": 1})
    first_token(writer, writer.layernorm(x))
    refused(writer, "layernorm .* is put together from several tensors")


def test_tokens_and_channels_mixed():
    writer = VitWriter(SMALL)
    x = writer.op("transpose", [patches(writer)], {"axes": [0, 2, 1]})
    x = writer.op("reshape", [x], {"shape": [1, 25, 48]})
    first_token(writer, writer.layernorm(x))
    refused(writer, "layernorm .* mixes tokens and channels")


def attended(heads, transposed):
    """The first token as attention leaves it; `transposed`: heads innermost."""
    writer = VitWriter(replace(SMALL, heads=heads))
    x = writer.op("concat", [constant(writer, 1), patches(writer)], {"axis": 1})
    linear = writer.linear
    # Without the linear that follows attention.
    writer.linear = lambda y, *args, **kw: y if "residual" in kw else linear(y, *args, **kw)
    x = writer.attention(x)
    if transposed:
        grid = writer.op("reshape", [x], {"shape": [1, 26, heads, 48 // heads]})
        x = writer.op(
            "reshape", [writer.op("transpose", [grid], {"axes": [0, 1, 3, 2]})], {"shape": [1, 26, 48]}
        )
    writer.op("reshape", [first_token(writer, x)], {"shape": [1, 48]})
    return writer.program()


@pytest.mark.parametrize(("heads", "transposed"), [(4, False), (3, True)])
def test_a_result_in_the_lanes_of_attention(heads, transposed):
    """Heads of 12 channels fill no whole words; heads that are interleaved are in another order."""
    message = (
        "order in which attention leaves it; add a linear layer after it, or compile for target cpu or c"
    )
    with pytest.raises(UnsupportedError, match=message):
        build(attended(heads, transposed), PRESETS["tiny"])


def test_a_result_of_attention_in_whole_words():
    assert_equal(attended(3, False), PRESETS["tiny"])


def test_image_that_does_not_fit():
    writer = VitWriter(replace(SMALL, image=40, patch=8))
    first_token(writer, writer.layernorm(patches(writer)))
    program = writer.program()
    assert_equal(program, PRESETS["large"])
    odd = ProgramWriter("odd", (1, 1, 3, 3), "int8")
    grid = Grid(0.1, 0, "int8")
    built = ops.patch_embed.parameters(grid, np.ones((8, 1, 3, 3), np.int8), 0.1, None, grid)
    odd.op("patch_embed", ["input", *built.constants], built.attrs)
    with pytest.raises(UnsupportedError, match=r"a band of patches has 9 bytes, no multiple of .* depth 8"):
        build(odd.program(), PRESETS["tiny"])


# --- artifacts and commands ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    root = tmp_path_factory.getbasetemp()
    folder = root / "fpga"
    model = "tests/fixtures/ort_dynamo_s8s8_pc_sym.onnx"
    done = CliRunner().invoke(
        app, ["compile", model, "--target", "tiny", "--config", "large", "-o", str(folder)]
    )
    assert done.exit_code == 0, done.output
    return folder


def test_artifact(compiled):
    loaded = artifact.load(compiled)
    program = fpga.load(loaded)
    assert program.config == PRESETS["large"]
    assert program.program.config_hash == PRESETS["large"].hash
    assert program.program.weight_bytes == len(program.weights)
    assert len(program.comments) == len(program.program.descriptors)
    assert loaded.manifest.output.shape == [1, 10]


def test_inspect_program(compiled):
    shown = CliRunner().invoke(app, ["inspect", str(compiled), "--program", "--json"])
    lines = json.loads(shown.stdout)["program"]
    assert [line["index"] for line in lines] == list(range(len(lines)))
    assert set(lines[0]) == {"index", "kind", "unit", "fields", "waits", "step", "comment"}
    assert lines[-1]["kind"] == "STORE"
    table = CliRunner().invoke(app, ["inspect", str(compiled), "--program"])
    assert "keys of head 0" in table.stdout


def test_inspect_what_is_no_program(tmp_path):
    shown = CliRunner().invoke(app, ["inspect", "tests/fixtures/ort_dynamo_s8s8_pc_sym.onnx", "--program"])
    assert shown.exit_code == 2
    assert "is no output folder of intaglio compile for an FPGA target" in shown.stderr


def test_configurations(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("rows = 4\ncols = 16\ndepth = 8\n")
    assert configuration(str(file)).cols == 16
    assert configuration("targets/tiny.toml") == PRESETS["tiny"]
    assert configuration("medium") == PRESETS["medium"]
    assert configuration("kv260").cols == 16
    with pytest.raises(InputError, match="there is no configuration 'tinny'; did you mean 'tiny'"):
        configuration("tinny")
    with pytest.raises(
        InputError, match="there is no configuration 'cpu'; known configurations: arty-a7, ecp5, "
    ):
        configuration("cpu")
    file.write_text("row = 4\n")
    with pytest.raises(InputError, match="unknown key 'row' for a configuration; did you mean 'rows'"):
        configuration(str(file))
    with pytest.raises(InputError, match="target 'c' is no FPGA"):
        configured(find("c"), "tiny")
    assert configured(find("tiny"), "large").accelerator == PRESETS["large"]
    assert configured(find("c"), None) == find("c")
