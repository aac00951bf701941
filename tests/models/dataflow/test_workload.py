"""What is read out of programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.compiler import to_program
from intaglio.errors import UnsupportedError
from intaglio.hw.dataflow import evaluate, find, spread, workload
from intaglio.hw.dataflow.workload import Attention, Elementwise, Gate, Linear, Mixture, PatchEmbed
from intaglio.inspection import summarize
from intaglio.program import Program, Step, Tensor


@pytest.fixture(scope="module")
def vit(root: Path) -> Program:
    return to_program(root / "examples/fashion_mnist/vit_qdq.onnx")


@pytest.fixture(scope="module")
def mixture(root: Path) -> Program:
    return to_program(root / "examples/fashion_mnist/moe_qdq.onnx")


def test_a_vit(vit: Program) -> None:
    work = workload(vit)
    assert sum(one.macs for one in work) == summarize(vit).macs
    blocks = sum(isinstance(one, Attention) for one in work)
    kinds = [one.kind for one in work if isinstance(one, Elementwise)]
    assert kinds.count("add") == 2 * blocks
    assert kinds.count("layernorm") == 2 * blocks + 1
    assert isinstance(work[0], PatchEmbed)
    assert evaluate(find("edge-moe"), work).macs == summarize(vit).macs


def test_a_mixture(mixture: Program) -> None:
    work = workload(mixture)
    mixtures = [one for one in work if isinstance(one, Mixture)]
    gates = [one for one in work if isinstance(one, Gate)]
    assert mixtures
    assert [gate.channels for gate in gates] == [one.experts for one in mixtures]
    assert sum(one.macs for one in work) == summarize(mixture).macs
    found = evaluate(find("edge-moe"), work, spread(work, "uniform"))
    assert set(found.by_kind()) >= {"gate", "mixture", "attention"}
    assert not any(
        isinstance(one, Linear) and one.name == gates[0].name and one is not gates[0] for one in work
    )


def test_an_op_without_a_unit() -> None:
    tensors = {name: Tensor(name, (1, 2, 4, 4), "int8") for name in ("x", "y")}
    step = Step("y", "matmul", ("x", "x"), "y", {}, ("node",))
    with pytest.raises(
        UnsupportedError, match=r"matmul \(ONNX node 'node'\): a design file describes no unit"
    ):
        workload(Program("p", tensors, [step], "x", "y"))
