"""A small program that needs no compiler, and the drivers rendered for its configuration."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor, ProgramFile
from intaglio.backends.fpga import host
from tests.fpga.host.model import Model

CONFIG = PRESETS["tiny"]
SCALE, ZERO = 0.5, 3
SHAPE = (1, 2, 8)
"""One channel of 2 x 8 pixels: two patches of 2 x 4."""


def program() -> ProgramFile:
    """Patches of the image through a pixel table, stored token by token."""
    steps = [
        Descriptor("LOAD_TABLE", {"offset": 0, "slot": 0, "table": 2}),
        Descriptor(
            "LOAD_IMAGE",
            {
                "channels": 1,
                "patch_h": 2,
                "patch_w": 4,
                "piece": 4,
                "grid_h": 1,
                "grid_w": 2,
                "addr": 0,
                "stride": 1,
            },
        ),
        Descriptor("STORE", {"offset": 0, "addr": 0, "words": 1, "bank": 0, "row": 0}),
        Descriptor("STORE", {"offset": 8, "addr": 0, "words": 1, "bank": 0, "row": 1}),
    ]
    return ProgramFile(CONFIG.hash, 16, 16, 512, steps)


def program_of_two_tasks() -> ProgramFile:
    """The same with parameters, used by nothing, of which each of two tasks has its own."""
    fields = {"offset": 0, "group": 0, "groups": 1, "tasks": 2, "select": 1}
    return replace(program(), descriptors=[Descriptor("LOAD_PARAMS", fields), *program().descriptors])


def weights() -> bytes:
    """The pixel table: byte -> byte - 128, in entries of 16 bits."""
    return (np.arange(256) - 128).astype("<i2").tobytes()


def compute(_: ProgramFile, table: bytes, image: bytes) -> bytes:
    """What the program means, without a simulator."""
    pixels = np.frombuffer(image, np.uint8).reshape(2, 2, 4).transpose(1, 0, 2)
    return np.frombuffer(table, "<i2")[pixels].astype(np.int8).tobytes()


def expected(images: np.ndarray) -> np.ndarray:
    """[N, 1, 2, 8] uint8 -> [N, 2, 8] int8."""
    return np.stack(
        [
            np.frombuffer(compute(program(), weights(), image.tobytes()), np.int8).reshape(2, 8)
            for image in images
        ]
    )


def render(config: AcceleratorConfig, folder: Path) -> Path:
    """Write the drivers; returns their folder."""
    for name, text in host.emit(config).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "host"


def load(folder: Path) -> ModuleType:
    """The Python driver in `folder`, as a module."""
    spec = importlib.util.spec_from_file_location("intaglio_pynq", folder / "intaglio_pynq.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look up annotations.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def host_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered drivers."""
    return render(CONFIG, tmp_path_factory.mktemp("drivers"))


@pytest.fixture(scope="session")
def driver(host_folder: Path) -> ModuleType:
    """The rendered Python driver."""
    return load(host_folder)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A folder as `intaglio compile` writes it, as far as the drivers look."""
    folder = tmp_path / "vit"
    folder.mkdir()
    (folder / "program.bin").write_bytes(program().pack())
    (folder / "weights.bin").write_bytes(weights())
    sides = {
        "input": {"name": "x", "shape": [1, *SHAPE], "dtype": "uint8", "scale": None, "zero_point": 0},
        "output": {"name": "y", "shape": [1, 2, 8], "dtype": "int8", "scale": SCALE, "zero_point": ZERO},
    }
    (folder / "manifest.json").write_text(json.dumps(sides))
    return folder


@pytest.fixture
def two_tasks(artifact: Path) -> Path:
    """The same folder with a program of two tasks."""
    (artifact / "program.bin").write_bytes(program_of_two_tasks().pack())
    return artifact


@pytest.fixture
def model() -> Model:
    """The accelerator, which computes with `compute`."""
    return Model(CONFIG, program(), compute)


@pytest.fixture
def images() -> np.ndarray:
    """Three images."""
    return np.random.default_rng(3).integers(0, 256, (3, *SHAPE), np.uint8)
