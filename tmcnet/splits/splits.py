"""The path from the tile index to the splits: parts, label fractions, points, their lists and the manifest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tmcnet.config import Budget, SplitsConfig
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.hashing import table_digest
from tmcnet.raster.inventory.seed_layout import PARTS
from tmcnet.seeding import generator
from tmcnet.splits.autocorrelation import autocorrelation
from tmcnet.splits.fingerprints import FILE, fingerprints
from tmcnet.splits.fractions import draw_fractions, given_fractions
from tmcnet.splits.groups import in_pixels
from tmcnet.splits.index import BoolArray, TileIndex, read_index
from tmcnet.splits.invariants import Lists, check_lists
from tmcnet.splits.lists import find_lists, list_names, list_text
from tmcnet.splits.manifest import Splits, build_manifest, write_manifest
from tmcnet.splits.parts import DROPPED, TRAIN, Division, divide
from tmcnet.splits.points import draw_points, points_file, points_text, warn_of_few_pixels


def make_splits(index: Path, config: SplitsConfig, folder: Path) -> None:
    """Divide tiles into parts, draw label fractions and points, and write their lists and the manifest.

    Reads only the index. The same index and config give the same files, byte for byte, in any order of rows. Lists
    left in the folder by earlier splits are removed.

    Args:
        index: `tiles/index.csv`.
        config: The section `splits`.
        folder: Where the lists `train_RGB.txt`, ..., the points `trainP10_points.csv`, ..., `manifest.json` and
            `tiles.csv` go.

    Raises:
        InputError: If the index is wrong or no such division exists.
    """
    tiles = read_index(index, config)
    splits = draw_splits(tiles, config, str(index))
    dropped = np.flatnonzero(splits.division.part == DROPPED)
    lists = Lists(folder, tiles, splits.members, dropped, config.guard, splits.points)
    if problems := check_lists(lists, set(splits.given)):
        raise RuntimeError("\n".join(map(str, problems)))  # a fault of this program
    folder.mkdir(parents=True, exist_ok=True)
    for stale in find_lists(folder):
        stale.unlink()
    for name, members in splits.members.items():
        for file in list_names(name):
            (folder / file).write_bytes(list_text(tiles.tiles[members]))
    for name, points in splits.points.items():
        points_file(folder, name).write_bytes(points_text(points))
    fingerprints(index).to_csv(folder / FILE, index=False, lineterminator="\n")
    correlation = autocorrelation(tiles, generator(config.seed, "autocorrelation"))
    manifest = build_manifest(tiles, splits, table_digest(index), correlation)
    manifest["warnings"] = _absent_classes(manifest) + splits.warnings + _small_blocks(splits.config, correlation)
    for warning in manifest["warnings"]:
        print(warning, file=sys.stderr, flush=True)
    write_manifest(folder, manifest)


def draw_splits(tiles: TileIndex, config: SplitsConfig, where: str) -> Splits:
    """Divide tiles into parts, and draw label fractions and points.

    Args:
        tiles: The index.
        config: The section `splits`.
        where: The index file, for messages.

    Raises:
        InputError: If no such division exists.
    """
    config = in_pixels(config, tiles, where)
    given = given_fractions(tiles, config)
    division = divide(tiles, config, np.any([*given.values(), np.zeros(len(tiles.tiles), bool)], axis=0), where)
    members = {name: np.flatnonzero(division.part == p) for p, name in enumerate(PARTS)}
    labelled = np.flatnonzero((division.part == TRAIN) & tiles.labelled)
    area = tiles.area[labelled]
    given, warnings = _usable_fractions(tiles, division, given, config, where)
    fractions, not_nested = draw_fractions(area, config, {name: mask[labelled] for name, mask in given.items()})
    members |= {name: labelled[positions] for name, positions in fractions.items()}
    points = draw_points(area, tiles.tiles[labelled], tiles.classes, config)
    members |= {name: np.searchsorted(tiles.tiles, drawn["tile"].unique()) for name, drawn in points.items()}
    if lost := int(division.misaligned.sum()):
        why = f"their sensors are off by more than {config.max_misalignment:g} pixels (`splits.max_misalignment`)"
        warnings = [f"{lost} of {len(tiles.tiles)} tiles are in no part, since {why}.", *warnings]
    warnings += not_nested + warn_of_few_pixels(area, tiles.classes, config)
    return Splits(config, division, members, sorted(given), points, warnings)


def _usable_fractions(
    tiles: TileIndex, division: Division, given: dict[str, BoolArray], config: SplitsConfig, where: str
) -> tuple[dict[str, BoolArray], list[str]]:
    """Given label fractions (N flags by list name) without tiles that are dropped or have no labels, and warnings.

    Raises:
        InputError: If a given fraction has tiles of another part.
    """
    problems, warnings = [], []
    usable = (division.part == TRAIN) & tiles.labelled
    for name, mask in given.items():
        foreign = mask & (division.part > TRAIN)
        if foreign.any():
            what = f"label fraction {name} has tiles that are not in train: {format_names(tiles.tiles[foreign])}"
            remedy = "Correct the source's lists, or set `splits.given_fractions` to false."
            problems.append(Problem(where, what, remedy))
        useless = mask & ~usable & ~foreign
        if useless.any():
            warnings.append(f"{name} lost tiles without labels or dropped: {format_names(tiles.tiles[useless])}.")
    if problems:
        raise InputError(problems)
    drawn = [Budget("R", f) for f in config.fractions if f < 100 and Budget("R", f).subset(1) not in given]
    if drawn and tiles.subsets is not None:
        names = ", ".join(budget.name for budget in drawn)
        warnings.append(f"The source gives no label fractions {names}; they are drawn.")
    return {name: mask & usable for name, mask in given.items()}, warnings


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
