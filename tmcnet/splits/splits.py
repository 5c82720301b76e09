"""The path from the tile index to the splits: parts, label fractions, points, manifest; and its verification."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tmcnet
from tmcnet.config import SplitsConfig
from tmcnet.config.splits import PARTS
from tmcnet.errors import InputError, Problem, collecting
from tmcnet.hashing import table_digest
from tmcnet.seeding import generator
from tmcnet.splits.autocorrelation import autocorrelation
from tmcnet.splits.files import (
    REMEDY,
    check_list_files,
    find_lists,
    format_all,
    list_names,
    points_file,
    points_per_class,
    read_manifest,
)
from tmcnet.splits.fractions import draw_fractions
from tmcnet.splits.index import IntArray, TileIndex, read_index
from tmcnet.splits.manifest import (
    CHECKSUMS,
    Lists,
    Splits,
    build_manifest,
    check_lists,
    format_changes,
    list_entry,
    list_text,
    tile_checksums,
    write_manifest,
)
from tmcnet.splits.parts import DROPPED, TRAIN, divide, in_pixels
from tmcnet.splits.points import draw_points, points_text, read_points, warn_of_few_pixels

_MAX_LOST = 0.1  # share of the tiles that may be lost to the guard band without a warning


def make_splits(index: Path, config: SplitsConfig, folder: Path) -> None:
    """Divide tiles into parts, draw label fractions and points, and write their lists and the manifest.

    Reads only `tiles/index.csv`. The same index and config give the same files, byte for byte, in any order of rows.
    The folder gets the lists `train_RGB.txt`, ..., the points `trainP10_points.csv`, ..., `manifest.json` and
    `tiles.csv`; lists left in it by earlier splits are removed.

    Raises:
        InputError: If the index is wrong or no such division exists.
    """
    tiles = read_index(index, config)
    splits = draw_splits(tiles, config, str(index))
    if problems := check_lists(splits.lists, folder, config.guard):
        raise RuntimeError("\n".join(map(str, problems)))  # a fault of this program
    folder.mkdir(parents=True, exist_ok=True)
    for stale in find_lists(folder):
        stale.unlink()
    for name, members in splits.lists.members.items():
        for file in list_names(name):
            (folder / file).write_bytes(list_text(tiles.tiles[members]))
    for name, points in splits.lists.points.items():
        points_file(folder, name).write_bytes(points_text(points))
    tile_checksums(index).to_csv(folder / CHECKSUMS, index=False, lineterminator="\n")
    correlation = autocorrelation(tiles, generator(config.seed, "autocorrelation"))
    manifest = build_manifest(splits, table_digest(index), correlation)
    manifest["warnings"] = _absent_classes(manifest) + splits.warnings + _small_blocks(splits.config, correlation)
    for warning in manifest["warnings"]:
        print(warning, file=sys.stderr, flush=True)
    write_manifest(folder, manifest)


def draw_splits(index: TileIndex, config: SplitsConfig, where: str) -> Splits:
    """Divide tiles into parts, and draw label fractions and points; `where` is the index file, for messages.

    Raises:
        InputError: If no such division exists.
    """
    config = in_pixels(config, index, where)
    division = divide(index, config, where)
    members = {name: np.flatnonzero(division.part == p) for p, name in enumerate(PARTS)}
    fractions, warnings = draw_fractions(index, division.part, config, where)
    labelled = np.flatnonzero((division.part == TRAIN) & index.labelled)
    area = index.area[labelled]
    present = [name for name, total in zip(index.classes, area.sum(axis=0), strict=True) if total > 0]
    if len(present) < 2:
        what = (
            f"the labels of the training tiles hold only {present[0] if present else 'void'}: nothing can be learnt"
        )
        remedy = "Check the label files, and `codes` in `labels.classes`; add labelled scenes with other classes."
        raise InputError(Problem(where, what, remedy))
    points = draw_points(area, index.tiles[labelled], index.classes, config)
    members |= fractions | {name: np.searchsorted(index.tiles, p["tile"].unique()) for name, p in points.items()}
    if lost := int(division.misaligned.sum()):
        why = f"their sensors are off by more than {config.max_misalignment:g} pixels (`splits.max_misalignment`)"
        warnings = [f"{lost} of {len(index.tiles)} tiles are in no part, since {why}.", *warnings]
    lost = int(division.by_guard.sum())
    if lost > _MAX_LOST * len(index.tiles) or (lost and config.method == "given"):
        why = "share ground with tiles of another part, or are closer to them than `splits.guard`"
        remedy = " A larger `splits.block_size` loses fewer." if config.method == "blocks" else ""
        warnings = [f"{lost} of {len(index.tiles)} tiles are in no part, since they {why}.{remedy}", *warnings]
    warnings += warn_of_few_pixels(area, index.classes, config)
    dropped = np.flatnonzero(division.part == DROPPED)
    return Splits(config, division, Lists(index, members, points, index.given.keys(), dropped), warnings)


def _absent_classes(manifest: dict[str, Any]) -> list[str]:
    """A sentence for each list that lacks classes."""
    return [
        f"{name} has no pixel of {', '.join(absent)}."
        for name, entry in manifest["lists"].items()
        if (absent := [label for label, share in entry["class_shares"].items() if share == 0])
    ]


def _small_blocks(config: SplitsConfig, correlation: dict[str, Any]) -> list[str]:
    """A sentence where blocks are smaller than the labels' autocorrelation range, or where that is unknown."""
    divided = config.method == "blocks"
    if correlation["relation"] == "unknown":
        reason = correlation["reason"]
        return [f"Whether blocks are large enough for independent parts is unknown: {reason}."] if divided else []
    length, metres = correlation["range_pixels"], correlation["range_metres"]
    if config.block_size >= length:
        return []
    on_ground = "" if metres is None else f", {metres} m"
    what = (
        f"Blocks of {config.block_size} pixels are smaller than the distance over which labels are alike "
        f"({correlation['relation']} {length} pixels{on_ground}):"
    )
    if not divided:
        return [f"{what} where blocks are the units of intervals, these come out too narrow. Make the blocks larger."]
    return [
        f"{what} neighbouring parts are not independent and scores come out too high. Make the blocks larger, or "
        "divide by scenes."
    ]


def verify(folder: Path, index: Path, config: SplitsConfig | None = None) -> list[Problem]:
    """Check splits against their manifest and the tile index: make them again, compare, and check what must hold.

    Lists without a manifest, or with an unusable one, are still checked for what must hold for any lists. Returns
    everything that is wrong: data, config (if given) or software that changed since, and how; lists edited by hand;
    tiles in two parts, in none, or doubled; label fractions or points that are not nested; parts that share pixels.
    """
    problems: list[Problem] = []
    with collecting(problems):
        for problem in _problems(folder, index, config):
            problems.append(problem)
    return problems


def _problems(folder: Path, index: Path, config: SplitsConfig | None) -> Iterator[Problem]:
    manifest: dict[str, Any] = {}
    try:
        manifest = read_manifest(folder)
    except InputError as error:
        yield from error.problems
    made = SplitsConfig.model_validate(manifest.get("config", {"guard": 0}))
    lists = yield from _read_lists(folder, read_index(index, made), manifest)
    yield from check_lists(lists, folder, made.guard)
    if manifest:
        yield from check_list_files(folder, manifest)
        yield from _check_origin(folder, index, lists, manifest, made, config)


def _read_lists(folder: Path, tiles: TileIndex, manifest: dict[str, Any]) -> Generator[Problem, None, Lists]:
    """Return all lists and points of the folder; yield lists whose files differ, and unknown tiles."""
    names_index = pd.Index(tiles.tiles)  # made once: for a million tiles it takes a second

    def positions(names: Iterable[str]) -> tuple[IntArray, list[str]]:
        wanted = np.array(list(names), object)
        at = names_index.get_indexer(pd.Index(wanted)).astype(np.int64)
        return at[at >= 0], wanted[at < 0].tolist()

    given = {name for name, entry in manifest.get("lists", {}).items() if entry.get("given")}
    lists = Lists(tiles, {}, {}, given, positions(manifest.get("dropped", []))[0])
    for name in sorted({path.name.rsplit("_", 1)[0] for path in find_lists(folder)}):
        files = [path for file in list_names(name) if (path := folder / file).is_file()]
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
        if len(set(texts)) > 1 and (odd := _unpaired([text.splitlines() for text in texts])):
            what = f"its three lists are not paired: {format_all(odd)}"
            yield Problem(str(folder / f"{name}_*.txt"), what, REMEDY)
        if not files or files[0].name != list_names(name)[0]:
            continue
        lists.members[name], unknown = positions(texts[0].splitlines())
        foreign = {files[0]: unknown}
        if points_per_class(name):
            path = points_file(folder, name)
            try:
                points = read_points(path, tiles.classes)
            except InputError as error:
                yield from error.problems
            else:
                if not foreign.setdefault(path, positions(points["tile"].unique())[1]):
                    lists.points[name] = points
        for path, names in foreign.items():
            if names:
                what = f"names tiles that the index does not have: {format_all(names)}"
                yield Problem(str(path), what, REMEDY)
    return lists


def _unpaired(contents: list[list[str]]) -> set[str]:
    """Tiles that the files of a list do not all have, or not all at the same place."""
    counted = [Counter(tiles) for tiles in contents]
    odd = {tile for tile in set().union(*counted) if len({one[tile] for one in counted}) > 1}
    return odd or {tile for row in zip(*contents, strict=True) if len(set(row)) > 1 for tile in row}


def _check_origin(
    folder: Path, index: Path, lists: Lists, manifest: dict[str, Any], made: SplitsConfig, config: SplitsConfig | None
) -> Iterator[Problem]:
    """Config, code and data that changed since the splits were made.

    Same data and config that give other splits mean that the code changed, or the manifest did.
    """
    path = str(folder / "manifest.json")
    if (version := manifest.get("software_version")) != tmcnet.__version__:
        what = f"the code changed: made by version {version}, this is {tmcnet.__version__}"
        yield Problem(path, what, "Make the splits again, or go back to that version.")
    if manifest.get("index_sha256") != table_digest(index):
        yield Problem(str(index), f"the data changed: {format_changes(folder, index)}", REMEDY)
    else:
        again = draw_splits(lists.index, made, str(index)).lists
        yield from (Problem(path, what, REMEDY) for what in _differences(manifest["lists"], lists, again))
    if config is not None:
        then, now = (one.model_dump(mode="json") for one in (made, in_pixels(config, lists.index, str(index))))
        if changed := [f"`splits.{key}` was {then[key]!r}, is {now[key]!r}" for key in then if now[key] != then[key]]:
            what = f"the config changed: {', '.join(changed)}"
            yield Problem(path, what, "Make the splits again, or set the keys back.")


def _differences(entries: dict[str, Any], lists: Lists, again: Lists) -> Iterator[str]:
    """How the lists of the manifest differ from those made again."""
    if absent := [name for name in again.members if name not in entries]:
        yield f"has no list {', '.join(absent)}, which its config needs"
    cause = "the code or the manifest changed: same data and config now give"
    for name, entry in entries.items():
        new = list_entry(lists.index, again.of(name), name in again.given, again.points.get(name))
        if new["sha256"] != entry["sha256"]:
            yield f"{cause} another {name}: {lists.tiles(np.setxor1d(again.of(name), lists.of(name)))} differ"
        elif "points" in new and new["points"]["sha256"] != entry["points"]["sha256"]:
            yield f"{cause} other points of {name}"
        elif differing := [key for key in new if new[key] != entry.get(key)]:
            yield f"says other {', '.join(differing)} of {name} than follow from its list and the index"
