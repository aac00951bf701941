"""A model for several tasks: stored, executed and verified for each of them; a wrong task is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from intaglio import artifact
from intaglio.artifact import Artifact, Contents, InputSpec, Source, file_sha256
from intaglio.backends import cpu
from intaglio.cli.app import app
from intaglio.execute import Executor
from intaglio.ops import linear
from intaglio.ops.reference import run
from intaglio.program import Program, Tensor
from tests.artifact.test_router import LOGITS, NODES, SHAPE, X, model, samples, weights
from tests.moe_programs import Writer


def gate() -> Program:
    """The gate of `model`, whose task chooses the matrix."""
    writer = Writer("gate", (1, SHAPE.tokens, SHAPE.depth), "int8", task=True)
    each = [
        linear.parameters(X, np.rint(w.T / 0.01).astype(np.int64), 0.01, b, LOGITS)
        for w, b in zip(*weights(1), strict=True)
    ]
    made = linear.with_tasks(each)
    writer.op("linear", ["input", *made.constants, "task"], made.attrs)
    plain = writer.program()
    tensors = {
        **plain.tensors,
        "input": replace(plain.tensors["input"], scale=X.scale, zero_point=X.zero_point),
        plain.output: replace(plain.tensors[plain.output], scale=LOGITS.scale),
    }
    return replace(plain, tensors=tensors, steps=[replace(plain.steps[0], onnx_nodes=NODES)])


def write(folder: Path, program: Program, source: Path) -> Artifact:
    tensor = program.tensors[program.input]
    spec = InputSpec(
        name="input", shape=list(tensor.shape), dtype=tensor.dtype, layout="", kind="float",
        scale=tensor.scale, zero_point=tensor.zero_point,
    )  # fmt: skip
    origin = Source(name="gate", file=str(source), sha256=file_sha256(source))

    def build(place: Path) -> None:
        cpu.build(program, place)

    return artifact.write(folder, Contents(program, "cpu", origin, spec, 1234, {}, {}, build))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write(folder / "two", gate(), model(folder, 1))
    np.save(folder / "x.npy", X.dequantize(samples(3)).astype(np.float32))
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_what_was_written_is_read(compiled: Path) -> None:
    loaded = artifact.load(compiled / "two")
    assert loaded.manifest.tasks == loaded.program.tasks == 2
    assert loaded.program.task == "task"
    assert loaded.program.tensors["task"] == Tensor("task", (), "int32")
    assert loaded.program == gate()


def test_every_execution_computes_every_task(compiled: Path) -> None:
    loaded, x = artifact.load(compiled / "two"), samples(2)
    expected = [np.concatenate([run(gate(), image[None], task=task) for image in x]) for task in range(2)]
    assert not np.array_equal(*expected)
    for device in ("reference", "cpu", "c"):
        with Executor(loaded, device) as executor:
            for task in range(2):
                np.testing.assert_array_equal(executor.run(x, task), expected[task])


def test_run_takes_the_task(compiled: Path) -> None:
    results = []
    for task in range(2):
        out = compiled / f"{task}.npy"
        result = invoke("run", compiled / "two", "-i", compiled / "x.npy", "--task", task, "-o", out)
        assert result.exit_code == 0, result.stderr
        results.append(np.load(out))
        expected = X.dequantize(samples(3)) @ weights(1)[0][task] + weights(1)[1][task]
        assert np.abs(results[-1] - np.clip(expected, -6, 6)).max() < 2 * LOGITS.scale
    assert not np.array_equal(*results)


@pytest.mark.parametrize("command", ["run", "verify"])
def test_a_task_that_is_not_there_is_refused(compiled: Path, command: str) -> None:
    result = invoke(command, compiled / "two", "-i", compiled / "x.npy", "--task", 2)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "error: gate: the task must be in 0..1, not 2."


def test_verify_proves_every_task(compiled: Path) -> None:
    values = json.loads(invoke("verify", compiled / "two", "--json").stdout)
    assert values["bit_exact"] is True
    assert values["executions"] == ["reference", "cpu", "c"]
    assert values["tasks"] == [0, 1]
    assert values["cosine"] > 0.9999
    one = json.loads(invoke("verify", compiled / "two", "--json", "--task", 1).stdout)
    assert one["tasks"] == [1]


def test_verify_finds_an_execution_that_takes_another_task(
    compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Executor.run
    monkeypatch.setattr(
        Executor, "run", lambda self, x, task=0: honest(self, x, task if self.device == "reference" else 0)
    )
    result = invoke("verify", compiled / "two")
    assert result.exit_code == 1
    assert "DIFFERS on" in result.stdout
