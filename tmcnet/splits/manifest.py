"""Lists of the splits and their manifest: what was made from what, with hashes, and what must hold for any lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

import tmcnet
from tmcnet.config import Budget, SplitsConfig
from tmcnet.config.splits import PARTS
from tmcnet.errors import MAX_NAMES, Problem, format_names
from tmcnet.hashing import bytes_digest
from tmcnet.splits.files import REMEDY, VERSION, format_all, list_names, points_file, points_per_class
from tmcnet.splits.index import IntArray, TileIndex, close_pairs
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


def list_text(tiles: Iterable[str]) -> bytes:
    """Content of a list file: one tile a line."""
    return "".join(f"{tile}\n" for tile in tiles).encode()


@dataclass(frozen=True)
class Lists:
    """Lists of tiles as positions in the index.

    Attributes:
        index: The tiles.
        members: Positions of the tiles of each list, of those that the index has.
        points: The points of the lists that have some.
        given: Names of the label fractions that the source gives; they may be independent draws.
        dropped: Positions of the tiles that are in no part on purpose.
    """

    index: TileIndex
    members: dict[str, IntArray]
    points: dict[str, Points]
    given: Set[str]
    dropped: IntArray

    def of(self, name: str) -> IntArray:
        """Positions of the tiles of a list; none if it does not exist."""
        return self.members.get(name, np.empty(0, np.int64))

    def tiles(self, positions: IntArray) -> str:
        """Names of tiles for messages."""
        return format_all(self.index.tiles[positions])


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
        "blocks": list(_groups(division)) if config.method == "blocks" else [],
        "groups": list(_groups(division)) if division.groups.names is not None else [],
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


def _groups(division: Division) -> Iterator[dict[str, Any]]:
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
            yield {"scene": groups.scenes[scene], "row": row, "col": col, **rest}


def _shares(index: TileIndex, pixels: IntArray) -> dict[str, float]:
    """Share of each class in all, from K numbers of pixels."""
    return dict(zip(index.classes, map(_round, pixels / max(int(pixels.sum()), 1)), strict=True))


def _round(value: float) -> float:
    return round(float(value), 6)


def check_lists(lists: Lists, folder: Path, guard: int) -> list[Problem]:
    """Everything wrong with lists: tiles doubled, in two parts, in none, unlabelled, not nested, too close.

    And points: doubled, past the pixels of their class, too many or too few, not nested, in other tiles than listed.
    `guard` is the width in pixels of the band that has to be empty between parts; `folder` is for messages.
    """
    wrong = [*_check_each(lists), *_check_parts(lists), *_check_nested(lists), *_check_distance(lists, guard)]
    return [Problem(str(folder / file), what, REMEDY) for file, what in [*wrong, *_check_points(lists)]]


_Wrong: TypeAlias = Iterator[tuple[str, str]]
"""Name of a file, or nothing for the folder, and what is wrong with it."""


def _check_each(lists: Lists) -> _Wrong:
    """Tiles listed twice, and tiles without labels where labels are needed: everywhere but in the training part."""
    for name, members in lists.members.items():
        unique, counts = np.unique(members, return_counts=True)
        if (counts > 1).any():
            yield list_names(name)[0], f"names tiles twice: {lists.tiles(unique[counts > 1])}"
        unlabelled = members[~lists.index.labelled[members]]
        if name != "train" and len(unlabelled):
            yield list_names(name)[0], f"names tiles without labels: {lists.tiles(unlabelled)}"


def _check_parts(lists: Lists) -> _Wrong:
    """Tiles in two parts, or in no part though not dropped."""
    flags = {name: np.zeros(len(lists.index.tiles), bool) for name in (*PARTS, "dropped")}
    for name, inside in flags.items():
        inside[lists.dropped if name == "dropped" else lists.of(name)] = True
    for one, other in combinations(flags, 2):
        if (both := flags[one] & flags[other]).any():
            yield "", f"tiles are in {one} and in {other}: {lists.tiles(np.flatnonzero(both))}"
    if (lost := ~np.any(list(flags.values()), axis=0)).any():
        yield "", f"tiles are in no part and not among the dropped: {lists.tiles(np.flatnonzero(lost))}"


def _check_nested(lists: Lists) -> _Wrong:
    """Label fractions and points that leave the training part or do not contain the smaller ones of their draw."""
    draws: dict[tuple[str, int], list[tuple[Budget, str]]] = {}
    for name in lists.members:
        if subset := Budget.parse_subset(name):
            draws.setdefault((subset[0].kind, subset[1]), []).append((subset[0], name))
    for _, draw in sorted(draws.items()):
        names = [name for _, name in sorted(draw)]
        for small, large in combinations([*names, *({"train"} & lists.members.keys())], 2):
            outside = lists.members[small][~np.isin(lists.members[small], lists.members[large])]
            if len(outside) and not {small, large} <= lists.given:
                yield list_names(small)[0], f"is not nested in {large}: {lists.tiles(outside)}"
        for small, large in combinations([name for name in names if name in lists.points], 2):
            few, many = lists.points[small], lists.points[large]
            missing = ~pd.MultiIndex.from_frame(few).isin(pd.MultiIndex.from_frame(many))
            if missing.any():
                yield points_file(Path(), small).name, f"is not nested in {large}: {_format_points(few[missing])}"


def _check_distance(lists: Lists, guard: int) -> _Wrong:
    """Tiles of different parts that overlap, in their scene or on the ground, or are closer than the guard band."""
    part = np.full(len(lists.index.tiles), -1, np.int64)
    for p, name in enumerate(PARTS):
        part[lists.of(name)] = p
    pairs = close_pairs(lists.index, part, guard)
    of = np.sort(part[pairs], axis=1)
    for p, q in combinations(range(len(PARTS)), 2):
        if len(chosen := lists.index.tiles[pairs[(of == [p, q]).all(axis=1)]]):
            shown = ", ".join(f"{a} with {b}" for a, b in chosen[:MAX_NAMES])
            what = f"{PARTS[p]} and {PARTS[q]} share pixels or are closer than {guard} pixels"
            yield "", f"{what}: {shown} ({len(chosen)} pairs)"


def _check_points(lists: Lists) -> _Wrong:
    """Points that do not fit their list, their tile or the number in the name of their list."""
    index = lists.index
    total = index.area[lists.of("train")].sum(axis=0, dtype=np.int64)
    for name, points in lists.points.items():
        file = points_file(Path(), name).name
        if odd := set(points["tile"]) ^ set(index.tiles[lists.of(name)]):
            yield file, f"and its list do not name the same tiles: {format_all(odd)}"
        if (doubled := points.duplicated()).any():
            yield file, f"names points twice: {_format_points(points[doubled])}"
        tile = np.searchsorted(index.tiles, points["tile"].to_numpy(object))
        class_id = pd.Index(index.classes).get_indexer(pd.Index(points["class"]))
        if (past := points["pixel"] >= index.area[tile, class_id]).any():
            yield file, f"has points past the last pixel of their class: {_format_points(points[past])}"
        wanted = np.minimum(total, points_per_class(name) or 0)
        counts = np.bincount(class_id, minlength=len(index.classes))
        wrong = [f"{index.classes[k]} {counts[k]} in place of {wanted[k]}" for k in np.flatnonzero(counts != wanted)]
        if wrong:
            yield file, f"has other numbers of points than it should: {', '.join(wrong)}"


def _format_points(points: Points) -> str:
    """The first of some points, and how many there are."""
    shown = ", ".join(" ".join(map(str, point)) for point in points.head(MAX_NAMES).itertuples(index=False))
    return f"{shown} ({len(points)} in all)"


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
