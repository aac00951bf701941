"""Where tokens go, and how often the integer router chooses as the gates of ONNX models do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from intaglio import gates, router
from intaglio.ops import linear
from intaglio.program import Program
from tests.moe_programs import Shape, Writer, built, forced, grid

SHAPE = Shape(tokens=40, experts=6, k=2)
X, LOGITS = grid("int8", 1.0, 5), grid("int16", 6.0)
NODES = ("gate/MatMul", "gate/Add", "gate/QuantizeLinear")


def weights(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A gate [tasks, K, E] and its bias [tasks, E], on the integer gate's grids."""
    rng = np.random.default_rng(seed)
    step = 0.01
    weight = rng.integers(-127, 128, (2, SHAPE.depth, SHAPE.experts)) * step
    bias = np.rint(rng.normal(size=(2, SHAPE.experts)) / (X.scale * step)) * (X.scale * step)
    return weight, bias


def program(seed: int, *, folded: bool = False) -> Program:
    """The gate and a mixture that it routes, with the tokens in the first axis if `folded`."""
    writer = Writer("gated", (1, SHAPE.tokens, SHAPE.depth), "int8", task=True)
    each = [
        linear.parameters(X, np.rint(w.T / 0.01).astype(np.int64), 0.01, b, LOGITS)
        for w, b in zip(*weights(seed), strict=True)
    ]
    gate = linear.with_tasks(each)
    x, scores = "input", writer.op("linear", ["input", *gate.constants, "task"], gate.attrs)
    if folded:
        x = writer.op("reshape", [x], {"shape": [SHAPE.tokens, SHAPE.depth]})
        scores = writer.op("reshape", [scores], {"shape": [SHAPE.tokens, SHAPE.experts]})
    made = built(np.random.default_rng(seed), SHAPE)
    writer.op("moe", [x, scores, *made.constants], made.attrs)
    plain = writer.program()
    source = plain.tensors["input"]
    tensors = {**plain.tensors, "input": replace(source, scale=X.scale, zero_point=X.zero_point)}
    return replace(
        plain, tensors=tensors, steps=[replace(plain.steps[0], onnx_nodes=NODES), *plain.steps[1:]]
    )


def model(folder: Path, seed: int, *, shift: float = 0.0) -> Path:
    """An ONNX model whose gate reads its input + `shift` (so that it differs within the model, but not alone)."""
    weight, bias = weights(seed)
    constants = {
        "w": weight.astype(np.float32), "b": bias.astype(np.float32), "shift": np.float32([shift]),
        "scale": np.float32(LOGITS.scale), "zero": np.int16(0), "one": np.array([1]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["task", "one"], ["index"]),
        helper.make_node("Gather", ["w", "index"], ["w1"]),
        helper.make_node("Gather", ["b", "index"], ["b1"]),
        helper.make_node("Add", ["image", "shift"], ["x"], name="before"),
        helper.make_node("MatMul", ["x", "w1"], ["product"], name=NODES[0]),
        helper.make_node("Add", ["product", "b1"], ["logits"], name=NODES[1]),
        helper.make_node("QuantizeLinear", ["logits", "scale", "zero"], ["q"], name=NODES[2]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    shape = [1, SHAPE.tokens]
    ends = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*shape, SHAPE.experts])]
    source = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [*shape, SHAPE.depth]),
        helper.make_tensor_value_info("task", TensorProto.INT64, []),
    ]
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "graph", source, ends, tensors)
    path = folder / f"{seed}_{shift}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def samples(count: int) -> np.ndarray:
    rng = np.random.default_rng(9)
    return rng.integers(-128, 128, (count, SHAPE.tokens, SHAPE.depth)).astype(np.int8)


def expected_share(x: np.ndarray, ours: int, theirs: int, task: int, shift: float = 0.0) -> float:
    """Two float64 gates compared by sets."""
    real = X.dequantize(x)
    sets = []
    for seed, offset in ((ours, 0.0), (theirs, shift)):
        weight, bias = weights(seed)
        logits = (real + offset) @ weight[task] + bias[task]
        best = np.argsort(-logits, axis=-1, kind="stable")[..., : SHAPE.k]
        sets.append(np.sort(best, axis=-1))
    return float((sets[0] == sets[1]).all(axis=-1).mean())


@pytest.mark.parametrize(("task", "folded"), [(0, False), (1, False), (1, True)])
def test_agreement_is_the_share_of_tokens_with_the_same_experts(
    task: int, folded: bool, tmp_path: Path
) -> None:
    x = samples(5)
    real = X.dequantize(x).astype(np.float32)
    source, other = model(tmp_path, 1, shift=0.2), model(tmp_path, 2)
    (same,) = router.agreement(program(1, folded=folded), x, real, source, None, task)
    # An int16 grid moves a token in some thousands only; within the model the gate reads something else.
    assert same.gate == 1
    assert same.source == pytest.approx(expected_share(x, 1, 1, task, 0.2), abs=0.02)
    assert 0.1 < same.source < 0.999
    assert same.float_model is None
    (different,) = router.agreement(program(1, folded=folded), x, real, source, other, task)
    assert different.gate == different.float_model == pytest.approx(expected_share(x, 1, 2, task), abs=0.02)
    assert 0 < different.gate < 0.6
    assert different.source == same.source


def test_a_gate_that_the_model_does_not_name_is_not_compared(tmp_path: Path) -> None:
    path = model(tmp_path, 1)
    assert gates.gate_tensors(path, ["nobody"]) is None
    assert gates.gate_tensors(path, NODES) == gates.GateTensors("x", "logits")
    made = program(1)
    nameless = replace(made, steps=[replace(made.steps[0], onnx_nodes=()), made.steps[1]])
    x = samples(1)
    (found,) = router.agreement(nameless, x, X.dequantize(x).astype(np.float32), path, None)
    assert (found.gate, found.source, found.float_model) == (None, None, None)


def test_the_record_counts_tokens_and_unused_weights() -> None:
    made = forced(np.random.default_rng(0), Shape(tokens=12, experts=5, k=1), "one token each")
    one = replace(made.tensors["input"], shape=(1, 12, 32))
    shape = made.tensors[made.steps[0].inputs[1]]
    logits = replace(shape, shape=(1, *shape.shape), data=shape.data[None])
    output = replace(made.tensors["moe_0"], shape=(1, 12, 32))
    tensors = {**made.tensors, "input": one, logits.name: logits, "moe_0": output}
    x = np.zeros((1, 12, 32), np.int8)
    (layer,) = router.record(replace(made, tensors=tensors), x)
    assert layer.tokens == [3, 3, 2, 2, 2]
    assert layer.loaded == [5]
    assert layer.unused_bytes == 0
    assert layer.expert_bytes == 32 * 48 + 48 * 32 + (48 + 32) * 12
    few = replace(logits, data=np.where(np.arange(5) < 2, logits.data, -32768).astype(np.int16))
    few.data[0, :, 0] = 5
    (layer,) = router.record(replace(made, tensors={**tensors, logits.name: few}), x)
    assert layer.loaded == [2]
    assert layer.unused_bytes == 3 * layer.expert_bytes
