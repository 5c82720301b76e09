"""Small files that are lost or damaged are put back, if their job would make the same."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from tmcnet.recovery import archive_of, keep, origin_of, put_back

PARAMS = {"seed": 1}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A manifest and a list, made from an index."""
    (tmp_path / "splits").mkdir()
    (tmp_path / "index.csv").write_text("tile\na\n")
    files = [tmp_path / "splits" / name for name in ("manifest.json", "train_RGB.txt")]
    for path in files:
        path.write_text(path.name)
        os.utime(path, (1e9, 1e9))
    keep(archive_of(tmp_path, "splits"), origin_of(PARAMS, [tmp_path / "index.csv"]), files)
    return tmp_path


def back(results: Path, params: dict[str, int] = PARAMS) -> list[str]:
    """Names of the files that are put back."""
    found = put_back(archive_of(results, "splits"), results / "splits", params, [results / "index.csv"])
    return [path.name for path in found]


@pytest.mark.parametrize("content", [None, "", "manifest.jso", "manifest,json"])
def test_lost_and_damaged_files_come_back_with_their_times(results: Path, content: str | None) -> None:
    path = results / "splits" / "manifest.json"
    path.unlink() if content is None else path.write_text(content)
    assert back(results) == ["manifest.json"]
    assert (path.read_text(), path.stat().st_mtime) == ("manifest.json", 1e9)
    assert back(results) == []


def test_a_lost_folder_comes_back(results: Path) -> None:
    for path in (results / "splits").iterdir():
        path.unlink()
    (results / "splits").rmdir()
    assert back(results) == ["manifest.json", "train_RGB.txt"]


def test_nothing_comes_back_where_it_would_come_out_otherwise(results: Path) -> None:
    (results / "splits" / "manifest.json").unlink()
    assert back(results, {"seed": 2}) == []
    (results / "index.csv").write_text("tile\nb\n")
    assert back(results) == []
    (results / "index.csv").unlink()
    assert back(results) == []


def test_unusable_copies_are_passed_over(results: Path) -> None:
    (results / "splits" / "manifest.json").unlink()
    archive = archive_of(results, "splits")
    whole = archive.read_bytes()
    for damaged in (b"", whole[:50], whole[:30] + b"\0" * 40 + whole[70:]):
        archive.write_bytes(damaged)
        assert back(results) == []
    archive.unlink()
    assert back(results) == []


def test_copies_write_to_their_folder_only(results: Path) -> None:
    record = {"origin": origin_of(PARAMS, [results / "index.csv"]), "times": {"../outside": 1, "/tmp/outside": 1}}
    with zipfile.ZipFile(archive_of(results, "splits"), "w") as copies:
        for name in record["times"]:
            copies.writestr(name, "harm")
        copies.writestr("kept", json.dumps(record))
    assert back(results) == []
    assert not (results / "outside").exists()
