"""Rooflines: of files, and of the machine that runs this."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio import toml_file
from intaglio.compiler import to_program
from intaglio.errors import InputError
from intaglio.estimate import measure
from intaglio.estimate.processor import estimate_processor
from intaglio.hw.roofline import Machine, evaluate, find
from intaglio.hw.roofline.machine import FOLDER
from intaglio.inspection import summarize
from intaglio.program import Program

MACHINE = Machine(
    name="m", kind="cpu", source="s", macs_per_s=1e9, attention_macs_per_s=5e8, values_per_s=1e8, bytes_per_s=1e9,
    watts=[1.0, 3.0], watts_source="w",
)  # fmt: skip


@pytest.fixture(scope="module")
def vit(root: Path) -> Program:
    return to_program(root / "examples/fashion_mnist/vit_qdq.onnx")


def test_every_op_is_under_its_roof(vit: Program) -> None:
    found = evaluate(vit, MACHINE)
    assert len(found.ops) == len(vit.steps)
    assert found.macs == summarize(vit).macs
    for op in found.ops:
        rate = 5e8 if op.op == "attention" else 1e9
        assert op.us * (1 + 1e-9) >= 1e6 * op.macs / rate
        assert op.us * (1 + 1e-9) >= 1e6 * op.bytes / 1e9
    assert "compute" in {op.bound for op in found.ops if op.op == "linear"}
    assert {op.bound for op in found.ops if op.op == "transpose"} <= {"memory"}
    assert sum(found.by_bound().values()) == pytest.approx(1e6 * found.seconds)


def test_a_call_takes_its_time(vit: Program) -> None:
    slow = MACHINE.model_copy(update={"call_us": 1e6})
    assert evaluate(vit, slow).seconds == pytest.approx(len(vit.steps))


def test_the_band_is_that_of_the_power(vit: Program) -> None:
    found = estimate_processor(vit, "m", MACHINE)
    low, high = found.band_mj
    assert (low, high) == pytest.approx((1e3 * found.evaluation.seconds, 3e3 * found.evaluation.seconds))
    assert low < found.energy_mj < high
    assert any("NOT MEASURED" in note for note in found.notes)


def test_what_ships_is_readable_and_not_measured() -> None:
    assert "h200" in toml_file.names(FOLDER)
    assert not any(find(name).measured for name in toml_file.names(FOLDER))


def test_the_machine_that_runs_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vit: Program) -> None:
    monkeypatch.setenv("INTAGLIO_CACHE", str(tmp_path))
    monkeypatch.setattr(measure, "SECONDS", 0.02)
    said: list[str] = []
    machine = measure.host("host", 1, said.append)
    assert said
    assert machine.measured
    assert machine.check_percent is not None
    again: list[str] = []
    assert measure.host("host", 1, again.append) == machine
    assert not again
    assert evaluate(vit, machine).seconds > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("macs_per_s = 989.5e12", ""), "key 'macs_per_s' is missing"),
        (("watts = [100.0, 700.0]", "watts = [700.0, 100.0]"), "watts must be the least and the most"),
        (("bytes_per_s = 4.8e12", "bytes_per_s = 0.0"), "key 'bytes_per_s': input should be greater than 0"),
        (('kind = "gpu"', 'kind = "tpu"'), "key 'kind': input should be 'cpu' or 'gpu', not 'tpu'"),
    ],
)
def test_files_with_mistakes(root: Path, tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    text = (root / "hw_models/intaglio/hw/roofline/h200.toml").read_text()
    assert change[0] in text
    (tmp_path / "mine.toml").write_text(text.replace(f"\n{change[0]}", f"\n{change[1]}", 1))
    with pytest.raises(InputError, match=sentence):
        find(str(tmp_path / "mine.toml"))
