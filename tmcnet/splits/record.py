"""What the manifest of splits says: what was made from what, with hashes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import tmcnet
from tmcnet.config import SplitsConfig
from tmcnet.splits.balance import FloatArray
from tmcnet.splits.finish import DROPPED, part_totals
from tmcnet.splits.index import IntArray, Names, TileIndex
from tmcnet.splits.lists import PARTS
from tmcnet.splits.parts import Division
from tmcnet.splits.points import Points, points_text

VERSION = 1
"""Version of the manifest's own form."""

_LIST_FILE = re.compile(r"^(train|val|test)\S*_(RGB|SAR|lbl)\.txt$|^train\S*_points\.csv$")


def build(
    index: TileIndex,
    division: Division,
    config: SplitsConfig,
    index_sha256: str,
    lists: dict[str, IntArray],
    given: list[str],
    points: Mapping[str, Points],
    correlation: dict[str, Any],
) -> dict[str, Any]:
    """The manifest as plain values; holds neither times nor paths, so that equal splits have equal manifests.

    `blocks` is an iterator, since there may be as many as tiles; `write` takes it as it comes.

    Args:
        index: The tiles.
        division: Their parts.
        config: The section `splits`, with `block_size` in pixels whatever it was given in.
        index_sha256: Hash of the index.
        lists: Positions of the tiles of each list.
        given: Names of the lists that the source gives.
        points: The points of those lists that have some.
        correlation: Autocorrelation range of the labels, from `autocorrelation`.
    """
    tiles, areas = part_totals(index, division.part)
    shares = tiles / tiles.sum()
    off = [abs(share - want) for share, want in zip(shares, config.wanted, strict=True)]
    return {
        "version": VERSION,
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "software_version": tmcnet.__version__,
        "index_sha256": index_sha256,
        "n_tiles": len(index.tiles),
        "lists": {name: list_entry(index, at, name in given, points.get(name)) for name, at in lists.items()},
        "parts": _parts(index, division, shares),
        "deviation": _round(class_deviations(areas).max()),
        "class_deviations": dict(zip(index.classes, map(_round, class_deviations(areas)), strict=True)),
        "size_deviation": _round(max(off)),
        "autocorrelation": {**correlation, "block_size": config.block_size},
        "n_groups": division.groups.n,
        "blocks": _blocks(index, division, config),
        "groups": _groups(division),
        "tiles_on_ground": 0 if index.ground is None else int(index.ground.known.sum()),
        "dropped": index.tiles[division.part == DROPPED].tolist(),
        "dropped_by_guard": int(division.by_guard.sum()),
        "dropped_misaligned": int(division.misaligned.sum()),
        "dropped_unlabelled": int(((division.part == DROPPED) & ~division.by_guard & ~division.misaligned).sum()),
    }


def write(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest.json` with fixed formatting: long lists have one item a line."""
    with (folder / "manifest.json").open("w", encoding="utf-8", newline="\n") as file:
        opening = "{\n"
        for key, value in manifest.items():
            file.write(f"{opening}{_json(key)}: ")
            _write_value(file, value)
            opening = ",\n"
        file.write("\n}\n")


def _write_value(file: TextIO, value: Any) -> None:  # noqa: ANN401 - anything that JSON can hold, or an iterator
    if isinstance(value, dict) and value:
        _write_items(file, "{}", (f"{_json(key)}: {_json(inner)}" for key, inner in value.items()))
    elif isinstance(value, list | Iterator):
        _write_items(file, "[]", map(_json, value))
    else:
        file.write(_json(value))


def _write_items(file: TextIO, brackets: str, items: Iterable[str]) -> None:
    before = f"{brackets[0]}\n "
    for item in items:
        file.write(before + item)
        before = ",\n "
    file.write(brackets if before[0] == brackets[0] else f"\n{brackets[1]}")


def _json(value: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def list_files(folder: Path) -> list[Path]:
    """All list files of a folder and their files of points, sorted."""
    return sorted(path for path in folder.glob("*") if _LIST_FILE.match(path.name))


def list_text(tiles: Names) -> bytes:
    """Content of a list file: one tile a line."""
    return "\n".join([*tiles.tolist(), ""]).encode()


def list_entry(index: TileIndex, members: IntArray, given: bool, points: Points | None = None) -> dict[str, Any]:
    """What the manifest says about one list; of the tiles of a list of points, only the points count as labelled."""
    digest = hashlib.sha256(list_text(index.tiles[members])).hexdigest()
    entry: dict[str, Any] = {"n": len(members), "sha256": digest}
    if points is None:
        entry["class_shares"] = class_shares(index, members)
        return {**entry, "given": True} if given else entry
    drawn = points.of_class(len(index.classes))
    told = {
        "sha256": hashlib.sha256(points_text(points, index)).hexdigest(),
        "of_class": dict(zip(index.classes, map(int, drawn), strict=True)),
    }
    return {**entry, "class_shares": _shares(index, drawn), "points": told}


def class_shares(index: TileIndex, members: IntArray) -> dict[str, float]:
    """Share of each class in the labelled pixels of some tiles."""
    return _shares(index, index.area[members].sum(axis=0, dtype=np.int64))


def _shares(index: TileIndex, pixels: IntArray) -> dict[str, float]:
    """Share of each class in all, from K numbers of pixels."""
    return dict(zip(index.classes, map(_round, pixels / max(int(pixels.sum()), 1)), strict=True))


def class_deviations(areas: FloatArray) -> FloatArray:
    """Largest absolute difference (K) of each class share between a part and the whole, from P x K class areas."""
    whole = areas.sum(axis=0)
    parts = areas / np.maximum(areas.sum(axis=1, keepdims=True), 1)
    largest: FloatArray = np.abs(parts - whole / max(float(whole.sum()), 1)).max(axis=0)
    return largest


def _parts(index: TileIndex, division: Division, shares: FloatArray) -> dict[str, Any]:
    parts = {}
    for p, name in enumerate(PARTS):
        members = np.flatnonzero(division.part == p)
        parts[name] = {
            "tiles": len(members),
            "labelled": int(index.labelled[members].sum()),
            "share": _round(float(shares[p])),
            "scenes": len(np.unique(index.scene[members])),
            "groups": len(np.unique(division.groups.of[members])),
            "class_shares": class_shares(index, members),
        }
    return parts


def _blocks(index: TileIndex, division: Division, config: SplitsConfig) -> Iterator[dict[str, Any]]:
    """Spatial blocks by the row and column of their first pixel, with their part and the tiles left in it."""
    places = division.groups.places
    if config.method != "blocks" or places is None:
        return
    for (scene, row, col), (part, n) in zip(places, _group_parts(division), strict=True):
        yield {"scene": index.scenes[scene], "row": int(row), "col": int(col), "part": part, "tiles": n}


def _groups(division: Division) -> list[dict[str, Any]]:
    """Scenes or values of the column, with their part and the tiles left in it."""
    names = division.groups.names
    if names is None:
        return []
    return [
        {"group": name, "part": part, "tiles": n}
        for name, (part, n) in zip(names, _group_parts(division), strict=True)
    ]


def _group_parts(division: Division) -> Iterator[tuple[str, int]]:
    """Part and number of tiles of each group; a group that lost all its tiles is `dropped`."""
    kept = division.part != DROPPED
    part = np.full(division.groups.n, DROPPED)
    part[division.groups.of[kept]] = division.part[kept]
    tiles = np.bincount(division.groups.of[kept], minlength=division.groups.n)
    words = ("dropped", *PARTS)
    return ((words[p - DROPPED], int(n)) for p, n in zip(part, tiles, strict=True))


def _round(value: float) -> float:
    return round(float(value), 6)
