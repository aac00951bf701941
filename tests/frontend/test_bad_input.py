"""Bad input: one sentence that says what is wrong, where, and what to do; nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from intaglio import errors
from intaglio.cli.app import app
from intaglio.compiler import Options, to_program
from intaglio.errors import InputError, IntaglioError, ModelError, UnsupportedError
from intaglio.ops import reference
from tests.frontend.bad_models import BAD, Bad
from tests.frontend.graphs import Graph, compile_model

FIXTURES = Path(__file__).parents[1] / "fixtures"
FIXTURE = FIXTURES / "ort_static_legacy_u8s8_pc.onnx"
BYTES = FIXTURE.read_bytes()


def sentence_of(error: IntaglioError) -> str:
    """The message, which is one line without a trace of the program's insides."""
    text = str(error)
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    assert "0x" not in text
    return text


def refused_by_the_command_line(path: Path, out: Path, *options: str) -> str:
    """`intaglio compile` ends with 2, says one sentence and leaves nothing behind."""
    result = CliRunner().invoke(app, ["compile", str(path), "--target", "null", "-o", str(out), *options])
    assert result.exit_code == 2, (result.stdout, result.stderr, result.exception)
    assert result.stdout == ""
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert not out.exists()
    assert (
        not [p for p in out.parent.iterdir() if p.name not in (path.name, "mine")] or not out.parent.is_dir()
    )
    return sentence.removeprefix("error: ")


@pytest.mark.parametrize("case", BAD, ids=[case.name for case in BAD])
def test_a_model_that_cannot_be_compiled(case: Bad, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(case.build().SerializeToString())
    with pytest.raises(IntaglioError) as refusal:
        to_program(path)
    sentence = sentence_of(refusal.value)
    assert type(refusal.value) is getattr(errors, case.error), sentence
    for part in case.says:
        assert part in sentence
    assert not list(tmp_path.glob("*.py"))


@pytest.mark.parametrize("case", BAD, ids=[case.name for case in BAD])
def test_the_command_line_says_the_same(case: Bad, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(case.build().SerializeToString())
    sentence = refused_by_the_command_line(path, tmp_path / "out")
    for part in case.says:
        assert part in sentence


def test_the_warnings_of_libraries_are_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """TVM reports what an exception leaves open, on its own standard error."""
    for case in BAD:
        path = tmp_path / "model.onnx"
        path.write_bytes(case.build().SerializeToString())
        with pytest.raises(IntaglioError):
            to_program(path)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_a_builder_refuses_the_result(tmp_path: Path) -> None:
    g = Graph(1, 8, 24)
    gamma, beta = g.constant(np.ones(24)), g.constant(np.zeros(24))
    y = g.op("LayerNormalization", g.q("x"), gamma, beta, epsilon=1e30)
    with pytest.raises(IntaglioError, match=r"epsilon|floating point"):
        compile_model(g.model(y), tmp_path)


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"this is not ONNX",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"{}",
        b"PK\x03\x04" + bytes(50),
        bytes(4096),
    ],
    ids=["empty", "zero_byte", "text", "png", "json", "zip", "zeros"],
)
def test_a_file_that_is_not_onnx(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx: not an ONNX (file|model), or truncated") as refusal:
        to_program(path)
    sentence_of(refusal.value)
    assert "not an ONNX" in refused_by_the_command_line(path, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".json", ".txt", ".textproto", ".onnxtxt", ".onnxjson", ".bin", ""])
def test_the_suffix_does_not_matter(suffix: str, tmp_path: Path) -> None:
    """The onnx package picks a parser by the name of the file."""
    path = tmp_path / f"model{suffix}"
    path.write_text("this is not ONNX")
    with pytest.raises(ModelError, match="not an ONNX file") as refusal:
        to_program(path)
    sentence_of(refusal.value)


@pytest.mark.parametrize("where", [*range(1, 40), *np.linspace(40, len(BYTES) - 1, 40, dtype=int).tolist()])
def test_a_truncated_file(where: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(BYTES[:where])
    with pytest.raises(ModelError) as refusal:
        to_program(path)
    assert str(path) in sentence_of(refusal.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    with pytest.raises(ModelError, match=r"none\.onnx: no such file; give the path of an ONNX model"):
        to_program(path)
    assert "no such file" in refused_by_the_command_line(path, tmp_path / "out")


def test_a_folder_as_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.mkdir()
    with pytest.raises(ModelError, match="is a folder; give the path of an ONNX model"):
        to_program(path)
    assert "is a folder" in refused_by_the_command_line(path, tmp_path / "out")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Below a file; permissions do not stop root."""
    (tmp_path / "mine").write_text("mine")
    for out in (tmp_path / "mine" / "out", tmp_path / "mine" / "deep" / "er"):
        result = CliRunner().invoke(app, ["compile", str(FIXTURE), "--target", "null", "-o", str(out)])
        assert (result.exit_code, result.stdout) == (2, "")
        assert str(tmp_path / "mine") in result.stderr.splitlines()[-1]
    assert (tmp_path / "mine").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    path = tmp_path / "model.onnx"
    path.write_bytes(BYTES[:1000])
    result = CliRunner().invoke(app, ["compile", str(path), "--target", "null", "-o", str(out)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert [p.name for p in out.iterdir()] == ["mine"]


# --- options and inputs -------------------------------------------------------------------------------------


def _linear(batch: int | str | None = None) -> onnx.ModelProto:
    g = Graph(1, 3, 8, 8, batch=batch)
    conv = g.op("Conv", g.q("x"), g.weight(g.normal(16, 3, 4, 4), axis=0), strides=[4, 4])
    return g.model(g.q(conv))


def test_a_batch_that_is_fixed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"'x' was exported with batch 1; .* --batch 4"):
        compile_model(_linear(), tmp_path, Options(batch=4))
    with pytest.raises(UnsupportedError, match="--batch must be at least 1, not 0"):
        compile_model(_linear("N"), tmp_path, Options(batch=0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"input_kind": "jpeg"}, "--input must be float or uint8, not 'jpeg'"),
        ({"nonlinear": "approximate"}, "--nonlinear must be exact or ivit, not 'approximate'"),
        ({"input_kind": "uint8", "std": (0.0,)}, "--std must be positive, not [0.0]"),
        ({"input_kind": "uint8", "std": (-1.0,)}, "--std must be positive"),
        ({"input_kind": "uint8", "std": (float("nan"),)}, "--std must be positive"),
        ({"input_kind": "uint8", "std": (float("inf"),)}, "--std must be positive"),
        ({"input_kind": "uint8", "mean": (float("nan"),)}, "--mean"),
        (
            {"input_kind": "uint8", "mean": (0.5, 0.5)},
            "--mean has 2 values; the model's input [1, 3, 8, 8] needs 1 or",
        ),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        compile_model(_linear(), tmp_path, Options(**options))  # type: ignore[arg-type]
    assert says in sentence_of(refusal.value)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 3, 8, 9), "int8"), ((3, 8, 8), "int8"), ((1, 3, 8, 8), "float32"), ((2, 3, 8, 8), "int8")],
)
def test_an_image_of_another_size(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    program = compile_model(_linear(), tmp_path)
    with pytest.raises(InputError, match=r"input 'x' must be int8 \[1, 3, 8, 8\], not ") as refusal:
        reference.run(program, np.zeros(shape, dtype))
    sentence_of(refusal.value)


def test_a_good_model_after_a_bad_one(tmp_path: Path) -> None:
    """A refusal leaves no state behind."""
    for case in BAD[:10]:
        with pytest.raises(IntaglioError):
            compile_model(case.build(), tmp_path)
    compile_model(_linear(), tmp_path)
