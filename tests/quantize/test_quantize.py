"""Float and partly quantized fixtures: what is written compiles, runs, and computes what it did."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from intaglio.compiler import to_program
from intaglio.frontend.load import opset_of
from intaglio.ops import reference
from intaglio.quantize import QuantizeReport, quantize

Images = NDArray[np.float32]
Real = NDArray[np.float64]

FLOAT = [
    "timm_legacy_op13",  # everything decomposed, qkv behind a reshape
    "timm_converted_newest",  # an opset for which ONNX Runtime has no Q/DQ
    "dinov2_reg4_avg_dynamo_op20",  # LayerScale, registers, pooling
    "hf_clip_legacy_op17",  # QuickGelu, Cast on the input, LayerNorm before the blocks
]
PARTLY = [
    "nncf_dynamo_transformer",
    "pt2e_x86",
    "ort_op23_s8s8_pc",  # Attention as one op
    "ort_legacy_u8s8_pc_matrix",
    "ort_deit_dynamo_u8s4_pc",  # 4-bit weights in opset 20
]


def onnxruntime_run(path: Path, images: Images) -> Real:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images]).astype(np.float64)


def integer_run(path: Path, images: Images) -> Real:
    program = to_program(path)
    given, result = program.tensors[program.input], program.tensors[program.output]
    limits = np.iinfo(given.dtype)
    integers = np.rint(images / np.float32(given.scale)) + given.zero_point
    integers = np.clip(integers, limits.min, limits.max).astype(given.dtype)
    outputs = [reference.run(program, image[None]) for image in integers]
    return (np.concatenate(outputs).astype(np.float64) - result.zero_point) * result.scale


def least_cosine(a: Real, b: Real) -> float:
    a, b = a.reshape(len(a), -1), b.reshape(len(a), -1)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Constant"]
    return found | {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in nodes}


def own_grids(path: Path) -> dict[tuple[str, str], list[bytes]]:
    """Scales and zero points, bit for bit, by what each Q or DQ of the model computes."""
    model = onnx.load(path)
    values = constants(model)
    return {
        (node.op_type, node.output[0]): [
            values[name].tobytes() for name in node.input[1:] if name in values and values[name].size
        ]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }


@pytest.mark.parametrize("name", FLOAT)
def test_a_float_model_becomes_one_that_compiles(
    name: str, fixtures: Path, images: Images, tmp_path: Path
) -> None:
    source, out = fixtures / f"{name}.onnx", tmp_path / "q.onnx"
    report = quantize(source, images, out)
    assert report.cosine > 0.985
    assert report.roles["weight"] == {"int8": sum(entry.role == "weight" for entry in report.added)}
    assert report.roles["residual"].keys() == {"int16"}
    written = onnxruntime_run(out, images)
    assert least_cosine(written, onnxruntime_run(source, images)) >= report.cosine - 1e-3
    assert least_cosine(integer_run(out, images), written) > 0.99


@pytest.mark.parametrize("name", PARTLY)
def test_complete_keeps_its_scales_and_compiles(
    name: str, fixtures: Path, images: Images, tmp_path: Path
) -> None:
    source, out = fixtures / f"{name}.onnx", tmp_path / "q.onnx"
    report = quantize(source, images, out, complete=True)
    assert report.added
    assert "weight" not in report.roles
    before, after = own_grids(source), own_grids(out)
    assert before
    assert {key: after.get(key) for key in before} == before
    written = onnxruntime_run(out, images)
    assert least_cosine(written, onnxruntime_run(source, images)) > 0.98
    assert least_cosine(integer_run(out, images), written) > 0.98


def test_a_complete_model_is_copied(fixtures: Path, images: Images, tmp_path: Path) -> None:
    source, out = fixtures / "ort_dynamo_s8s8_pc.onnx", tmp_path / "q.onnx"
    report = quantize(source, images, out, complete=True)
    assert report.complete_before
    assert "nothing was missing" in report.summary
    assert onnx.load(out) == onnx.load(source)


def test_completing_twice_adds_nothing(fixtures: Path, images: Images, tmp_path: Path) -> None:
    quantize(fixtures / "nncf_dynamo.onnx", images, tmp_path / "a.onnx", complete=True)
    assert quantize(tmp_path / "a.onnx", images, tmp_path / "b.onnx", complete=True).complete_before


def run_with(fixtures: Path, images: Images, out: Path, **choices: object) -> QuantizeReport:
    return quantize(fixtures / "timm_legacy_op17.onnx", images, out, **choices)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def quantized(fixtures: Path, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantized") / "q.onnx"
    run_with(fixtures, images, out)
    return out


def test_the_result_is_deterministic(quantized: Path, fixtures: Path, images: Images, tmp_path: Path) -> None:
    steps: list[str] = []
    run_with(fixtures, images, tmp_path / "q.onnx", progress=steps.append)
    assert (tmp_path / "q.onnx").read_bytes() == quantized.read_bytes()
    assert "calibrate 6/6" in steps
    assert [path.name for path in tmp_path.iterdir()] == ["q.onnx"]


def test_the_result_is_valid_and_keeps_the_batch_open(quantized: Path) -> None:
    model = onnx.load(quantized)
    onnx.checker.check_model(model, full_check=True)
    assert opset_of(model) == 21
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_one_scale_serves_q_k_and_v(quantized: Path) -> None:
    """Their common product is rounded once, so that it is computed once."""
    ops = [step.op for step in to_program(quantized).steps]
    assert ops.count("attention") == 2
    assert ops.count("linear") == 2 * 4 + 1


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_other_methods_give_a_usable_model(
    method: str, fixtures: Path, images: Images, tmp_path: Path
) -> None:
    assert run_with(fixtures, images, tmp_path / "q.onnx", method=method).cosine > 0.98


@pytest.mark.parametrize(("dtype", "cosine"), [("int8", 0.95), ("int16", 0.999)])
def test_types_can_be_forced(
    dtype: str, cosine: float, fixtures: Path, images: Images, tmp_path: Path
) -> None:
    report = run_with(fixtures, images, tmp_path / "q.onnx", activations=dtype)
    assert {entry.dtype for entry in report.added if entry.role != "weight"} == {dtype}
    assert report.cosine > cosine
    to_program(tmp_path / "q.onnx")


def test_one_scale_per_weight(fixtures: Path, images: Images, tmp_path: Path) -> None:
    run_with(fixtures, images, tmp_path / "q.onnx", per_channel=False)
    model = onnx.load(tmp_path / "q.onnx")
    scales = [value.size for name, value in constants(model).items() if name.endswith("/scale")]
    assert set(scales) == {1}
    to_program(tmp_path / "q.onnx")
