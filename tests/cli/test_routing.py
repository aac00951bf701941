"""`intaglio inspect --routing`; tasks and routing in `intaglio simulate`, with another simulator for the RTL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio import artifact, router, simulate
from intaglio.accelerator.registers import COUNTERS
from intaglio.backends import fpga
from intaglio.data import load_samples
from intaglio.feed import integers, normalization
from intaglio.hw.iss import Simulator
from intaglio.hw.iss.routing import Routing, RoutingRecord, rows
from intaglio.simulation.frame import Frames, Job, MemoryModel, Run
from tests.cli.conftest import invoke, invoke_json, refusal

PIXELS = ("--mean", "0.2860", "--std", "0.3530")


@pytest.fixture(scope="module")
def build(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tiny`, an accelerator's, and `real`, which takes real values and runs on the reference only."""
    out = tmp_path_factory.mktemp("routing")
    model = root / "examples/fashion_mnist/moe_tasks_qdq.onnx"
    invoke_json("compile", model, "--target", "tiny", "--input", "uint8", *PIXELS, "-o", out / "tiny")
    invoke_json("compile", model, "--target", "null", "-o", out / "real")
    return out


@pytest.fixture(scope="module")
def images(root: Path) -> Path:
    return root / "examples/fashion_mnist/images"


def inputs(folder: Path, images: Path, count: int) -> np.ndarray:
    """The first images as the model in `folder` takes them."""
    compiled = artifact.load(folder)
    given = load_samples(images, compiled.manifest.input.shape[1:], count)
    return integers(compiled.program, given, normalization(compiled, (0.2860,), (0.3530,)))


@pytest.mark.parametrize("task", [0, 1])
def test_tokens_per_expert_are_those_of_the_reference(build: Path, images: Path, task: int) -> None:
    found = invoke_json("inspect", build / "tiny", "--routing", "--input", images, "--task", task)["routing"]
    compiled = artifact.load(build / "tiny")
    image = inputs(build / "real", images, 1)
    reference = router.record(artifact.load(build / "real").program, image, task)
    assert [layer["name"] for layer in found] == [layer.name for layer in reference]
    assert found[0]["tokens"] == reference[0].tokens
    assert sum(found[0]["tokens"]) == 2 * 50
    routes = [fpga.load(compiled).program.descriptors[layer["index"]] for layer in found]
    assert [d.kind for d in routes] == ["ROUTE", "ROUTE"]
    # No result reads most tokens of the last layer: the accelerator leaves them out.
    assert sum(found[1]["tokens"]) == 2 * routes[1]["rows"] < sum(reference[1].tokens)


def test_bytes_are_those_of_the_loads(build: Path, images: Path) -> None:
    found = invoke_json("inspect", build / "tiny", "--routing", "--input", images)["routing"]
    loaded = fpga.load(artifact.load(build / "tiny"))
    # One expert: 64 -> 64 -> 64 in int8, 128 parameters of 8 bytes, and one table.
    expert = 2 * 64 * 64 + 128 * 8 + 512
    for layer in found:
        used = sum(n > 0 for n in layer["tokens"])
        assert layer["experts_loaded"] == used
        assert (layer["bytes_read"], layer["bytes_saved"]) == (used * expert, (8 - used) * expert)
    assert 0 < sum(layer["bytes_saved"] for layer in found) < loaded.program.weight_bytes


def test_the_task_matters(build: Path, images: Path) -> None:
    first, second = (
        invoke_json("inspect", build / "tiny", "--routing", "--input", images, "--task", task)["routing"]
        for task in (0, 1)
    )
    assert [layer["tokens"] for layer in first] != [layer["tokens"] for layer in second]


def test_without_an_accelerator_the_reference_routes(build: Path, images: Path) -> None:
    found = invoke_json("inspect", build / "real", "--routing", "--input", images, *PIXELS)["routing"]
    reference = router.record(artifact.load(build / "real").program, inputs(build / "real", images, 1))
    assert [layer["tokens"] for layer in found] == [layer.tokens for layer in reference]
    for number, (layer, mixture) in enumerate(zip(found, reference, strict=True)):
        assert layer["index"] == number
        assert layer["bytes_read"] + layer["bytes_saved"] == 8 * mixture.expert_bytes
        assert layer["bytes_read"] == mixture.loaded[0] * mixture.expert_bytes


def test_the_table_for_people(build: Path, images: Path) -> None:
    lines = invoke("inspect", build / "tiny", "--routing", "--input", images).stdout.splitlines()
    (values,) = (
        layer
        for layer in invoke_json("inspect", build / "tiny", "--routing", "--input", images)["routing"]
        if layer["name"] == "sum_2"
    )
    (line,) = (line for line in lines if "sum_2" in line)
    tokens = " ".join(map(str, values["tokens"]))
    assert line.split() == ["sum_2", *tokens.split(), "4", "of", "8", "38.9", "kB", "38.9", "kB"]


def test_a_random_image(build: Path) -> None:
    found = invoke_json("inspect", build / "tiny", "--routing")["routing"]
    assert found == invoke_json("inspect", build / "tiny", "--routing")["routing"]
    assert sum(found[0]["tokens"]) == 2 * 50


def test_a_model_without_a_mixture(compiled: Path) -> None:
    assert invoke_json("inspect", compiled / "null", "--routing") == {"routing": []}
    assert "no mixture of experts" in invoke("inspect", compiled / "null", "--routing").stdout


@pytest.mark.parametrize(
    ("folder", "arguments", "sentence"),
    [
        ("tiny", ["--routing", "--task", "2"], "the task must be in 0..1, not 2."),
        ("tiny", ["--routing", *PIXELS], "normalizes raw pixels itself"),
        ("tiny", ["--routing", "--program"], "--program and --routing: expected one of them."),
        ("tiny", ["--task", "1"], "--task: only --routing looks at an image; give both, or leave it out."),
        ("tiny", ["--program", "--input", "x"], "--input: only --routing looks at an image"),
        ("real", ["--routing", "--input", "IMAGES"], "raw pixels need a normalization"),
        ("none", ["--routing"], "is no output folder of intaglio compile."),
    ],
)
def test_refusals(build: Path, images: Path, folder: str, arguments: list[str], sentence: str) -> None:
    words = [str(images) if word == "IMAGES" else word for word in arguments]
    assert sentence in refusal("inspect", build / folder, *words)


# --- simulate ---


@pytest.fixture
def other_simulator(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The functional simulator in place of the RTL; returns the jobs that it was given."""
    jobs: list[Job] = []

    def run(job: Job, memory: MemoryModel, **_: Any) -> Frames:
        jobs.append(job)
        simulator = Simulator(job.config, job.program, job.weights)
        counters = {**dict.fromkeys(COUNTERS, 0), "cycles": 1000}
        runs = [Run(simulator.run(image, task=job.task), 0, 0, counters, 0) for image in job.images]
        return Frames(runs, [], 0.0, 0.0)

    monkeypatch.setattr(simulate, "simulate", run)
    return jobs


def test_simulate_knows_tasks_and_routing(build: Path, images: Path, other_simulator: list[Job]) -> None:
    words = ["simulate", build / "tiny", "--input", images, "--images", 2, "--task", 1]
    found = invoke_json(*words)
    assert [job.task for job in other_simulator] == [1]
    assert (found["bit_exact"], found["task"]) == (True, 1)
    assert found["config"] == f"{fpga.load(artifact.load(build / 'tiny')).config.hash:08x}"
    assert found["memory"] == {"latency": 100, "bytes_per_cycle": 57.0}
    first = invoke_json("inspect", build / "tiny", "--routing", "--input", images, "--task", 1)["routing"]
    assert len(found["routing"]) == 2
    assert found["routing"][0] == first
    assert found["routing"][1] != first


def test_a_wrong_task_is_no_bit_exact_result(
    build: Path, images: Path, other_simulator: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is with the reference of this task."""
    real = simulate.simulate

    def wrong(job: Job, memory: MemoryModel, **options: Any) -> Frames:
        return real(Job(**{**vars(job), "task": 0}), memory, **options)

    monkeypatch.setattr(simulate, "simulate", wrong)
    result = invoke("simulate", build / "tiny", "--input", images, "--task", 1, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["mismatches"] == [0]


def test_simulate_shows_the_routing_to_people(build: Path, images: Path, other_simulator: list[Job]) -> None:
    one = invoke("simulate", build / "tiny", "--input", images).stdout
    assert "tokens per expert" in one
    assert "38.9 kB" in one
    assert "image 0" not in one
    assert "experts, image 0" in invoke("simulate", build / "tiny", "--input", images, "--images", 2).stdout


def test_simulate_refuses_a_task_that_is_not_there(build: Path) -> None:
    assert "the task must be in 0..1, not 2." in refusal("simulate", build / "tiny", "--task", 2)


def test_work_counts_the_tokens_that_came(build: Path) -> None:
    loaded = fpga.load(artifact.load(build / "tiny"))
    record = RoutingRecord()
    Simulator(loaded.config, loaded.program, loaded.weights).run(
        bytes(loaded.program.input_bytes), trace=record
    )
    some = simulate.macs(loaded.program, loaded.config, record.routings)
    full = [
        Routing(routing.index, (loaded.program.descriptors[routing.index]["rows"],) * 8)
        for routing in record.routings
    ]
    every = simulate.macs(loaded.program, loaded.config, full)
    # Every token chooses 2 of 8 experts of 2 * 64 * 64 products.
    tokens = sum(loaded.program.descriptors[routing.index]["rows"] for routing in record.routings)
    assert every - some == tokens * (8 - 2) * 2 * 64 * 64


@pytest.mark.parametrize("routings", [[], [Routing(0, (1,) * 8)]])
def test_rows_want_the_routing_of_every_route(build: Path, routings: list[Routing]) -> None:
    program = fpga.load(artifact.load(build / "tiny")).program.descriptors
    with pytest.raises(ValueError, match=f"{len(routings)} routings are not those of the program"):
        rows(program, routings)


@pytest.mark.simulator
@pytest.mark.slow
def test_the_rtl_loads_the_experts_of_the_task(build: Path, images: Path) -> None:
    found = invoke_json("simulate", build / "tiny", "--input", images, "--task", 1)
    assert (found["bit_exact"], found["task"]) == (True, 1)
    (routing,), (counters,) = found["routing"], found["counters"]
    assert counters["experts"] == sum(layer["experts_loaded"] for layer in routing)
    inspected = invoke_json("inspect", build / "tiny", "--routing", "--input", images, "--task", 1)
    assert routing == inspected["routing"]
