"""Files that are complete or as they were, and the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio import whole_file
from intaglio.resources import cache_folder


def test_a_file_is_replaced_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    whole_file.write(path, "one")
    whole_file.write(path, "σ")
    with pytest.raises(UnicodeEncodeError):
        whole_file.write(path, "half \ud800")
    assert path.read_text(encoding="utf-8") == "σ"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_where_a_file_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        whole_file.write(tmp_path / "folder", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_all_or_none(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.html", "b.json")]
    whole_file.write_all(dict.fromkeys(paths, "one"))
    with pytest.raises(UnicodeEncodeError):
        whole_file.write_all({paths[0]: "two", paths[1]: "half \ud800"})
    assert [path.read_text(encoding="utf-8") for path in paths] == ["one", "one"]
    assert sorted(tmp_path.iterdir()) == paths


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_CACHE", str(tmp_path))
    assert whole_file.kept("a.json") is None
    whole_file.keep("a.json", "{}")
    assert whole_file.kept("a.json") == "{}"
    (cache_folder() / "a.json").write_bytes(b"\xff")
    assert whole_file.kept("a.json") is None


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("INTAGLIO_CACHE", str(tmp_path / "file"))
    whole_file.keep("a.json", "{}")
    assert whole_file.kept("a.json") is None
