"""Manifest of the splits: what was made from what, with hashes; and the checksums of each tile beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

import tmcnet
from tmcnet.config import SplitsConfig
from tmcnet.config.splits import PARTS
from tmcnet.errors import format_names
from tmcnet.hashing import bytes_digest
from tmcnet.splits.files import VERSION
from tmcnet.splits.index import IntArray, TileIndex
from tmcnet.splits.lists import Lists, list_text
from tmcnet.splits.parts import DROPPED, Division, part_totals
from tmcnet.splits.points import Points, points_text

CHECKSUMS = "tiles.csv"
"""Name of the file with the checksums of the tiles, beside the manifest."""

_ASPECTS = {
    "place": (("scene", "row", "col", "height", "width"), "moved to another place or scene"),
    "labels": (("label_share", "share_"), "changed class counts"),
    "source": (("field_",), "changed field"),
    "pixels": (("digest",), "changed pixels"),
}
"""What has a checksum: beginnings of the columns of the index, and what is said of a tile where they changed."""
_CHUNK_ROWS = 2**16


@dataclass(frozen=True)
class Splits:
    """Splits before they are written.

    Attributes:
        config: The section `splits`, with `block_size` in pixels even if it was given in metres.
        division: Tiles divided into parts.
        lists: Lists of the parts, label fractions and points.
        warnings: Sentences for the user.
    """

    config: SplitsConfig
    division: Division
    lists: Lists
    warnings: list[str]


def build_manifest(splits: Splits, index_sha256: str, correlation: dict[str, Any]) -> dict[str, Any]:
    """The manifest as plain values, without times and paths, so that equal splits have equal manifests.

    `index_sha256` is the hash of the index file, `correlation` what `autocorrelation` returned.
    """
    division, config, lists, index = splits.division, splits.config, splits.lists, splits.lists.index
    tiles, areas = part_totals(index, division.part)
    shares, whole = tiles / tiles.sum(), areas.sum(axis=0)
    of_parts = areas / np.maximum(areas.sum(axis=1, keepdims=True), 1)
    off = np.abs(of_parts - whole / max(float(whole.sum()), 1)).max(axis=0)
    by_guard, misaligned = int(division.by_guard.sum()), int(division.misaligned.sum())
    return {
        "version": VERSION,
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "software_version": tmcnet.__version__,
        "index_sha256": index_sha256,
        "n_tiles": len(index.tiles),
        "lists": {
            name: list_entry(index, members, name in lists.given, lists.points.get(name))
            for name, members in lists.members.items()
        },
        "parts": {
            name: {
                "tiles": len(members := lists.of(name)),
                "labelled": int(index.labelled[members].sum()),
                "share": _round(share),
                "scenes": len(np.unique(index.scene[members])),
                "groups": len(np.unique(division.groups.of[members])),
                "class_shares": _shares(index, index.area[members].sum(axis=0, dtype=np.int64)),
            }
            for name, share in zip(PARTS, shares, strict=True)
        },
        "deviation": _round(off.max()),
        "class_deviations": dict(zip(index.classes, map(_round, off), strict=True)),
        "size_deviation": _round(np.abs(shares - config.wanted).max()),
        "autocorrelation": {**correlation, "block_size": config.block_size},
        "n_groups": division.groups.n,
        "blocks": list(_groups(index, division)) if config.method == "blocks" else [],
        "groups": list(_groups(index, division)) if division.groups.names is not None else [],
        "tiles_on_ground": 0 if index.ground is None else int(index.ground.known.sum()),
        "dropped": index.tiles[lists.dropped].tolist(),
        "dropped_by_guard": by_guard,
        "dropped_misaligned": misaligned,
        "dropped_unlabelled": len(lists.dropped) - by_guard - misaligned,
    }


def list_entry(index: TileIndex, members: IntArray, given: bool, points: Points | None = None) -> dict[str, Any]:
    """What the manifest says about a list, from the positions of its tiles and whether the source gives it.

    In a list of points, only the points count as labelled.
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


def _groups(index: TileIndex, division: Division) -> Iterator[dict[str, Any]]:
    """Each block by its first pixel, or group by its name; its part, and its tiles in it.

    A group that lost all its tiles is `dropped`.
    """
    groups, kept = division.groups, division.part != DROPPED
    part = np.full(groups.n, DROPPED)
    part[groups.of[kept]] = division.part[kept]
    tiles = np.bincount(groups.of[kept], minlength=groups.n)
    for k, (p, n) in enumerate(zip(part, tiles, strict=True)):
        rest = {"part": ("dropped", *PARTS)[p - DROPPED], "tiles": int(n)}
        if groups.places is None:
            yield {"group": (groups.names or [])[k], **rest}
        else:
            scene, row, col = groups.places[k].tolist()
            yield {"scene": index.scenes[scene], "row": row, "col": col, **rest}


def _shares(index: TileIndex, pixels: IntArray) -> dict[str, float]:
    """Share of each class in all, from K numbers of pixels."""
    return dict(zip(index.classes, map(_round, pixels / max(int(pixels.sum()), 1)), strict=True))


def _round(value: float) -> float:
    return round(float(value), 6)


def tile_checksums(index: Path) -> pd.DataFrame:
    """Checksums (32 bits) of each tile: its place, its class counts, the fields of its source, and its pixels.

    Splits do not depend on pixels, but what is learnt does. Checksums only serve to find what changed; whether
    anything did is known from the hash of the index.
    """
    header = pd.read_csv(index, nrows=0).columns
    chosen = {aspect: [c for c in header if c.startswith(names)] for aspect, (names, _) in _ASPECTS.items()}
    wanted = ["tile", "role", *(column for columns in chosen.values() for column in columns)]
    chunks = []
    for rows in pd.read_csv(index, usecols=wanted, dtype="str", keep_default_na=False, chunksize=_CHUNK_ROWS):
        sums = {aspect: hash_pandas_object(rows[columns], index=False) for aspect, columns in chosen.items()}
        chunks.append(
            rows[["tile"]].assign(**{aspect: s % 2**32 for aspect, s in sums.items()})[rows["role"] != "predict"]
        )
    return pd.concat(chunks).sort_values("tile", kind="stable")


def format_changes(folder: Path, index: Path) -> str:
    """What changed since the checksums in a folder were written: tiles added, removed or changed, by name."""
    try:
        then = pd.read_csv(folder / CHECKSUMS, dtype={"tile": "str"}, keep_default_na=False)[["tile", *_ASPECTS]]
    except (OSError, ValueError, KeyError):
        return f"it is not the index that the splits were made from; without {CHECKSUMS} no more is known"
    both = then.merge(tile_checksums(index), on="tile", how="outer", suffixes=("_then", "_now"), indicator="side")
    changes = {"added": both["side"] == "right_only", "removed": both["side"] == "left_only"}
    for aspect, (_, words) in _ASPECTS.items():
        changes[words] = (both["side"] == "both") & (both[f"{aspect}_then"] != both[f"{aspect}_now"])
    named = [f"{n.sum()} {words}: {format_names(both['tile'][n])}" for words, n in changes.items() if n.any()]
    return "; ".join(named) or "no tile differs in what the splits use, only in other columns or in classes"
