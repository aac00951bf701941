"""What the command line refuses: one sentence, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from intaglio import artifact, target
from tests.cli.conftest import SHAPE, invoke, refusal


def test_unknown_target(tmp_path: Path, model: Path) -> None:
    sentence = refusal("compile", model, "--target", "cpuu", "-o", tmp_path / "out")
    assert sentence == "there is no target 'cpuu'; did you mean 'cpu', or give the path of a .toml file."
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--batch", "0"), "--batch: expected a number of at least 1, not 0."),
        (("--threads", "-1"), "--threads: expected a number of at least 1, not -1."),
        (("--threads", "65"), "--threads: a library runs on at most 64, not 65."),
        (("--mean", "x", "--std", "1"), "--mean: expected numbers separated by commas, not 'x'."),
        (("--input", "uint8", "--mean", "0", "--std", "0"), "--std: expected positive numbers, not '0'."),
        (("--input", "uint8", "--mean", "0.5"), "--mean and --std: expected both or neither."),
    ],
)
def test_options_of_compile(tmp_path: Path, model: Path, options: tuple[str, ...], sentence: str) -> None:
    assert refusal("compile", model, "-o", tmp_path / "out", *options) == sentence
    assert not (tmp_path / "out").exists()


def test_a_wrong_number_of_channels(tmp_path: Path, model: Path) -> None:
    options = ("--input", "uint8", "--mean", "0,0", "--std", "1,1")
    assert "needs 1 or one per channel" in refusal("compile", model, "-o", tmp_path / "out", *options)


def test_a_model_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert "no such file" in refusal("compile", path, "-o", tmp_path / "out")
    path.write_text("this is not ONNX")
    assert "not an ONNX" in refusal("compile", path, "-o", tmp_path / "out")
    assert "not an ONNX" in refusal("inspect", path)
    assert not (tmp_path / "out").exists()


def test_a_truncated_model(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.read_bytes()[:20_000])
    assert str(path) in refusal("compile", path, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(tmp_path: Path, model: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert "is a file, not a folder" in refusal("compile", model, "--target", "null", "-o", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_is_no_artifact(tmp_path: Path, pixels: Path) -> None:
    for command in (
        ("run", tmp_path, "-i", pixels),
        ("verify", tmp_path),
        ("evaluate", tmp_path),
        ("inspect", tmp_path),
    ):
        assert "is not an intaglio artifact" in refusal(*command)
    assert "is not a folder" in refusal("verify", tmp_path / "none")


def test_inputs_that_do_not_fit(tmp_path: Path, compiled: Path, pixels: Path) -> None:
    np.save(tmp_path / "wrong.npy", np.zeros((1, 3, 32, 31), np.uint8))
    np.save(tmp_path / "real.npy", np.zeros((1, *SHAPE), np.float32))
    assert "expected an array of shape [N, 3, 32, 32]" in refusal(
        "run", compiled / "pixels", "-i", tmp_path / "wrong.npy"
    )
    assert "takes raw pixels (uint8), not float32" in refusal(
        "run", compiled / "pixels", "-i", tmp_path / "real.npy"
    )
    assert "raw pixels need a normalization" in refusal("run", compiled / "float", "-i", pixels)
    half = refusal("run", compiled / "float", "-i", pixels, "--mean", "0.5")
    assert half == "--mean and --std: expected both or neither."
    twice = refusal("run", compiled / "pixels", "-i", pixels, "--mean", "0", "--std", "1")
    assert "normalizes raw pixels itself" in twice


def test_options_of_run(tmp_path: Path, compiled: Path, pixels: Path) -> None:
    (tmp_path / "labels.txt").write_text("one\n")
    run = ("run", compiled / "pixels", "-i", pixels)
    assert "--output: expected the name of a .npy file, not 'x.txt'" in refusal(*run, "-o", "x.txt")
    assert "--top: expected a number of at least 1, not 0" in refusal(*run, "--top", 0)
    assert "class names, one per line, not 1" in refusal(*run, "--labels", tmp_path / "labels.txt")
    assert "No such file or directory" in refusal(*run, "-o", tmp_path / "none" / "x.npy")


def test_a_device_that_was_not_compiled(compiled: Path, pixels: Path) -> None:
    sentence = refusal("run", compiled / "null", "-i", pixels, "--device", "cpu")
    assert sentence.endswith("compile the model with --target cpu, or run it with --device reference.")


def test_no_c_compiler(compiled: Path, pixels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "'no-such-compiler' (from $CC) was not found" in refusal("run", compiled / "c", "-i", pixels)
    values = json.loads(invoke("verify", compiled / "pixels", "--count", 1, "--json").stdout)
    assert values["executions"] == ["reference", "cpu"]
    assert "left out" in invoke("verify", compiled / "pixels", "--count", 1).stdout


def test_a_source_that_is_gone_or_another(tmp_path: Path, compiled: Path) -> None:
    sentence = refusal("verify", compiled / "null", "--model", tmp_path / "none.onnx")
    assert sentence.endswith("is not there; name it with --model.")
    (tmp_path / "other.onnx").write_text("other")
    assert "(another SHA-256)" in refusal("verify", compiled / "null", "--model", tmp_path / "other.onnx")


def test_a_data_set_that_does_not_fit(tmp_path: Path, compiled: Path) -> None:
    assert "--dataset: expected fashion-mnist or fashion-mnist-groups, not 'mnist'" in refusal(
        "evaluate", compiled / "null", "--dataset", "mnist"
    )
    assert "dataset-fashion-mnist" in refusal("evaluate", compiled / "null", "--data", tmp_path)
    shipped = Path(__file__).parents[2] / "examples" / "fashion_mnist"
    sentence = refusal("evaluate", compiled / "null", "--data", shipped)
    assert sentence == "fashion-mnist: its images are [1, 28, 28], this model takes [3, 32, 32]."
    assert "--count: expected 1 to 1000 images" in refusal(
        "evaluate", compiled / "null", "--data", shipped, "--count", 2000
    )


def test_quantize_to_something_else(tmp_path: Path, model: Path, pixels: Path) -> None:
    sentence = refusal("quantize", model, "-c", pixels, "-o", tmp_path / "q.txt")
    assert "--output: expected the name of an .onnx file" in sentence
    sentence = refusal("quantize", model, "-c", pixels, "-o", tmp_path / "q.onnx")
    assert "raw pixels need a normalization" in sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", "/dev/full"])
def test_a_wrong_option_is_explained(path: str) -> None:
    result = invoke("targets", "--nonsense", path)
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert result.stdout == ""


def test_a_folder_of_targets_that_is_not_there(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'}: there is no such folder." in refusal("targets", tmp_path / "none")


def test_errors_with_json_leave_standard_output_empty(tmp_path: Path) -> None:
    result = invoke("inspect", tmp_path / "none.onnx", "--json")
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_defect_asks_for_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "available", lambda _: 1 // 0)
    result = invoke("targets")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "error: this is a defect of intaglio (ZeroDivisionError: integer division or modulo by zero); "
        "please report it with the output of the same command and --debug.\n"
    )
    assert "Traceback (most recent call last)" in invoke("targets", "--debug").stderr


def test_debug_shows_the_traceback_of_a_refusal(tmp_path: Path) -> None:
    result = invoke("inspect", tmp_path, "--debug")
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("raised", "exit_code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "error: there is not enough memory for this model."),
        (OSError(28, "No space left on device", "x.bin"), 2, "error: x.bin: No space left on device"),
    ],
)
def test_other_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raised: BaseException, exit_code: int, sentence: str
) -> None:
    def fail(_: Path) -> None:
        raise raised

    monkeypatch.setattr(artifact, "load", fail)
    result = invoke("verify", tmp_path)
    assert (result.exit_code, result.stderr) == (exit_code, f"{sentence}\n")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from intaglio.cli import main; main()", *map(str, arguments)]


def test_ctrl_c_ends_cleanly(compiled: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5000, *SHAPE), np.uint8))
    arguments = command("run", compiled / "null", "-i", tmp_path / "x.npy")
    # A shell's background job, which a test run may be, starts with this signal ignored.
    arguments[2] = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {arguments[2]}"
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "5000 samples" in process.stderr.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")


def test_ctrl_c_while_the_command_line_loads() -> None:
    """Ctrl-C where the first of its own modules is looked for."""
    finder = (
        "import sys; from intaglio import cli\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'intaglio.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop()); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", finder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_closed_pipe_is_no_error(compiled: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command("inspect", compiled / "null"), stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_disk_at_standard_output_is_an_error(options: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("targets", *options), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_what_libraries_print_stays_off_standard_output() -> None:
    noise = "t.available = lambda folder: os.write(1, b'noise') and f(folder)"
    code = f"import os, intaglio.target as t; f = t.available; {noise}; from intaglio.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "targets", "--json"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("{")
    assert "noise" in done.stderr
