"""Estimates of a compiled model: what they say of the program, and what the cache keeps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import intaglio.hw.cycles
from intaglio import artifact, compiler
from intaglio import target as targets
from intaglio.accelerator.descriptors import ProgramFile
from intaglio.artifact import Artifact
from intaglio.backends import fpga
from intaglio.estimate import Compiled, compiled_model, device_of, estimate, memory_of, of_artifact
from intaglio.estimate.accelerator import BOUNDS
from intaglio.hw.cycles import predict
from intaglio.target import Board, FpgaTarget


@pytest.fixture(scope="module")
def tiny() -> FpgaTarget:
    found = targets.find("tiny")
    assert isinstance(found, FpgaTarget)
    return found


@pytest.fixture(scope="module")
def model(root: Path) -> Path:
    return root / "examples/fashion_mnist/vit_qdq.onnx"


@pytest.fixture(scope="module")
def built(model: Path, tiny: FpgaTarget, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("estimate") / "build"
    compiler.compile_model(model, target=tiny, out=out)
    return artifact.load(out)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTAGLIO_CACHE", str(tmp_path))
    return tmp_path / "intaglio"


def descriptors(compiled: Compiled) -> bytes:
    return ProgramFile(0, 0, 0, 0, compiled.descriptors).pack()


def test_the_cycles_are_those_of_the_program_that_compile_writes(built: Artifact, tiny: FpgaTarget) -> None:
    memory = memory_of(tiny.board, tiny.accelerator.clock_mhz)
    found = estimate(of_artifact(built), "tiny", tiny.board, memory)
    program = fpga.load(built).program
    assert found.prediction.cycles == predict(program.descriptors, tiny.accelerator, memory).cycles


def test_ops_share_the_frame(built: Artifact, tiny: FpgaTarget) -> None:
    found = estimate(of_artifact(built), "tiny", tiny.board, memory_of(tiny.board, 100))
    array = sum(op.cycles for op in found.ops if op.unit == "mm")
    assert sum(found.bound_by.values()) == found.prediction.cycles
    assert array == sum(n for name, n in found.bound_by.items() if name != "start")
    assert sum(op.macs for op in found.ops) == found.prediction.macs
    assert sum(op.energy_mj for op in found.ops) == pytest.approx(sum(found.energy.descriptors), rel=1e-9)
    assert {op.op for op in found.ops} >= {"patch_embed", "linear", "attention", "layernorm"}
    assert all(0 <= op.utilization <= 1 for op in found.ops)


def test_a_slow_memory_bounds(built: Artifact, tiny: FpgaTarget) -> None:
    compiled = of_artifact(built)
    fast = estimate(compiled, "tiny", tiny.board, memory_of(tiny.board, 100, 10, 64.0))
    slow = estimate(compiled, "tiny", tiny.board, memory_of(tiny.board, 100, 10, 0.5))
    assert slow.bound_by["memory"] > slow.prediction.cycles / 2
    assert fast.bound_by["memory"] < fast.prediction.cycles / 2
    assert slow.energy.total > fast.energy.total


def test_the_cache_keeps_all_that_counts(model: Path, built: Artifact, tiny: FpgaTarget, cache: Path) -> None:
    first, second = compiled_model(model, tiny), compiled_model(model, tiny)
    assert (first.cached, second.cached) == (False, True)
    assert len(list(cache.glob("estimate-*.json"))) == 1
    assert descriptors(first) == descriptors(second) == descriptors(of_artifact(built))
    assert list(first.steps) == list(second.steps) == list(of_artifact(built).steps)
    memory = memory_of(tiny.board, 100)
    one, two = (estimate(c, "tiny", tiny.board, memory) for c in (first, second))
    assert one.ops == two.ops


def test_the_cache_tells_configurations_apart(model: Path, tiny: FpgaTarget, cache: Path) -> None:
    compiled_model(model, tiny)
    config = tiny.accelerator.model_copy(update={"weight_entries": 1024})
    other = compiled_model(model, tiny.model_copy(update={"accelerator": config}))
    assert not other.cached
    assert len(list(cache.glob("estimate-*.json"))) == 2


@pytest.mark.parametrize("text", ["", "{}", '{"program": "AAAA", "steps": [], "ops": [], "name": "x"}'])
def test_a_damaged_cache_is_none(model: Path, tiny: FpgaTarget, cache: Path, text: str) -> None:
    compiled_model(model, tiny)
    (file,) = cache.glob("estimate-*.json")
    file.write_text(text)
    assert not compiled_model(model, tiny).cached
    assert compiled_model(model, tiny).cached


def test_every_cause_of_the_cycle_model_is_explained() -> None:
    folder = Path(intaglio.hw.cycles.__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    causes = set(re.findall(r'causes\["([^"]+)"', text)) | {"bandwidth", "none"}
    assert len(causes) > 8
    assert causes <= set(BOUNDS)
    assert {f"wait {unit}" for unit in ("dm", "io", "cp", "mm", "vu")} <= set(BOUNDS)


def test_a_memory_slower_than_those_compared_is_said(built: Artifact, tiny: FpgaTarget) -> None:
    compiled = of_artifact(built)
    slow, fast = (
        estimate(compiled, "tiny", tiny.board, memory_of(Board(), 100, 60, bandwidth)).notes
        for bandwidth in (2.5, 16.0)
    )
    assert any("at 16 bytes per cycle and more; at 2.5 single descriptors" in note for note in slow)
    assert not any("single descriptors" in note for note in fast)


@pytest.mark.parametrize(
    ("name", "host", "memory"),
    [("zcu102", "zynq", "ddr"), ("u280", "card", "hbm"), ("u250", "card", "ddr"), ("arty-a7", "none", "ddr")],
)
def test_devices(name: str, host: str, memory: str) -> None:
    board = targets.find(name)
    assert isinstance(board, FpgaTarget)
    device = device_of(board.board)
    assert (device.host, device.memory) == (host, memory)


def test_what_stands_for_an_unknown_board_is_said(built: Artifact, tiny: FpgaTarget) -> None:
    compiled = of_artifact(built)
    nothing = estimate(compiled, "tiny", Board(), memory_of(Board(), 100))
    versal = estimate(compiled, "tiny", Board(family="versal", luts=1000), memory_of(Board(), 100))
    assert any("no board" in note for note in nothing.notes)
    assert any("no model of them for versal" in note for note in versal.notes)
    assert any(
        "designs on ultrascale+ that the model had not seen were off by at most: DSP 0.0 %" in note
        for note in nothing.notes
    )
    series7 = estimate(compiled, "tiny", Board(family="7-series"), memory_of(Board(), 100))
    assert any("designs on 7-series that the model had not seen" in note for note in series7.notes)
    assert series7.as_json()["bounds"]["resources"] != nothing.as_json()["bounds"]["resources"]
    assert nothing.use.fits is None
    assert estimate(compiled, "tiny", Board(luts=10**9), memory_of(Board(), 100)).use.fits is True
    assert versal.use.exceeded == ["lut"]


def test_steps_without_descriptors_are_part_of_the_next_op(built: Artifact, tiny: FpgaTarget) -> None:
    compiled = of_artifact(built)
    found = estimate(compiled, "tiny", tiny.board, memory_of(tiny.board, 100))
    nodes = {node for op in found.ops for node in op.onnx_nodes}
    last = [op.name for op in found.ops][-1]
    position = [op.name for op in compiled.ops].index(last)
    assert nodes == {node for op in compiled.ops[: position + 1] for node in op.onnx_nodes}
