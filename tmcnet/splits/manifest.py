"""Manifest of the splits: what was made from what, with hashes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tmcnet
from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.hashing import bytes_digest
from tmcnet.raster.inventory.seed_layout import PARTS
from tmcnet.splits.index import FloatArray, IntArray, TileIndex
from tmcnet.splits.lists import list_text
from tmcnet.splits.parts import DROPPED, Division, part_totals
from tmcnet.splits.points import Points, points_per_class, points_text

VERSION = 1
"""Version of the format of the manifest."""
REMEDY = "Restore the files, or delete `manifest.json` and run the workflow again; it then makes the splits again."


@dataclass(frozen=True)
class Splits:
    """Splits before they are written.

    Attributes:
        config: The section `splits`, with `block_size` in pixels even if it was given in metres.
        division: Tiles divided into parts.
        members: Positions in the index of the tiles of each list.
        given: Names of the lists given by the source.
        points: The points of the lists that have some.
        warnings: Sentences for the user.
    """

    config: SplitsConfig
    division: Division
    members: dict[str, IntArray]
    given: list[str]
    points: dict[str, Points]
    warnings: list[str]


def build_manifest(
    index: TileIndex, splits: Splits, index_sha256: str, correlation: dict[str, Any]
) -> dict[str, Any]:
    """The manifest as plain values, without times and paths, so that equal splits have equal manifests.

    Args:
        index: The tiles.
        splits: The splits of them.
        index_sha256: Hash of the index file.
        correlation: Autocorrelation range of the labels, from `autocorrelation`.
    """
    division, config = splits.division, splits.config
    dropped = division.part == DROPPED
    tiles, areas = part_totals(index, division.part)
    shares = tiles / tiles.sum()
    off = _class_deviations(areas)
    entries = {
        name: list_entry(index, at, name in splits.given, splits.points.get(name))
        for name, at in splits.members.items()
    }
    return {
        "version": VERSION,
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "software_version": tmcnet.__version__,
        "index_sha256": index_sha256,
        "n_tiles": len(index.tiles),
        "lists": entries,
        "parts": _parts(index, division, shares),
        "deviation": _round(off.max()),
        "class_deviations": dict(zip(index.classes, map(_round, off), strict=True)),
        "size_deviation": _round(np.abs(shares - config.wanted).max()),
        "autocorrelation": {**correlation, "block_size": config.block_size},
        "n_groups": division.groups.n,
        "blocks": _blocks(index, division) if config.method == "blocks" else [],
        "groups": _named_groups(division),
        "tiles_on_ground": 0 if index.ground is None else int(index.ground.known.sum()),
        "dropped": index.tiles[dropped].tolist(),
        "dropped_by_guard": int(division.by_guard.sum()),
        "dropped_misaligned": int(division.misaligned.sum()),
        "dropped_unlabelled": int((dropped & ~division.by_guard & ~division.misaligned).sum()),
    }


def list_entry(index: TileIndex, members: IntArray, given: bool, points: Points | None = None) -> dict[str, Any]:
    """What the manifest says about one list; in a list of points, only the points count as labelled.

    Args:
        index: The tiles.
        members: Positions of the tiles of the list.
        given: Whether the source gives the list.
        points: Its points, if it has some.
    """
    entry: dict[str, Any] = {"n": len(members), "sha256": bytes_digest(list_text(index.tiles[members]))}
    if points is None:
        pixels = index.area[members].sum(axis=0, dtype=np.int64)
        return {**entry, "class_shares": _shares(index, pixels), **({"given": True} if given else {})}
    drawn = points["class"].value_counts().reindex(index.classes, fill_value=0)
    record = {"sha256": bytes_digest(points_text(points)), "of_class": {name: int(n) for name, n in drawn.items()}}
    return {**entry, "class_shares": _shares(index, np.array(drawn, np.int64)), "points": record}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest.json` with fixed formatting: long lists have one item a line."""

    def text(value: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    def block(value: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
        if value and isinstance(value, dict):
            return "{\n " + ",\n ".join(f"{text(key)}: {text(inner)}" for key, inner in value.items()) + "\n}"
        if value and isinstance(value, list):
            return "[\n " + ",\n ".join(map(text, value)) + "\n]"
        return text(value)

    entries = (f"{text(key)}: {block(value)}" for key, value in manifest.items())
    (folder / "manifest.json").write_text("{\n" + ",\n".join(entries) + "\n}\n", encoding="utf-8", newline="\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json`.

    Raises:
        InputError: If it is missing, damaged or of another version, or lacks what a check of the lists needs.
    """
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise ValueError(f"version {manifest['version']}")
        for name, entry in manifest["lists"].items():
            str(entry["sha256"])
            if points_per_class(name):
                str(entry["points"]["sha256"])
        list(manifest["dropped"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(Problem(str(path), f"cannot be used ({error})", REMEDY)) from error
    return manifest


def _class_deviations(areas: FloatArray) -> FloatArray:
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
            "share": _round(shares[p]),
            "scenes": len(np.unique(index.scene[members])),
            "groups": len(np.unique(division.groups.of[members])),
            "class_shares": _shares(index, index.area[members].sum(axis=0, dtype=np.int64)),
        }
    return parts


def _blocks(index: TileIndex, division: Division) -> list[dict[str, Any]]:
    """Spatial blocks by the row and column of their first pixel."""
    places = division.groups.places
    if places is None:
        return []
    return [
        {"scene": index.scenes[scene], "row": int(row), "col": int(col), **group}
        for (scene, row, col), group in zip(places, _groups(division), strict=True)
    ]


def _named_groups(division: Division) -> list[dict[str, Any]]:
    """Scenes or values of the column."""
    names = division.groups.names or []
    return [{"group": name, **group} for name, group in zip(names, _groups(division), strict=False)]


def _groups(division: Division) -> Iterator[dict[str, Any]]:
    """Part of each group, and its tiles in it; a group that lost all its tiles is `dropped`."""
    kept = division.part != DROPPED
    part = np.full(division.groups.n, DROPPED)
    part[division.groups.of[kept]] = division.part[kept]
    tiles = np.bincount(division.groups.of[kept], minlength=division.groups.n)
    words = ("dropped", *PARTS)
    return ({"part": words[p - DROPPED], "tiles": int(n)} for p, n in zip(part, tiles, strict=True))


def _shares(index: TileIndex, pixels: IntArray) -> dict[str, float]:
    """Share of each class in all, from K numbers of pixels."""
    return dict(zip(index.classes, map(_round, pixels / max(int(pixels.sum()), 1)), strict=True))


def _round(value: float) -> float:
    return round(float(value), 6)
