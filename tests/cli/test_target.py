from __future__ import annotations

from pathlib import Path

import pytest

from intaglio import target
from intaglio.errors import InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "board.toml"
    path.write_text(text)
    return path


def test_the_targets_of_this_release() -> None:
    names = [entry.name for entry in target.available()]
    assert names == [
        "arty-a7", "c", "cpu", "cpu-x86-64-v2", "cpu-x86-64-v3", "kv260", "null", "pynq-z2", "tiny", "u250", "u280",
        "u50", "ultra96v2", "ulx3s", "vck190", "zcu102", "zcu104",
    ]  # fmt: skip
    assert all(entry.description for entry in target.available())


def test_a_target_is_called_as_its_file() -> None:
    assert all(target.find(entry.name) == entry for entry in target.available())


def test_a_user_target(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "mine"\nkind = "cpu"\nmcpu = "znver3"\n')
    found = target.find(str(path))
    assert isinstance(found, target.CpuTarget)
    assert (found.name, found.mcpu) == ("mine", "znver3")
    assert target.available(tmp_path) == [found]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = ", "is not valid TOML"),
        ('name = "a"\n', r"key 'kind' must be one of cpu, c, null, fpga, not None"),
        ('name = "a"\nkind = "gpu"\n', r"key 'kind' must be one of cpu, c, null, fpga, not 'gpu'"),
        ('name = "a"\nkind = "cpu"\nmcpuu = "x"\n', r"unknown key 'mcpuu' .* did you mean 'mcpu'\."),
        ('name = "a"\nkind = "c"\nqqq = 1\n', r"unknown key 'qqq' .* valid keys: name, description, kind\."),
        ('kind = "c"\n', r"key 'name' is missing"),
        ('name = "a"\nkind = "cpu"\nmcpu = 3\n', r"key 'mcpu': input should be a valid string, not 3"),
        ('name = "a b"\nkind = "c"\n', r"key 'name': string should match pattern .* not 'a b'"),
    ],
)
def test_a_malformed_target_file(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        target.load(write(tmp_path, text))


def test_a_missing_target_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: there is no such target file"):
        target.find(str(tmp_path / "none.toml"))


def test_a_target_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(InputError, match=r"x\.toml: cannot be read: Is a directory"):
        target.find(str(tmp_path / "x.toml"))


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"there is no target 'cpux'; did you mean 'cpu'"):
        target.find("cpux")
    with pytest.raises(
        InputError, match=r"there is no target 'zzz'; known targets: arty-a7, c, cpu, cpu-x86-64-v2, "
    ):
        target.find("zzz")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cols = 24\n", r"board\.toml: cols must be a multiple of depth \(16\), not 24\."),
        ("[accelerator]\ncols = 24\n", r"board\.toml: cols must be a multiple of depth \(16\), not 24\."),
        ("accelerator = 3\n", r"board\.toml: key 'accelerator' must be a table, not 3\."),
        ("", r"board\.toml: is empty; it must hold a configuration, or a table 'accelerator'\."),
        ("# nothing\n", r"board\.toml: is empty"),
        ("[accelerator]\n", r"board\.toml: is empty"),
        ("rows = 3\n", r"board\.toml: key 'rows': input should be 1, 2, 4 or 8, not 3\."),
    ],
)
def test_a_malformed_configuration_file(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        target.configuration(str(write(tmp_path, text)))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("bandwidth_gb_s = nan", r"key 'board\.bandwidth_gb_s': input should be a finite number, not nan\."),
        ("bandwidth_gb_s = 0.0", r"key 'board\.bandwidth_gb_s': input should be greater than 0, not 0\.0\."),
        (
            "latency_ns = -5.0",
            r"key 'board\.latency_ns': input should be greater than or equal to 0, not -5\.0\.",
        ),
        ("luts = -1", r"key 'board\.luts': input should be greater than or equal to 0, not -1\."),
        ('family = "foo"', r"key 'board\.family': input should be .* or 'ecp5', not 'foo'\."),
    ],
)
def test_a_board_that_cannot_be(tmp_path: Path, value: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        target.load(write(tmp_path, f'name = "a"\nkind = "fpga"\n[board]\n{value}\n[accelerator]\n'))


@pytest.mark.parametrize(
    ("accelerator", "sentence"),
    [
        ("[accelerator]\ncols = 24\n", r"board\.toml: cols must be a multiple of depth \(16\), not 24\."),
        ("accelerator = 3\n", r"board\.toml: key 'accelerator': input should be a valid dictionary"),
    ],
)
def test_a_malformed_accelerator_of_a_target(tmp_path: Path, accelerator: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        target.load(write(tmp_path, f'name = "a"\nkind = "fpga"\n{accelerator}'))
