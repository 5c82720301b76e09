"""The path from the tile index to the splits: parts, label fractions, points, their lists and the manifest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tmcnet.config import SplitsConfig
from tmcnet.config.splits import PARTS
from tmcnet.errors import InputError, Problem
from tmcnet.hashing import table_digest
from tmcnet.seeding import generator
from tmcnet.splits.autocorrelation import autocorrelation
from tmcnet.splits.files import find_lists, list_names, points_file
from tmcnet.splits.fractions import draw_fractions
from tmcnet.splits.index import TileIndex, read_index
from tmcnet.splits.lists import Lists, check_lists, list_text
from tmcnet.splits.manifest import CHECKSUMS, Splits, build_manifest, tile_checksums, write_manifest
from tmcnet.splits.parts import DROPPED, TRAIN, divide, in_pixels
from tmcnet.splits.points import draw_points, points_text, warn_of_few_pixels


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
    if config.method != "blocks":
        return []
    if correlation["relation"] == "unknown":
        reason = correlation["reason"]
        return [f"Whether blocks are large enough for independent parts is unknown: {reason}."]
    length, metres = correlation["range_pixels"], correlation["range_metres"]
    if config.block_size >= length:
        return []
    on_ground = "" if metres is None else f", {metres} m"
    return [
        f"Blocks of {config.block_size} pixels are smaller than the distance over which labels are alike "
        f"({correlation['relation']} {length} pixels{on_ground}): neighbouring parts are not independent and scores "
        "come out too high. Make the blocks larger, or divide by scenes."
    ]
