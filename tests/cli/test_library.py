"""What the commands call: executions, comparisons, samples, accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from intaglio import artifact, disassembly, feed, target, verify
from intaglio.classes import top_classes
from intaglio.compiler import compile_model
from intaglio.data import Dataset, Normalization, Samples
from intaglio.errors import InputError, ModelError, ToolError
from intaglio.evaluate import evaluate
from intaglio.execute import Executor
from intaglio.oracle import Oracle, float_sibling, input_shape
from intaglio.program import Program, Tensor
from intaglio.samples import extreme_inputs, image_like, random_inputs
from intaglio.verify import cosine, same_index, top1_agreement
from tests.cli.conftest import MODEL, SHAPE


def test_an_executor_refuses_what_does_not_fit(compiled: Path) -> None:
    with Executor(artifact.load(compiled / "null")) as executor:
        for wrong in (
            np.zeros((1, *SHAPE), np.int8),
            np.zeros((0, *SHAPE), np.uint8),
            np.zeros((1, 3), np.uint8),
        ):
            with pytest.raises(InputError, match=r"must be uint8 \[N, 3, 32, 32\] with N >= 1, not"):
                executor.run(wrong)
        with pytest.raises(InputError, match="takes raw pixels"):
            executor.logits(np.zeros((1, *SHAPE), np.float32))
    with pytest.raises(InputError, match="the device must be one of cpu, c, csim, iss, reference, not 'gpu'"):
        Executor(artifact.load(compiled / "null"), "gpu")


def test_pixels_for_a_model_of_real_values(compiled: Path) -> None:
    with (
        Executor(artifact.load(compiled / "float")) as executor,
        pytest.raises(InputError, match="takes real values"),
    ):
        executor.logits(np.zeros((1, *SHAPE), np.uint8))


def test_threads_do_not_change_a_bit(compiled: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)
    with Executor(artifact.load(compiled / "pixels"), "cpu", 1) as one:
        expected = one.run(images)
    with Executor(artifact.load(compiled / "pixels"), "cpu", 3) as three:
        assert (three.run(images) == expected).all()


def test_real_values_are_quantized_as_onnx_does() -> None:
    tensor = Tensor("x", (1, 4), "int8", 0.5, 3)
    program = Program("p", {"x": tensor}, [], "x", "x")
    real = np.array([[0.25, 0.75, -1e9, 1e9]], np.float32)  # 0.5 and 1.5 grid steps: half to even
    assert feed.quantize(program, real).tolist() == [[3, 5, -128, 127]]
    assert feed.dequantize(program, np.array([[3, 5]], np.int8)).tolist() == [[0.0, 1.0]]


def test_cosine() -> None:
    a = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    b = np.array([[3.0, 0.0], [0.0, -1.0], [0.0, 0.0], [1.0, 0.0]])
    assert cosine(a[:1], b[:1]) == 1
    assert cosine(a[1:2], b[1:2]) == -1
    assert cosine(a[2:3], b[2:3]) == 1
    assert cosine(a[3:], b[3:]) == 0
    assert cosine(a, b) == 0.25


def test_agreement() -> None:
    logits = np.array([[1.0, 2.0], [4.0, 3.0]])
    assert top1_agreement(logits, np.array([[0.0, 9.0], [0.0, 9.0]])) == 0.5
    assert same_index(np.array([3.0, 4.0]), np.array([3.0, 5.0])) == 0.5
    assert same_index(np.array([[3.0, 1.0]]), np.array([[3.0, 2.0]])) == 1


@pytest.mark.parametrize("name", ["cpu", "c"])
def test_a_difference_and_a_float_are_found(
    compiled: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = artifact.load(compiled / "pixels")
    samples = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    with Executor(model, "reference") as executor:
        expected = executor.run(samples)
    assert verify._check(model, name, samples, {0: expected}) == verify.Execution(name, 0, [])

    expected[1, 3] += 1
    monkeypatch.setattr(disassembly, "float_instructions", lambda library: [f"found in {library.suffix}"])
    assert verify._check(model, name, samples, {0: expected}) == verify.Execution(name, 1, ["found in .so"])


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 150), ("int8", -20), ("uint16", 40000), ("int16", 7)])
def test_a_model_that_ends_in_integers(tmp_path: Path, dtype: str, zero: int) -> None:
    """ONNX Runtime's integers are compared on their grid, whatever their type and zero point."""
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = [
        helper.make_tensor("fine", TensorProto.FLOAT, [], [0.02]),
        helper.make_tensor("none", TensorProto.INT8, [], [0]),
        helper.make_tensor("coarse", TensorProto.FLOAT, [], [0.03]),
        helper.make_tensor("zero", code, [], [zero]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "fine", "none"], ["levels"]),
        helper.make_node("DequantizeLinear", ["levels", "fine", "none"], ["real"]),
        helper.make_node("Tanh", ["real"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "coarse", "zero"], ["result"]),
    ]
    ends = [helper.make_tensor_value_info("result", code, [1, 10])]
    source = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 10])]
    graph = helper.make_graph(nodes, "graph", source, ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    compiled = compile_model(tmp_path / "model.onnx", target=target.find("null"), out=tmp_path / "out")
    report = verify.verify(compiled)
    assert report.cosine > 0.9999
    assert report.top1_agreement == 1


def test_a_proof_needs_something_to_compare(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_available", lambda _: ([], {"c": "there is no C compiler"}))
    with pytest.raises(ToolError, match="proves nothing"):
        verify.verify(artifact.load(compiled / "null"))


def test_top_classes() -> None:
    logits = np.array([[0.0, 2.0, 2.0]])
    ranked = top_classes(logits, 2, ["a", "b", "c"], indices=False)
    assert ranked == [[{"class": 1, "label": "b", "logit": 2.0}, {"class": 2, "label": "c", "logit": 2.0}]]
    assert top_classes(np.array([2.0]), 3, None, indices=True) == [
        [{"class": 2, "label": None, "logit": None}]
    ]
    assert [entry["class"] for entry in top_classes(np.array([[2.0, 0.0]]), 1, None, indices=True)[0]] == [2]
    assert top_classes(np.zeros((2, 5, 7)), 3, None, indices=False) == [[], []]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16"])
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 16), (2, 1, 1, 5)])
def test_made_up_inputs(dtype: str, shape: tuple[int, ...]) -> None:
    tensor = Tensor("x", shape, dtype, 0.1)
    given = random_inputs(tensor, 5)
    assert given.shape == (5, *shape[1:])
    assert given.dtype == dtype
    assert (given == random_inputs(tensor, 5)).all()
    assert given.std() > 0
    extreme = extreme_inputs(tensor)
    limits = np.iinfo(dtype)
    assert (extreme.min(), extreme.max()) == (limits.min, limits.max)


def test_image_like_inputs_are_smooth() -> None:
    images = image_like((4, 3, 32, 32), np.random.default_rng(0)).astype(float)
    neighbours = np.abs(np.diff(images, axis=-1)).mean()
    assert neighbours < 0.5 * np.abs(images - images.mean()).mean() * 2
    assert 100 < images.mean() < 156


def test_the_float_model_beside(tmp_path: Path) -> None:
    source = tmp_path / "vit_qdq_default.onnx"
    assert float_sibling(source) is None
    (tmp_path / "vit_float.onnx").touch()
    assert float_sibling(source) == tmp_path / "vit_float.onnx"
    (tmp_path / "vit_qdq_float.onnx").touch()
    assert float_sibling(source) == tmp_path / "vit_qdq_float.onnx"


def test_evaluate(compiled: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), np.uint8)
    compiled_model = artifact.load(compiled / "float")
    how = Normalization((0.5,), (0.5,))
    with Executor(compiled_model) as executor:
        classes = executor.run(feed.integers(compiled_model.program, Samples(images), how)).argmax(axis=1)
    labels = classes.astype(np.uint8)
    labels[0] += 1
    told: list[tuple[str, int]] = []
    report = evaluate(
        compiled_model,
        Dataset("made up", "here", images, labels),
        how=how,
        float_path=MODEL,
        progress=lambda part, done: told.append((part, done)),
    )
    assert report.top1 == 6 / 7
    assert report.top1_float == report.top1_onnxruntime
    assert told == [("integers", 7), ("float", 7), ("ONNX Runtime", 7)]
    assert list(report.as_json()) == ["count", "top1", "top1_float", "top1_onnxruntime"]


def test_a_source_that_the_optimizer_refuses_is_computed_as_written(
    compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Oracle.__init__

    def refusing(self: Oracle, path: Path, *, as_written: bool, **options: Any) -> None:
        if not as_written:
            raise ModelError("invalid nodes")
        honest(self, path, as_written=as_written, **options)

    monkeypatch.setattr(Oracle, "__init__", refusing)
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
    data = Dataset("made up", "here", images, np.zeros(2, np.uint8))
    report = evaluate(artifact.load(compiled / "float"), data, how=Normalization((0.5,), (0.5,)))
    assert report.as_written
    assert report.top1_onnxruntime is not None


def test_an_oracle_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("no")
    with pytest.raises(ModelError, match=r"x\.onnx: ONNX Runtime cannot load it"):
        Oracle(tmp_path / "x.onnx", as_written=True)
    with pytest.raises(InputError, match=r"ONNX Runtime cannot run it"):
        Oracle(MODEL, as_written=True).run(np.zeros((1, 3, 5, 5), np.float32))


def test_the_input_of_a_model() -> None:
    assert input_shape(MODEL) == list(SHAPE)
