"""Mixtures of experts: every spelling of one is the same program, what is none is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from intaglio.compiler import Options, to_program
from intaglio.errors import UnsupportedError
from intaglio.frontend.dialects import to_standard
from intaglio.frontend.load import load
from intaglio.frontend.moe import mixture
from intaglio.frontend.moe.recognise import recognise_moe
from intaglio.ops import reference
from intaglio.program import Program
from tests.frontend.graphs import Array, quantized, run_onnxruntime, run_program

FOLDER = Path(__file__).parents[1] / "fixtures" / "moe"
INDEX: dict[str, dict[str, Any]] = json.loads((FOLDER / "index.json").read_text())
GATED = [name for name in INDEX if "mixtral" in name]
RENORMALISED = ("chosen_softmax", "renormalised", "k3", "hf_experts")
QDQ = [name for name in INDEX if name.endswith("_qdq")]
SAME = [name for name in QDQ if not name.startswith(RENORMALISED)]
FLOAT = [name for name in INDEX if not name.endswith("_qdq") and name not in GATED]
MOVES = ("reshape", "transpose")


def steps(program: Program) -> list[tuple[str, list[tuple[str, Any]], list[bytes]]]:
    """Op, attributes and constants of every step that computes."""
    return [
        (
            step.op,
            sorted(step.attrs.items()),
            [t.data.tobytes() for n in step.inputs if (t := program.tensors[n]).data is not None],
        )
        for step in program.steps
        if step.op not in MOVES
    ]


def levels(program: Program, x: Array, task: int = 0) -> Array:
    """The program's result for one real image, in steps of its output's grid above zero."""
    output = program.tensors[program.output]
    return reference.run(program, quantized(x, program), task=task).astype(np.int64) - output.zero_point


def steps_off(program: Program, model: onnx.ModelProto, x: Array, task: int | None = None) -> float:
    """How far the program is from ONNX Runtime, in steps of its output's grid."""
    scale = program.tensors[program.output].scale
    assert scale is not None
    if task is not None:
        model = bound(model, task)
    wanted = run_onnxruntime(model, x) / scale
    return float(np.abs(levels(program, x, task or 0) - wanted).max())


def images(count: int = 3) -> list[Array]:
    """Seeded images."""
    rng = np.random.default_rng(5)
    return [rng.normal(0, 1, (1, 3, 32, 32)).astype(np.float32) for _ in range(count)]


def compiled(model: onnx.ModelProto, folder: Path) -> Program:
    """The program of a model that is no file yet."""
    onnx.save(model, folder / "model.onnx")
    return to_program(folder / "model.onnx")


def test_there_are_spellings_enough() -> None:
    assert len({name.rsplit("_", 2)[0] for name in SAME}) >= 5
    assert {path.stem for path in FOLDER.glob("*.onnx")} == set(INDEX)


@pytest.mark.parametrize("name", SAME[1:])
def test_every_spelling_is_the_same_program(name: str) -> None:
    first, other = (to_program(FOLDER / f"{each}.onnx") for each in (SAME[0], name))
    assert [step.op for step in first.steps].count("moe") == 1
    assert steps(first) == steps(other)
    for x in images():
        assert np.array_equal(levels(first, x), levels(other, x))


@pytest.mark.parametrize("name", QDQ)
def test_is_what_onnx_runtime_computes(name: str) -> None:
    model = onnx.load(FOLDER / f"{name}.onnx")
    program = to_program(FOLDER / f"{name}.onnx")
    assert max(steps_off(program, model, x) for x in images()) < 1.01  # 8-bit logits at the end


@pytest.mark.parametrize("name", FLOAT)
def test_the_function_computes_what_the_exporter_wrote(name: str) -> None:
    model = load(FOLDER / f"{name}.onnx")
    x = images(1)[0]
    wanted = run_onnxruntime(model, x)
    recognised = recognise_moe(to_standard(model))
    (node,) = (node for node in recognised.graph.node if mixture.is_mixture(node))
    k, normalize = mixture.attributes(node)
    assert k == (int(name[1]) if name.startswith("k") else 2)
    assert normalize == name.startswith(RENORMALISED)
    assert all(node.op_type != "TopK" for node in recognised.graph.node)
    onnx.checker.check_model(recognised)
    np.testing.assert_allclose(run_onnxruntime(recognised, x), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", GATED)
def test_gated_experts_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"TopK.*the expert MLP that ends in '.*' \(MatMul\) is gated"):
        to_program(FOLDER / f"{name}.onnx")


class _Images(CalibrationDataReader):
    """Feeds for ONNX Runtime's quantizer."""

    def __init__(self) -> None:
        self._feeds = iter([{"images": x} for x in images(8)])

    def get_next(self) -> dict[str, Array] | None:
        """The next feed."""
        return next(self._feeds, None)


def decibels(found: list[Array], wanted: list[Array]) -> float:
    """Signal-to-noise ratio."""
    noise = sum(float(((a - b) ** 2).sum()) for a, b in zip(found, wanted, strict=True))
    return float(10 * np.log10(sum(float((b**2).sum()) for b in wanted) / noise))


@pytest.mark.parametrize("name", ["dense_stack_dynamo", "dense_one_legacy", "gathered_legacy", "loop_legacy"])
def test_what_onnx_runtime_quantizes_by_default(name: str, tmp_path: Path) -> None:
    """Every tensor rounded, routing weights and partial sums too: these are dropped, which loses nothing."""
    out = tmp_path / "q.onnx"
    quantize_static(FOLDER / f"{name}.onnx", out, _Images(), per_channel=True, weight_type=QuantType.QInt8)
    program, rounded, real = to_program(out), onnx.load(out), onnx.load(FOLDER / f"{name}.onnx")
    assert [step.op for step in program.steps].count("moe") == 1
    samples = images(16)
    exact = [run_onnxruntime(real, x) for x in samples]
    theirs = decibels([run_onnxruntime(rounded, x) for x in samples], exact)
    assert decibels([run_program(program, x) for x in samples], exact) > max(theirs - 0.5, 15.0)


def test_other_nonlinear_ops_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"is a mixture of experts, which has no ivit form"):
        to_program(FOLDER / f"{QDQ[0]}.onnx", Options(nonlinear="ivit"))


# --- changed graphs -----------------------------------------------------------------------------------------


def only(model: onnx.ModelProto, op: str) -> onnx.NodeProto:
    """The one node of that kind."""
    (node,) = (node for node in model.graph.node if node.op_type == op)
    return node


def constant(model: onnx.ModelProto, name: str, value: Array) -> str:
    """A new initializer."""
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def weighted(model: onnx.ModelProto) -> onnx.NodeProto:
    """The product of the stacked results with their weights."""
    stack = only(model, "Concat").output[0]
    return next(node for node in model.graph.node if node.op_type == "Mul" and stack in node.input)


def test_experts_in_another_order(tmp_path: Path) -> None:
    model = onnx.load(FOLDER / "dense_stack_dynamo_qdq.onnx")
    stack = only(model, "Concat")
    order = [stack.input[index] for index in (2, 0, 3, 1)]
    del stack.input[:]
    stack.input.extend(order)
    program = compiled(model, tmp_path)
    assert max(steps_off(program, model, x) for x in images()) < 1.01
    straight = to_program(FOLDER / "dense_stack_dynamo_qdq.onnx")
    (ours,), (theirs,) = ([s for s in p.steps if s.op == "moe"] for p in (program, straight))
    a, b = (p.tensors[s.inputs[3]].data for p, s in ((program, ours), (straight, theirs)))
    assert a is not None
    assert b is not None
    assert np.array_equal(a, b[[2, 0, 3, 1]])


def refused(model: onnx.ModelProto, folder: Path, why: str) -> None:
    """Compiling `model` must end in that sentence."""
    with pytest.raises(UnsupportedError, match=why):
        compiled(model, folder)


def test_another_meaning_is_refused(tmp_path: Path) -> None:
    difference = (
        r"TopK.*is not the weighted sum of the 4 experts found: .* it differs by [0-9.]+ of its largest"
    )
    model = onnx.load(FOLDER / "dense_stack_dynamo_qdq.onnx")
    scaled = constant(model, "scaled", np.asarray(0.99, np.float32))
    product = weighted(model)
    product.input[1] = scaled  # every expert has the same weight, whatever the gate says
    with pytest.raises(UnsupportedError):  # nothing reads the gate any more
        compiled(model, tmp_path)
    model = onnx.load(FOLDER / "dense_stack_dynamo_qdq.onnx")
    only(model, "Softmax").op_type = "Sigmoid"
    del next(node for node in model.graph.node if node.op_type == "Sigmoid").attribute[:]
    refused(model, tmp_path, difference)
    model = onnx.load(FOLDER / "dense_stack_dynamo_qdq.onnx")
    scatter = only(model, "ScatterElements")
    scatter.input[0] = constant(model, "ones", np.full((1, 16, 4), 0.01, np.float32))
    refused(model, tmp_path, difference)


def test_the_smallest_are_refused(tmp_path: Path) -> None:
    model = onnx.load(FOLDER / "dense_stack_dynamo_qdq.onnx")
    topk = only(model, "TopK")
    next(a for a in topk.attribute if a.name == "largest").i = 0
    refused(model, tmp_path, r"takes the largest of a tensor of known shape")


def test_an_expert_that_is_missing_is_counted(tmp_path: Path) -> None:
    model = onnx.load(FOLDER / "dense_stack_dynamo_qdq.onnx")
    stack = only(model, "Concat")
    stack.input[3] = constant(model, "nobody", np.zeros((1, 16, 1, 32), np.float32))
    refused(model, tmp_path, r"there are 4 gate logits, but 3 MLPs")


def test_results_clipped_behind_the_experts_are_refused(tmp_path: Path) -> None:
    model = onnx.load(FOLDER / "dense_stack_dynamo_qdq.onnx")
    product = weighted(model)
    grid = [
        constant(model, "s", np.asarray(0.05, np.float32)),
        constant(model, "z", np.asarray(-128, np.int8)),
    ]
    exact = product.output[0]
    product.output[0] = "exact"
    place = list(model.graph.node).index(product) + 1
    pair = [
        helper.make_node("QuantizeLinear", ["exact", *grid], ["q"], name="clip"),
        helper.make_node("DequantizeLinear", ["q", *grid], [exact]),
    ]
    for offset, node in enumerate(pair):
        model.graph.node.insert(place + offset, node)
    refused(model, tmp_path, r"'clip' \(QuantizeLinear\) clips the experts' results to one sign")


# --- ONNX Runtime's own ops ---------------------------------------------------------------------------------

TOKENS, DEPTH, WIDTH, COUNT = 6, 16, 32, 4


def contrib(op: str, tensors: dict[str, Array], **attributes: Any) -> onnx.ModelProto:
    """A model of one such node, behind a gate."""
    rng = np.random.default_rng(1)
    gate = numpy_helper.from_array(rng.normal(size=(DEPTH, COUNT)).astype(np.float32), "gate")
    nodes = [
        helper.make_node("MatMul", ["x", "gate"], ["logits"]),
        helper.make_node(
            op, ["x", "logits", *tensors], ["y"], name="mix", domain="com.microsoft", **attributes
        ),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [TOKENS, DEPTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [TOKENS, DEPTH])
    constants = [gate, *(numpy_helper.from_array(value, name) for name, value in tensors.items() if name)]
    graph = helper.make_graph(nodes, "contrib", [x], [y], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def weights(seed: int = 0) -> dict[str, Array]:
    """Of all experts."""
    rng = np.random.default_rng(seed)
    shapes = {"w1": (WIDTH, DEPTH), "b1": (WIDTH,), "w2": (DEPTH, WIDTH), "b2": (DEPTH,)}
    return {name: rng.normal(size=(COUNT, *shape)).astype(np.float32) for name, shape in shapes.items()}


def packed(values: Array, bits: int) -> tuple[Array, Array]:
    """Unsigned weights around half the range, and their scales."""
    half = 1 << (bits - 1)
    scale = (np.abs(values).max(-1) / (half - 1)).astype(np.float32)
    stored = (np.clip(np.rint(values / scale[..., None]), -half, half - 1) + half).astype(np.uint8)
    return (stored[..., 0::2] | (stored[..., 1::2] << 4)) if bits == 4 else stored, scale


def written_out(model: onnx.ModelProto) -> None:
    """What the dialect makes of `model` computes what ONNX Runtime's kernel does."""
    x = np.random.default_rng(2).normal(size=(TOKENS, DEPTH)).astype(np.float32)
    wanted = run_onnxruntime(model, x)
    twin = onnx.ModelProto.FromString(model.SerializeToString())
    standard = to_standard(twin)
    assert all(node.domain != "com.microsoft" for node in standard.graph.node)
    for node in standard.graph.node:
        node.name = ""  # one name for all that replaces a node; ONNX Runtime wants many, or none
    np.testing.assert_allclose(run_onnxruntime(standard, x), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "identity"])
@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize("k", [1, 3])
def test_moe(activation: str, normalize: int, k: int) -> None:
    written_out(
        contrib("MoE", weights(), activation_type=activation, normalize_routing_weights=normalize, k=k)
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_qmoe(bits: int) -> None:
    given = weights()
    (w1, s1), (w2, s2) = (packed(given[name], bits) for name in ("w1", "w2"))
    tensors = {"w1": w1, "s1": s1, "b1": given["b1"], "w2": w2, "s2": s2, "b2": given["b2"]}
    written_out(contrib("QMoE", tensors, activation_type="relu", k=2, expert_weight_bits=bits))


def test_what_these_ops_have_beyond_is_refused() -> None:
    with pytest.raises(
        UnsupportedError, match=r"'mix' \(com.microsoft::MoE\): experts with 'swiglu' are gated"
    ):
        to_standard(contrib("MoE", weights(), activation_type="swiglu", k=2))
    with pytest.raises(UnsupportedError, match=r"use_sparse_mixer of a mixture"):
        to_standard(contrib("MoE", weights(), use_sparse_mixer=1, k=2))
    with pytest.raises(UnsupportedError, match=r"takes the 1 to 4 best experts, not 5"):
        to_standard(contrib("MoE", weights(), k=5))
    with pytest.raises(UnsupportedError, match=r"weights of \[2\] bits"):
        to_standard(contrib("QMoE", weights(), k=1, expert_weight_bits=2))


# --- tasks --------------------------------------------------------------------------------------------------


GATE, PATCHES = (4, 32), (32, 3, 8, 8)


def bound(model: onnx.ModelProto, task: int) -> onnx.ModelProto:
    """`model` with its task input a constant."""
    twin = onnx.ModelProto.FromString(model.SerializeToString())
    del twin.graph.input[1]
    twin.graph.initializer.append(numpy_helper.from_array(np.array(task, np.int64), "task"))
    return twin


def with_tasks(name: str, shape: tuple[int, ...], count: int) -> onnx.ModelProto:
    """A fixture in which a task chooses the constant of that shape."""
    model = onnx.load(FOLDER / f"{name}.onnx")
    model.graph.input.append(helper.make_tensor_value_info("task", TensorProto.INT64, []))
    (tensor,) = (t for t in model.graph.initializer if tuple(t.dims) == shape)
    wanted = tensor.name
    value = numpy_helper.to_array(tensor)
    rng = np.random.default_rng(3)
    stack = np.stack([value * (0.5 + index) if index else value for index in range(count)])
    stack[1:] = rng.permuted(stack[1:], axis=1)
    stacked = constant(model, "stack", stack.astype(value.dtype))
    for node in model.graph.node:
        for index, read in enumerate(node.input):
            if read == wanted:
                node.input[index] = "picked"
    model.graph.node.insert(0, helper.make_node("Gather", [stacked, "task"], ["picked"], name="pick", axis=0))
    return model


@pytest.mark.parametrize("count", [2, 3])
def test_a_gate_for_each_task(count: int, tmp_path: Path) -> None:
    model = with_tasks("dense_stack_legacy_qdq", GATE, count)
    program = compiled(model, tmp_path)
    assert program.task == "task"
    assert program.tasks == count
    assert sum(step.attrs.get("has_task", 0) for step in program.steps) == 1
    for x in images(2):
        for task in range(count):
            assert steps_off(program, model, x, task) < 1.01
    results = [levels(program, images(1)[0], task) for task in range(count)]
    assert not np.array_equal(results[0], results[1])


def test_tasks_that_differ_elsewhere_are_refused(tmp_path: Path) -> None:
    model = with_tasks("dense_stack_legacy_qdq", PATCHES, 2)
    refused(model, tmp_path, r"\(patch_embed\) has other constants or attributes for another task")


def test_a_task_that_is_computed_with_is_refused(tmp_path: Path) -> None:
    model = with_tasks("dense_stack_legacy_qdq", GATE, 2)
    model.graph.node.insert(0, helper.make_node("Cast", ["task"], ["number"], to=TensorProto.FLOAT))
    model.graph.node.insert(1, helper.make_node("Add", ["images", "number"], ["shifted"], name="shift"))
    for node in list(model.graph.node)[2:]:
        for index, read in enumerate(node.input):
            if read == "images":
                node.input[index] = "shifted"
    refused(model, tmp_path, r"'shift' \(Add\) computes with the task 'task'")
