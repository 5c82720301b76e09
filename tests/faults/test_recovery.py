"""Files of early stages that are missing or damaged are found, so that every target makes them again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tmcnet.errors import InputError
from tmcnet.filesystem import correct_times
from tmcnet.recovery import find_lost


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """What the first three stages leave of one scene without tiles."""
    for name in ("inventory.json", "inventory/a.json", "scenes/a/alignment.json", "tiles/index/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "tiles" / "index" / "a.csv").touch()
    (tmp_path / "tiles" / "source.json").write_text(json.dumps({"kinds": ["optical"], "files": {"a": 0}}))
    return tmp_path


def test_nothing_is_lost(results: Path) -> None:
    assert find_lost(results, ["a"], ["a"]) == []


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
@pytest.mark.parametrize(
    "name",
    ["inventory.json", "inventory/a.json", "scenes/a/alignment.json", "tiles/index/a.json"],
)
def test_missing_and_damaged_files_are_made_again(results: Path, name: str, content: bytes | None) -> None:
    path = results / name
    path.unlink() if content is None else path.write_bytes(content)
    assert find_lost(results, ["a"], ["a"]) == [path]
    assert not path.exists()


def test_times_in_the_future_are_corrected_or_named(results: Path) -> None:
    record, raw, ahead = results / "inventory" / "a.json", results / "raw.tif", time.time() + 7 * 24 * 3600
    raw.touch()
    correct_times([results], [raw])
    for path in (record, raw):
        os.utime(path, (ahead, ahead))
    with pytest.raises(InputError, match=r"raw\.tif: has a time in the future .* touch .*raw\.tif\."):
        correct_times([results / "inventory"], [raw])
    assert (record.stat().st_mtime <= time.time(), raw.stat().st_mtime > time.time()) == (True, True)
