"""Float mixtures of experts, in any spelling and of several tasks: what is written compiles to one program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from intaglio.compiler import to_program
from intaglio.ops import reference
from intaglio.program import Program
from intaglio.quantize import quantize
from intaglio.quantize.images import Images
from tests.frontend.graphs import Array, quantized

SPELLINGS = ("dense_stack", "dense_one", "batched", "gathered", "loop", "one_hot")


def program(source: Path, images: Images, folder: Path) -> tuple[Program, float]:
    """The program of the quantized model, and its likeness to the float one."""
    out = folder / f"{source.stem}_q.onnx"
    report = quantize(source, images, out)
    return to_program(out), report.cosine


@pytest.fixture(scope="module")
def first(fixtures: Path, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The program of the first spelling."""
    source = fixtures / "moe" / f"{SPELLINGS[0]}_legacy.onnx"
    return program(source, images[:4], tmp_path_factory.mktemp("moe"))[0]


@pytest.mark.parametrize("spelling", SPELLINGS[1:])
def test_every_spelling_gives_the_same_bits(
    spelling: str, first: Program, fixtures: Path, images: Images, tmp_path: Path
) -> None:
    other, cosine = program(fixtures / "moe" / f"{spelling}_legacy.onnx", images[:4], tmp_path)
    assert cosine > 0.99
    assert [step.op for step in other.steps].count("moe") == 1
    for x in images[4:7]:
        a, b = (reference.run(p, quantized(x[None], p)) for p in (first, other))
        assert np.array_equal(a, b)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_experts_stay_on_8_bits(dtype: str, fixtures: Path, images: Images, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    report = quantize(fixtures / "moe" / "loop_legacy.onnx", images[:4], out, activations=dtype)
    assert {entry.dtype for entry in report.added if entry.role == "expert"} == {"int8"}
    assert [step.op for step in to_program(out).steps].count("moe") == 1


def with_gates(path: Path) -> tuple[onnx.ModelProto, Array]:
    """The float model at `path` with a gate for each of two tasks, and the stack of both."""
    model = onnx.load(path)
    gate = next(t for t in model.graph.initializer if list(t.dims) in ([4, 32], [32, 4]))
    value = numpy_helper.to_array(gate)
    stack = np.stack([value, value[:, ::-1] if value.shape[1] == 4 else value[::-1]])
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(stack), "gates"))
    model.graph.input.append(helper.make_tensor_value_info("task", TensorProto.INT64, [1]))
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == gate.name:
                node.input[index] = "gate"
    nodes = [
        helper.make_node("Gather", ["gates", "task"], ["row"], name="pick", axis=0),
        helper.make_node("Reshape", ["row", "shape"], ["gate"], name="flat"),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value.shape, np.int64), "shape"))
    for offset, node in enumerate(nodes):
        model.graph.node.insert(offset, node)
    return model, stack


def test_two_tasks(fixtures: Path, images: Images, tmp_path: Path) -> None:
    source = tmp_path / "tasks.onnx"
    model, stack = with_gates(fixtures / "moe" / "dense_stack_dynamo.onnx")
    onnx.save(model, source)
    made, cosine = program(source, images[:4], tmp_path)
    assert cosine > 0.99  # of both tasks
    assert made.tasks == 2
    (step,) = (step for step in made.steps if step.attrs.get("has_task"))
    weight = made.tensors[step.inputs[1]].data
    assert weight is not None
    # Channel by channel, on one scale for both tasks: the second gate is the first with its experts reversed.
    scale = np.abs(stack).max(axis=(0, 1) if stack.shape[-1] == 4 else (0, 2)) / 127
    rows = stack.transpose(0, 2, 1) if stack.shape[-1] == 4 else stack
    assert np.abs(weight - np.rint(rows / scale[:, None])).max() <= 1
    assert not np.array_equal(weight[0], weight[1])
