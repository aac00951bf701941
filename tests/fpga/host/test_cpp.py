"""The C++ driver on the same model of the accelerator: the same accesses as the Python driver, in the same order."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from intaglio.accelerator import registers
from intaglio.accelerator.config import PRESETS
from tests.fpga.host.buses import bus_of, dev_mem
from tests.fpga.host.conftest import expected, render
from tests.fpga.host.model import REG, Model

pytestmark = pytest.mark.simulator

HERE = Path(__file__).parent
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]


def compile_cpp(source: Path, host_folder: Path, output: Path, *flags: str) -> Path:
    """One program; fails with the compiler's messages."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    includes = [f"-I{folder}" for folder in (host_folder, HERE, HERE / "stub")]
    done = subprocess.run(
        ["g++", *FLAGS, *flags, *includes, source, "-o", output], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def harness(host_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_cpp(HERE / "harness.cpp", host_folder, tmp_path_factory.mktemp("harness") / "harness")


class Session:
    """One run of the harness against a model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.results: list[bytes] = []
        self.best: list[tuple[int, int]] = []
        self.counters: dict[str, int] = {}
        self.error = ""

    def run(
        self,
        harness: Path,
        artifact: Path,
        images: np.ndarray,
        interrupt: bool = False,
        timeout: float = 5.0,
        watchdog: int = 1 << 24,
        task: int = 0,
    ) -> Session:
        data = artifact.parent / "images.bin"
        data.write_bytes(images.tobytes())
        command = [harness, artifact, data, str(int(interrupt)), repr(timeout), str(watchdog), str(task)]
        with subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                process.stdin.write(f"{self._answer(*line.split())}\n")
                process.stdin.flush()
            self.error = process.stderr.read().strip()
        return self

    def _answer(self, what: str, *words: str) -> Any:
        model = self.model
        match what:
            case "read" | "write" | "allocate":
                return getattr(model, what)(*map(int, words))
            case "store":
                return model.store(int(words[0]), bytes.fromhex(words[1][1:]))
            case "load":
                return model.load(*map(int, words)).hex()
            case "now":
                return repr(model.time)
            case "wait":
                return model.wait(float(words[0]), words[1] == "1")
            case "result":
                return self.results.append(bytes.fromhex(words[0][1:]))
            case "best":
                return self.best.append((int(words[0]), int(words[1])))
            case "counter":
                return self.counters.update({words[0]: int(words[1])})
        raise AssertionError(what)


def python_log(
    driver: ModuleType,
    model: Model,
    artifact: Path,
    images: np.ndarray,
    interrupt: bool = False,
    task: int = 0,
) -> list[Any]:
    """What the Python driver does in a session like the harness's."""
    accelerator = driver.Accelerator(bus_of(driver, model, interrupt), artifact)
    accelerator.run(images, task)
    accelerator.counters()
    return model.log


@pytest.mark.parametrize("interrupt", [False, True])
def test_both_drivers_do_the_same(
    driver: ModuleType, harness: Path, model: Model, artifact: Path, images: np.ndarray, interrupt: bool
) -> None:
    session = Session(model).run(harness, artifact, images, interrupt)
    assert session.error == ""
    assert session.results == [result.tobytes() for result in expected(images)]
    twin = Model(model.config, model.program, model.compute)
    assert model.log == python_log(driver, twin, artifact, images, interrupt)


def test_both_drivers_run_a_task(
    driver: ModuleType, harness: Path, model: Model, two_tasks: Path, images: np.ndarray
) -> None:
    session = Session(model).run(harness, two_tasks, images, task=1)
    assert (session.error, model.tasks) == ("", [1, 1, 1])
    twin = Model(model.config, model.program, model.compute)
    assert model.log == python_log(driver, twin, two_tasks, images, task=1)


@pytest.mark.parametrize("task", [2, (1 << 32) - 1])
def test_both_drivers_refuse_a_task_that_is_not_there_in_the_same_words(
    driver: ModuleType, harness: Path, model: Model, two_tasks: Path, images: np.ndarray, task: int
) -> None:
    session = Session(model).run(harness, two_tasks, images, task=task)
    assert session.error == f"there is no task {task}: the program has 2, counted from 0."
    assert model.tasks == []
    with pytest.raises(driver.AcceleratorError) as caught:
        driver.Accelerator(bus_of(driver, model), two_tasks).run(images, task)
    assert session.error == str(caught.value)


def test_best_classes_and_counters(harness: Path, model: Model, artifact: Path, images: np.ndarray) -> None:
    session = Session(model).run(harness, artifact, images[:1])
    values = expected(images)[0].reshape(-1).tolist()
    assert session.best == [(c, values[c]) for c in sorted(range(16), key=lambda c: (-values[c], c))[:3]]
    assert list(session.counters) == list(registers.COUNTERS)
    assert session.counters["mac_steps"] == 2


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize("code", [*(code for code in registers.ERRORS if code), 200])
def test_an_error_says_what_and_where(
    harness: Path, model: Model, artifact: Path, images: np.ndarray, code: int, interrupt: bool
) -> None:
    model.fault = (code, 17)
    reason = registers.ERRORS.get(code, "a code that this driver does not know")
    session = Session(model).run(harness, artifact, images, interrupt)
    assert session.error == f"the accelerator stopped with error {code}, {reason}, at descriptor 17."
    assert model.values[REG["STATUS"]] == 0, "it must be reset"


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_run_that_never_ends(
    harness: Path, model: Model, artifact: Path, images: np.ndarray, interrupt: bool
) -> None:
    model.hang = True
    session = Session(model).run(harness, artifact, images, interrupt, timeout=0.1, watchdog=0)
    assert session.error == "the accelerator did not finish in time: STATUS reads 0x1."
    assert model.values[REG["STATUS"]] == 0, "it must be reset"


def test_a_reset_that_never_ends(harness: Path, model: Model, artifact: Path, images: np.ndarray) -> None:
    model.stuck = True
    session = Session(model).run(harness, artifact, images, timeout=0.01)
    assert session.error == "the accelerator did not leave its reset: STATUS reads 0x1."
    assert not any(event[0] in ("allocate", "store") for event in model.log), "the old run may use memory"


def test_a_reset_that_never_ends_after_an_error(
    harness: Path, model: Model, artifact: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error stays with the exception, as its cause."""
    model.fault = (7, 3)
    execute = model._execute

    def stick() -> tuple[int, int, bytes]:
        model.stuck = True
        return execute()

    monkeypatch.setattr(model, "_execute", stick)
    session = Session(model).run(harness, artifact, images, timeout=0.01)
    assert session.error.splitlines() == [
        "the accelerator did not leave its reset: STATUS reads 0x1.",
        f"the accelerator stopped with error 7, {registers.ERRORS[7]}, at descriptor 3.",
    ]


@pytest.mark.parametrize("interrupt", [False, True])
def test_both_drivers_do_the_same_after_an_error(
    driver: ModuleType, harness: Path, model: Model, artifact: Path, images: np.ndarray, interrupt: bool
) -> None:
    model.fault = (7, 3)
    session = Session(model).run(harness, artifact, images, interrupt)
    twin = Model(model.config, model.program, model.compute, fault=(7, 3))
    with pytest.raises(driver.RunError) as caught:
        python_log(driver, twin, artifact, images, interrupt)
    assert session.error == str(caught.value)
    assert model.log == twin.log


def test_an_accelerator_that_is_busy_is_not_started(
    driver: ModuleType,
    harness: Path,
    model: Model,
    artifact: Path,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody else starts it once this driver is ready."""

    def busy(size: int, alignment: int) -> int:
        model.values[REG["STATUS"]] = 1
        return type(model).allocate(model, size, alignment)

    monkeypatch.setattr(model, "allocate", busy)
    session = Session(model).run(harness, artifact, images)
    assert session.error.startswith("the accelerator is not ready: STATUS reads 0x1; ")
    assert not any(event[:2] == ("write", REG["CONTROL"]) and event[2] != 2 for event in model.log)
    with pytest.raises(driver.AcceleratorError) as caught:
        driver.Accelerator(bus_of(driver, model), artifact).run(images)
    assert session.error == str(caught.value)


@pytest.mark.parametrize("register", ["MAGIC", "VERSION", "CONFIG"])
def test_both_drivers_refuse_another_accelerator_in_the_same_words(
    driver: ModuleType, harness: Path, model: Model, artifact: Path, images: np.ndarray, register: str
) -> None:
    model.values[REG[register]] = 42
    session = Session(model).run(harness, artifact, images)
    with pytest.raises(driver.AcceleratorError) as caught:
        driver.Accelerator(bus_of(driver, model), artifact)
    assert session.error == str(caught.value)


@pytest.mark.parametrize(
    ("name", "start", "data"),
    [
        ("program.bin", 0, b"X"),
        ("program.bin", 4, b"\x09"),
        ("program.bin", 8, b"\0\0\0\0"),
        ("program.bin", 12, b"\x05"),
        ("weights.bin", 512, b"more"),
    ],
)
def test_both_drivers_refuse_a_damaged_file_in_the_same_words(
    driver: ModuleType,
    harness: Path,
    model: Model,
    artifact: Path,
    images: np.ndarray,
    name: str,
    start: int,
    data: bytes,
) -> None:
    path = artifact / name
    content = path.read_bytes()
    path.write_bytes(content[:start] + data + content[start + len(data) :])
    session = Session(model).run(harness, artifact, images)
    with pytest.raises(driver.AcceleratorError) as caught:
        driver.Accelerator(bus_of(driver, model), artifact)
    assert session.error == str(caught.value)


def test_a_folder_that_is_not_there(harness: Path, model: Model, artifact: Path, images: np.ndarray) -> None:
    session = Session(model).run(harness, artifact / "none", images)
    assert session.error.endswith("program.bin: cannot be read.")


def test_the_xrt_flavour(
    host_folder: Path, tmp_path: Path, model: Model, artifact: Path, images: np.ndarray
) -> None:
    """Over a stub of XRT, whose time is real."""
    binary = compile_cpp(HERE / "harness.cpp", host_folder, tmp_path / "xrt", "-DINTAGLIO_XRT")
    model.duration = 20e-6
    session = Session(model).run(binary, artifact, images)
    assert (session.error, session.results) == ("", [result.tobytes() for result in expected(images)])


@pytest.mark.parametrize("flavour", ["INTAGLIO_DEVMEM", "INTAGLIO_XRT"])
def test_the_example_compiles(host_folder: Path, tmp_path: Path, flavour: str) -> None:
    compile_cpp(host_folder / "example.cpp", host_folder, tmp_path / "example", f"-D{flavour}")


def test_the_example_says_what_it_needs(host_folder: Path, tmp_path: Path) -> None:
    binary = compile_cpp(host_folder / "example.cpp", host_folder, tmp_path / "example", "-DINTAGLIO_DEVMEM")
    usage = subprocess.run([binary], capture_output=True, text=True, check=False)
    assert (usage.returncode, usage.stderr[:6]) == (2, "usage:")
    words = ["model", "image", "10", "0xA0000000", "no-such-buffer"]
    for task in ([], ["1"]):
        failed = subprocess.run([binary, *words, *task], capture_output=True, text=True, check=False)
        assert failed.returncode == 1
        assert failed.stderr == "/sys/class/u-dma-buf/no-such-buffer/phys_addr: cannot be read.\n"


def test_the_driver_of_the_largest_preset_compiles(tmp_path: Path) -> None:
    folder = render(PRESETS["large"], tmp_path)
    compile_cpp(folder / "example.cpp", folder, tmp_path / "example", "-DINTAGLIO_DEVMEM", "-fsyntax-only")


DEV_MEM = """
#include "intaglio.hpp"
int main(int, char **argv) {
  const std::string folder = argv[1];
  intaglio::DevMemBus bus(4096, "udmabuf0", folder + "/mem", folder, folder + "/sys");
  bus.write(intaglio::PROGRAM_LO, 0x87654321u);
  if (bus.read(intaglio::PROGRAM_LO) != 0x87654321u) return 1;
  const auto first = bus.allocate(100, 64), second = bus.allocate(100, 64);
  second->write("result", 6);
  char back[6];
  second->read(back, 6);
  std::printf("%llx %llx %.6s\\n", static_cast<unsigned long long>(first->address()),
              static_cast<unsigned long long>(second->address()), back);
  try {
    bus.allocate(8192, 4096);
  } catch (const intaglio::Error &error) {
    std::printf("%s\\n", error.what());
  }
}
"""


def test_on_dev_mem(host_folder: Path, tmp_path: Path) -> None:
    dev_mem(tmp_path, 8192)
    source = tmp_path / "devmem.cpp"
    source.write_text(DEV_MEM)
    binary = compile_cpp(source, host_folder, tmp_path / "devmem", "-DINTAGLIO_DEVMEM")
    done = subprocess.run([binary, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "810000040 8100000c0 result",
        "the u-dma-buf device has 8192 bytes, too few for 12272; make a larger one.",
    ]
    assert (tmp_path / "mem").read_bytes()[4096 + REG["PROGRAM_LO"] :][:4] == b"\x21\x43\x65\x87"
