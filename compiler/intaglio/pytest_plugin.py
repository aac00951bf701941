"""A pytest plugin: simulate a compiled accelerator from one's own test-suite.

    def test_model_on_hardware(intaglio_simulate):
        report = intaglio_simulate("build/", images=2)
        assert report.bit_exact
        assert report.latency_ms < 2.0

`pytest --intaglio-waves DIR` writes one VCD file per simulation there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from intaglio.simulate import SimulationReport


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the plugin."""
    group = parser.getgroup("intaglio", "accelerators compiled by intaglio")
    group.addoption(
        "--intaglio-waves", metavar="DIR", default=None, help="write waveforms of every simulation to DIR"
    )


@pytest.fixture
def intaglio_simulate(request: pytest.FixtureRequest) -> Callable[..., SimulationReport]:
    """A function (folder, images=1, inputs=None, config=None, memory=None) -> SimulationReport.

    `folder`: output of `intaglio compile --target <fpga>`; `inputs`: an array [N, ...] of the program's input type
    (default: `images` random ones); `config`: a name or file as `intaglio simulate --config` takes it.
    """
    numbers = count(1)

    def run(
        folder: str | Path, images: int = 1, inputs: Any = None, config: str | None = None, memory: Any = None
    ) -> SimulationReport:
        from intaglio import artifact
        from intaglio.samples import random_inputs
        from intaglio.simulate import simulate_artifact
        from intaglio.target import configuration

        compiled = artifact.load(folder)
        program = compiled.program
        given = random_inputs(program.tensors[program.input], images) if inputs is None else inputs
        chosen = None if config is None else configuration(config)
        return simulate_artifact(
            compiled, given, config=chosen, memory=memory, waves=_waves(request, next(numbers))
        )

    return run


def _waves(request: pytest.FixtureRequest, number: int) -> Path | None:
    """The file of the test's simulation `number`: no two tests share one."""
    folder = request.config.getoption("--intaglio-waves")
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "_", request.node.nodeid)
    return Path(folder) / f"{name}-{number}.vcd"
