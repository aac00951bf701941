"""The Python driver on a model of the accelerator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from intaglio.accelerator import registers
from intaglio.accelerator.config import PRESETS, AcceleratorConfig
from intaglio.accelerator.descriptors import FORMAT_VERSION
from intaglio.backends.fpga import host
from tests.fpga.host.buses import bus_of, dev_mem
from tests.fpga.host.conftest import CONFIG, SCALE, ZERO, expected, program
from tests.fpga.host.model import BASE, REG, Model

Open = Callable[..., Any]


@pytest.fixture
def opened(driver: ModuleType, model: Model, artifact: Path) -> Open:
    """Opens the accelerator; keywords are the driver's."""
    return lambda interrupt=False, **options: driver.Accelerator(
        bus_of(driver, model, interrupt), artifact, **options
    )


# --- generated text ---


def test_every_file_names_its_generator() -> None:
    files = host.emit(CONFIG)
    assert set(files) == {"host/intaglio_pynq.py", "host/intaglio.hpp", "host/example.cpp"}
    for text in files.values():
        assert f"for configuration {CONFIG.hash:08x} (4x8x8). Do not edit." in text.splitlines()[0]


def test_the_numbers_are_the_register_map(driver: ModuleType) -> None:
    assert all(getattr(driver, name) == offset for name, offset in REG.items())
    assert driver.COUNTERS == registers.COUNTERS
    assert driver.ERRORS == registers.ERRORS
    assert CONFIG.hash == driver.CONFIG_HASH
    assert CONFIG.clock_mhz == driver.CLOCK_MHZ


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_the_driver_passes_the_lint_of_hand_written_code(
    root: Path, host_folder: Path, command: list[str]
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--no-cache",
            "--config",
            root / "pyproject.toml",
            host_folder,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- runs ---


@pytest.mark.parametrize("interrupt", [False, True])
def test_results_are_those_of_the_model(
    opened: Open, model: Model, images: np.ndarray, interrupt: bool
) -> None:
    with opened(interrupt) as accelerator:
        assert np.array_equal(accelerator.run(images), expected(images))
    assert model.images == [image.tobytes() for image in images]


def test_the_functional_simulator_computes_the_same(opened: Open, model: Model, images: np.ndarray) -> None:
    from intaglio.hw.iss import Simulator

    model.compute = lambda found, weights, image: Simulator(CONFIG, found, weights).run(image)
    assert np.array_equal(opened().run(images), expected(images))


def test_a_task_is_chosen_before_every_start(
    opened: Open, model: Model, images: np.ndarray, two_tasks: Path
) -> None:
    accelerator = opened()
    accelerator.run(images[:2], task=1)
    accelerator.run(images[:1])
    accelerator.classify(images[:1], task=1)
    assert model.tasks == [1, 1, 0, 1]
    writes = [event[1:] for event in model.log if event[0] == "write"]
    chosen = [writes.index((REG["TASK"], 1)), writes.index((REG["CONTROL"], 1))]
    assert chosen == sorted(chosen)


@pytest.mark.parametrize(
    ("fixture", "tasks", "task"), [("two_tasks", 2, 2), ("two_tasks", 2, -1), ("artifact", 1, 1)]
)
def test_a_task_that_is_not_there(
    driver: ModuleType,
    opened: Open,
    model: Model,
    images: np.ndarray,
    request: pytest.FixtureRequest,
    fixture: str,
    tasks: int,
    task: int,
) -> None:
    request.getfixturevalue(fixture)
    accelerator = opened()
    model.log.clear()
    sentence = f"there is no task {task}: the program has {tasks}, counted from 0."
    with pytest.raises(driver.AcceleratorError) as caught:
        accelerator.run(images, task=task)
    assert str(caught.value) == sentence
    assert model.log == [], "the accelerator must not be touched"


def test_a_program_with_fewer_tasks_than_its_header_says(
    driver: ModuleType, opened: Open, model: Model, images: np.ndarray, two_tasks: Path
) -> None:
    """The accelerator has the last word, and its sentence arrives."""
    path = two_tasks / "program.bin"
    data = bytearray(path.read_bytes())
    data[28] = 3
    path.write_bytes(data)
    with pytest.raises(driver.RunError, match=f"error 9, {registers.ERRORS[9]}, at descriptor 0"):
        opened().run(images, task=2)


def test_no_images_give_no_results(opened: Open) -> None:
    assert opened().run(np.zeros((0, 1, 2, 8), np.uint8)).shape == (0, 2, 8)


def test_real_values(opened: Open, images: np.ndarray) -> None:
    assert np.array_equal(opened().run_real(images), (expected(images).astype(float) - ZERO) * SCALE)


def test_classes_come_best_first(opened: Open, images: np.ndarray) -> None:
    found = opened().classify(images, k=3)
    for image, best in zip(expected(images).reshape(3, -1).astype(float), found, strict=True):
        order = sorted(range(16), key=lambda c: (-image[c], c))[:3]
        assert best == [(c, (image[c] - ZERO) * SCALE) for c in order]


def test_counters_and_time(opened: Open, images: np.ndarray) -> None:
    accelerator = opened()
    accelerator.run(images[:1])
    counters = accelerator.counters()
    assert list(counters) == list(registers.COUNTERS)
    assert counters["mac_steps"] == 2
    assert accelerator.milliseconds() == pytest.approx(1.0)


def test_the_next_image_is_copied_while_one_is_computed(
    opened: Open, model: Model, images: np.ndarray
) -> None:
    accelerator = opened()
    model.log.clear()
    accelerator.run(images)
    events = ["start" if e[:2] == ("write", REG["CONTROL"]) else e[0] for e in model.log if e[0] != "read"]
    order = [event for event in events if event in ("start", "store", "load")]
    assert order == ["store", "start", "store", "load", "start", "store", "load", "start", "load"]


def test_the_interrupt_spares_polling(opened: Open, model: Model, images: np.ndarray) -> None:
    accelerator = opened(True)
    model.log.clear()
    accelerator.run(images[:1])
    assert model.log.count(("read", REG["STATUS"])) == 3, "before START, before the interrupt, after it"
    assert ("write", REG["CONTROL"], 5) in model.log
    assert model.values[REG["INTERRUPT"]] == 0


def test_buffers_are_given_back(opened: Open, model: Model) -> None:
    opened().close()
    assert sum(event[0] == "free" for event in model.log) == 5


def test_padded_rows_of_a_wide_result(driver: ModuleType, opened: Open) -> None:
    accelerator = opened()
    accelerator.output = driver.Tensor((2, 3), np.dtype("<i2"), 1.0, 0)
    data = np.array([[1, -2, 3, 99], [4, 5, -600, 99]], "<i2")
    assert np.array_equal(accelerator._unpack(data.tobytes()), data[:, :3])


def test_real_values_are_quantized_as_in_the_reference(driver: ModuleType) -> None:
    tensor = driver.Tensor((3,), np.dtype(np.int8), 0.1, -5)
    assert tensor.quantize(np.array([0.25, -0.1, 99.0])).tolist() == [-3, -6, 127]
    assert tensor.quantize(np.array([1, 2, 3], np.int8)).tolist() == [1, 2, 3]
    with pytest.raises(driver.AcceleratorError, match="the model takes int8, not int64"):
        tensor.quantize(np.array([1, 2, 3]))


# --- errors ---


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize("code", [code for code in registers.ERRORS if code])
def test_an_error_says_what_and_where(
    driver: ModuleType, opened: Open, model: Model, images: np.ndarray, code: int, interrupt: bool
) -> None:
    accelerator = opened(interrupt)
    model.fault = (code, 17)
    with pytest.raises(driver.RunError) as caught:
        accelerator.run(images)
    sentence = f"the accelerator stopped with error {code}, {registers.ERRORS[code]}, at descriptor 17."
    assert str(caught.value) == sentence
    assert (caught.value.code, caught.value.descriptor) == (code, 17)
    model.fault = None
    assert np.array_equal(accelerator.run(images), expected(images)), "it must run again after an error"


def test_an_unknown_error_code(driver: ModuleType, opened: Open, model: Model, images: np.ndarray) -> None:
    accelerator = opened()
    model.fault = (200, 0)
    with pytest.raises(
        driver.RunError, match="error 200, a code that this driver does not know, at descriptor 0"
    ):
        accelerator.run(images)


def test_a_damaged_descriptor_in_memory(
    driver: ModuleType, opened: Open, model: Model, images: np.ndarray
) -> None:
    accelerator = opened()
    model.memory[accelerator._program.address - BASE + 2 * 128 + 40] ^= 1
    with pytest.raises(driver.RunError, match="error 3, descriptor checksum wrong, at descriptor 2"):
        accelerator.run(images)


@pytest.mark.parametrize("interrupt", [False, True])
def test_the_watchdog_ends_a_run(
    driver: ModuleType, opened: Open, model: Model, images: np.ndarray, interrupt: bool
) -> None:
    accelerator = opened(interrupt, watchdog=1000)
    model.hang = True
    with pytest.raises(driver.RunError, match="error 8, watchdog: no progress, at descriptor 0"):
        accelerator.run(images)


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_run_that_never_ends(
    driver: ModuleType, opened: Open, model: Model, images: np.ndarray, interrupt: bool
) -> None:
    accelerator = opened(interrupt, watchdog=0, timeout=0.1)
    model.hang = True
    with pytest.raises(driver.RunTimeoutError, match=r"did not finish in 0\.1 s: STATUS reads 0x1\."):
        accelerator.run(images)
    model.hang = False
    assert np.array_equal(accelerator.run(images), expected(images)), "it must run again after a timeout"


def test_a_reset_that_never_ends(driver: ModuleType, opened: Open, model: Model) -> None:
    model.stuck = True
    with pytest.raises(driver.RunTimeoutError, match=r"did not leave its reset: STATUS reads 0x1\."):
        opened(timeout=0.01)
    assert not any(event[0] in ("allocate", "store") for event in model.log), "the old run may use memory"


def test_a_run_that_somebody_left_is_stopped_before_memory_is_written(
    opened: Open, model: Model, images: np.ndarray
) -> None:
    model.values[REG["STATUS"]] = 1
    accelerator = opened()
    kinds = [event[0] for event in model.log]
    assert model.log.index(("write", REG["CONTROL"], 2)) < kinds.index("allocate") < kinds.index("store")
    assert np.array_equal(accelerator.run(images), expected(images))


class Stop(BaseException):
    """As KeyboardInterrupt is, but pytest does not end with it."""


@pytest.mark.parametrize("stopped_by", [Stop, OSError])
@pytest.mark.parametrize("what", ["wait", "store"])
def test_nothing_is_left_running(
    opened: Open,
    model: Model,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    stopped_by: type[BaseException],
) -> None:
    """Ctrl-C in the wait, or an error while the next image is copied."""
    accelerator = opened()
    original = getattr(model, what)

    def stop(*arguments: Any) -> None:
        if model.end is not None:
            raise stopped_by
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(model, what, stop)
        with pytest.raises(stopped_by):
            accelerator.run(images[:2])
    assert (model.end, model.values[REG["STATUS"]]) == (None, 0)
    assert np.array_equal(accelerator.run(images[1:]), expected(images[1:]))


def test_an_accelerator_that_is_busy_is_not_started(
    driver: ModuleType, opened: Open, model: Model, images: np.ndarray
) -> None:
    accelerator = opened()
    model.values[REG["STATUS"]] = 1
    model.log.clear()
    with pytest.raises(driver.AcceleratorError, match=r"not ready: STATUS reads 0x1; .* or call reset\(\)\."):
        accelerator.run(images)
    assert not any(event[:2] == ("write", REG["CONTROL"]) for event in model.log)
    accelerator.reset()
    assert np.array_equal(accelerator.run(images), expected(images))


def test_a_reset_that_never_ends_after_an_error(
    driver: ModuleType, opened: Open, model: Model, images: np.ndarray
) -> None:
    accelerator = opened(timeout=0.01)
    model.fault, model.stuck = (7, 3), True
    with pytest.raises(driver.RunTimeoutError, match="did not leave its reset") as caught:
        accelerator.run(images)
    assert isinstance(caught.value.__cause__, driver.RunError)
    with pytest.raises(driver.AcceleratorError, match="the accelerator is not ready"):
        accelerator.run(images)


def test_an_interrupt_from_the_keyboard_stays_one(
    opened: Open, model: Model, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator = opened(timeout=0.01)
    model.stuck = True
    monkeypatch.setattr(accelerator, "_finish", lambda: (_ for _ in ()).throw(Stop()))
    with pytest.raises(Stop):
        accelerator.run(images)


@pytest.mark.parametrize(
    ("register", "sentence"),
    [
        ("MAGIC", "there is no accelerator at this address: register MAGIC reads 0x0000002a, not 0x494e5447"),
        ("VERSION", f"the accelerator runs program format 42, not {FORMAT_VERSION}"),
        ("CONFIG", f"has configuration 0000002a, this driver is for {CONFIG.hash:08x}; load the bitstream"),
    ],
)
def test_another_accelerator(
    driver: ModuleType, opened: Open, model: Model, register: str, sentence: str
) -> None:
    model.values[REG[register]] = 42
    with pytest.raises(driver.AcceleratorError, match=sentence):
        opened()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: b"ITGQ" + data[4:], r"program\.bin: is no accelerator program"),
        (lambda data: data[:10], r"program\.bin: is no accelerator program"),
        (lambda data: data[:4] + b"\x09\0" + data[6:], r"program format 9, this driver knows 1; compile"),
        (
            lambda data: data[:8] + b"\0\0\0\0" + data[12:],
            r"made for configuration 00000000, this driver is for",
        ),
        (lambda data: data[:-1], r"has 547 bytes, not 548; it is truncated or damaged"),
    ],
)
def test_another_program(
    driver: ModuleType, opened: Open, artifact: Path, change: Callable[[bytes], bytes], sentence: str
) -> None:
    path = artifact / "program.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(driver.AcceleratorError, match=sentence):
        opened()


def test_weights_that_are_cut_off(driver: ModuleType, opened: Open, artifact: Path) -> None:
    (artifact / "weights.bin").write_bytes(bytes(511))
    with pytest.raises(driver.AcceleratorError, match=r"weights\.bin: has 511 bytes, not 512\."):
        opened()


def test_images_that_do_not_fit(driver: ModuleType, opened: Open, images: np.ndarray) -> None:
    accelerator = opened()
    with pytest.raises(driver.AcceleratorError, match=r"images must be \[N, 1, 2, 8\], not \[3, 2, 8\]"):
        accelerator.run(images[:, 0])
    with pytest.raises(driver.AcceleratorError, match="the model takes uint8, not float64"):
        accelerator.run(images / 255)
    with pytest.raises(driver.AcceleratorError, match="an image has 3 bytes, not 16"):
        accelerator.run_bytes([b"abc"])


def test_memory_that_is_not_aligned(
    driver: ModuleType, opened: Open, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "allocate", lambda size, alignment: BASE + 4)
    with pytest.raises(
        driver.AcceleratorError, match="the buffer at 0x810000004 is not aligned to 128 bytes"
    ):
        opened()


# --- PYNQ, /dev/mem ---


class FakePynq(ModuleType):
    """As much of PYNQ as the driver uses, over `model`."""

    def __init__(self, model: Model) -> None:
        super().__init__("pynq")
        self.model = model

    def Overlay(self, bitstream: str) -> SimpleNamespace:  # noqa: N802 - PYNQ's name
        return SimpleNamespace(ip_dict={"accelerator": {"phys_addr": 0xA000_0000, "addr_range": 4096}})

    def MMIO(self, address: int, size: int) -> Model:  # noqa: N802 - PYNQ's name
        assert (address, size) == (0xA000_0000, 4096)
        return self.model

    def Interrupt(self, pin: str) -> SimpleNamespace:  # noqa: N802 - PYNQ's name
        async def wait() -> None:
            self.model.wait(1.0, True)

        return SimpleNamespace(wait=wait)

    def allocate(self, shape: tuple[int], dtype: Any) -> np.ndarray:
        model, memory = self.model, np.zeros(shape, dtype).view(PynqArray)
        memory.physical_address = address = model.allocate(shape[0], 4096)
        memory.flush = lambda: model.store(address, memory.tobytes())
        memory.invalidate = lambda: memory.__setitem__(
            slice(None), np.frombuffer(model.load(address, shape[0]), dtype)
        )
        memory.freebuffer = lambda: model.log.append(("free", address))
        return memory


class PynqArray(np.ndarray):
    """An array with attributes."""


@pytest.mark.parametrize("interrupt", [None, "accelerator/interrupt"])
def test_on_pynq(
    driver: ModuleType,
    model: Model,
    artifact: Path,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: str | None,
) -> None:
    monkeypatch.setitem(sys.modules, "pynq", FakePynq(model))
    bus = driver.PynqBus("accelerator.bit", interrupt=interrupt)
    # Real seconds pass here; the model's do not.
    model.duration = 20e-6
    with driver.Accelerator(bus, artifact) as accelerator:
        assert np.array_equal(accelerator.run(images), expected(images))
    assert sum(event[0] == "free" for event in model.log) == 5
    if interrupt:
        bus._loop.close()


def test_a_block_that_the_bitstream_has_not(
    driver: ModuleType, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynq", FakePynq(model))
    with pytest.raises(driver.AcceleratorError, match=r"has no block 'x', only accelerator\."):
        driver.PynqBus("accelerator.bit", ip="x")


def test_on_dev_mem(driver: ModuleType, tmp_path: Path) -> None:
    files = dev_mem(tmp_path, 8192)
    bus = driver.DevMemBus(4096, **files)
    bus.write(REG["PROGRAM_LO"], 0x8765_4321)
    assert bus.read(REG["PROGRAM_LO"]) == 0x8765_4321
    assert (tmp_path / "mem").read_bytes()[4096 + REG["PROGRAM_LO"] :][:4] == b"\x21\x43\x65\x87"
    first, second = bus.allocate(100, 64), bus.allocate(100, 64)
    assert (first.address, second.address) == (BASE + 64, BASE + 192)
    second.write(b"result")
    assert second.read(6) == b"result"
    assert (tmp_path / "udmabuf0").read_bytes()[192 - 16 :][:6] == b"result"


def test_a_small_dma_buffer(driver: ModuleType, tmp_path: Path) -> None:
    bus = driver.DevMemBus(0, **dev_mem(tmp_path, 4096))
    with pytest.raises(driver.AcceleratorError, match="has 4096 bytes, too few for 8176; make a larger one"):
        bus.allocate(4096, 4096)


@pytest.mark.parametrize("config", PRESETS.values(), ids=list(PRESETS))
def test_the_driver_of_every_preset_is_python(config: AcceleratorConfig) -> None:
    compile(host.emit(config)["host/intaglio_pynq.py"], "intaglio_pynq.py", "exec")


def test_the_manifest_is_the_one_that_the_compiler_writes(artifact: Path) -> None:
    """The keys that the driver reads exist in the artifact's schema."""
    from intaglio.artifact import InputSpec, OutputSpec

    sides = json.loads((artifact / "manifest.json").read_text())
    assert set(sides["input"]) <= set(InputSpec.model_fields)
    assert set(sides["output"]) <= set(OutputSpec.model_fields)


def test_the_program_of_these_tests_is_sound() -> None:
    assert type(program()).unpack(program().pack()).pack() == program().pack()
