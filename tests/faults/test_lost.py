"""Files of early stages that are missing or damaged are found, so that every target makes them again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tmcnet.lost import find_lost


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
