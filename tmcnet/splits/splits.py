"""Write the lists of parts, label fractions and points, and the manifest that vouches for them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tmcnet.config import Budget, SplitsConfig, subset_name
from tmcnet.errors import InputError, Problem
from tmcnet.seeding import generator
from tmcnet.splits import prints
from tmcnet.splits.autocorrelation import autocorrelation
from tmcnet.splits.checks import Lists, chains_by_name, problems_of
from tmcnet.splits.finish import DROPPED, TRAIN
from tmcnet.splits.fractions import draw_fractions
from tmcnet.splits.groups import in_pixels
from tmcnet.splits.index import BoolArray, IntArray, TileIndex, index_sha256, read_index
from tmcnet.splits.lists import KINDS, PARTS, format_names
from tmcnet.splits.parts import Division, divide, drawn_lists
from tmcnet.splits.points import Points, draw_points, file_of, points_text, too_few
from tmcnet.splits.record import build, list_files, list_text, write


@dataclass(frozen=True)
class Splits:
    """Splits before they are written.

    Attributes:
        division: Tiles divided into parts.
        config: The config, with `block_size` in pixels whatever it was given in.
        members: Positions in the index of the tiles of each list.
        given: Names of the lists that the source gives.
        points: The points of those lists that have some.
        warnings: Sentences about tiles left out for their registration, about given lists, and about classes with
            fewer pixels than points are asked for.
    """

    division: Division
    config: SplitsConfig
    members: dict[str, IntArray]
    given: list[str]
    points: dict[str, Points]
    warnings: list[str]


def make_splits(index: Path, config: SplitsConfig, folder: Path) -> None:
    """Divide tiles into parts, draw label fractions and points, and write their lists and the manifest.

    Reads the index alone. The same index and config give the same files, byte for byte, whatever the order of rows.
    Lists left in the folder by earlier splits are removed. What must hold for any lists is checked before they are
    written.

    Args:
        index: `tiles/index.csv`.
        config: The section `splits`.
        folder: Where the lists `train_RGB.txt`, ..., the points `trainP10_points.csv`, ..., `manifest.json` and
            `tiles.csv` go.

    Raises:
        InputError: If the index is wrong or no such division exists.
    """
    tiles = read_index(index, config)
    splits = draw(tiles, config, str(index))
    _check(tiles, splits, folder)
    correlation = autocorrelation(tiles, generator(config.seed, "autocorrelation"))
    folder.mkdir(parents=True, exist_ok=True)
    for stale in list_files(folder):
        stale.unlink()
    for name, members in splits.members.items():
        text = list_text(tiles.tiles[members])
        for word in KINDS.values():
            (folder / f"{name}_{word}.txt").write_bytes(text)
    for name, points in splits.points.items():
        file_of(folder, name).write_bytes(points_text(points, tiles))
    prints.write(folder, tiles, index)
    lists = splits.members, splits.given, splits.points
    manifest = build(tiles, splits.division, splits.config, index_sha256(index), *lists, correlation)
    manifest["warnings"] = _absent(manifest) + splits.warnings + _blocks_too_small(splits.config, correlation)
    for warning in manifest["warnings"]:
        print(warning, file=sys.stderr, flush=True)
    write(folder, manifest)


def draw(tiles: TileIndex, config: SplitsConfig, where: str) -> Splits:
    """Divide tiles into parts, and draw label fractions and points.

    Args:
        tiles: The index.
        config: The section `splits`.
        where: The index file, for messages.

    Raises:
        InputError: If no such division exists.
    """
    config = in_pixels(config, tiles, where)
    division = divide(tiles, config, where)
    members = {name: np.flatnonzero(division.part == p) for p, name in enumerate(PARTS)}
    labelled = np.flatnonzero((division.part == TRAIN) & tiles.labelled)
    given, warnings = _given_fractions(tiles, division, config, where)
    subsets, more = draw_fractions(tiles.area[labelled], config, {n: mask[labelled] for n, mask in given.items()})
    members.update({name: labelled[positions] for name, positions in subsets.items()})
    points = draw_points(tiles.area[labelled], labelled, tiles.classes, config)
    members.update({name: drawn.tiles for name, drawn in points.items()})
    more += too_few(tiles.area[labelled], tiles.classes, config)
    return Splits(division, config, members, sorted(given), points, _misaligned(division, config) + warnings + more)


def _check(tiles: TileIndex, splits: Splits, folder: Path) -> None:
    """Stop if the lists break what must hold for any lists; that would be a fault of this program."""
    dropped = np.flatnonzero(splits.division.part == DROPPED)
    lists = Lists(folder, tiles, splits.members, dropped, splits.config.guard, splits.points)
    problems = problems_of(lists, chains_by_name(splits.members), set(splits.given))
    if problems:
        raise RuntimeError("\n".join(map(str, problems)))


def _given_fractions(
    tiles: TileIndex, division: Division, config: SplitsConfig, where: str
) -> tuple[dict[str, BoolArray], list[str]]:
    """Membership (N) of the label fractions that the source gives, by list name, and warnings.

    Raises:
        InputError: If a given fraction has tiles of another part.
    """
    if tiles.subsets is None:
        return {}, []
    of_name: dict[str, list[int]] = {}
    for position in np.flatnonzero(tiles.subsets != ""):
        for subset in dict.fromkeys(str(tiles.subsets[position]).split(";")):
            of_name.setdefault(f"train{subset.strip()}", []).append(int(position))
    given: dict[str, BoolArray] = {}
    problems, warnings = [], []
    for name in drawn_lists(config):
        if name not in of_name:
            continue
        mask = np.zeros(len(tiles.tiles), bool)
        mask[of_name[name]] = True
        strangers = mask & (division.part != TRAIN) & (division.part != DROPPED)
        if strangers.any():
            what = f"label fraction {name} has tiles that are not in train: {format_names(tiles.tiles[strangers])}"
            remedy = "Mend the source's lists, or set `splits.given_fractions` to false."
            problems.append(Problem(where, what, remedy))
        useless = mask & ~strangers & ((division.part == DROPPED) | ~tiles.labelled)
        if useless.any():
            warnings.append(f"{name} lost tiles without labels or dropped: {format_names(tiles.tiles[useless])}.")
        given[name] = mask & ~useless
    if problems:
        raise InputError(problems)
    unknown = [Budget("R", f).name for f in config.fractions if f < 100 and subset_name(f, 1) not in given]
    if unknown:
        warnings.append(f"The source gives no label fractions {', '.join(unknown)}; they are drawn.")
    return given, warnings


def _misaligned(division: Division, config: SplitsConfig) -> list[str]:
    """A sentence where tiles were dropped for their registration."""
    lost, n = int(division.misaligned.sum()), len(division.part)
    if not lost:
        return []
    why = f"their sensors are off by more than {config.max_misalignment:g} pixels (`splits.max_misalignment`)"
    return [f"{lost} of {n} tiles are in no part, since {why}."]


def _blocks_too_small(config: SplitsConfig, correlation: dict[str, Any]) -> list[str]:
    """A sentence where blocks are smaller than the labels' autocorrelation range, or where it cannot be told."""
    if config.method != "blocks":
        return []
    if correlation["relation"] == "unknown":
        return [f"Whether blocks are large enough for independent parts cannot be told: {correlation['reason']}."]
    length, metres = correlation["range_pixels"], correlation["range_metres"]
    if config.block_size >= length:
        return []
    on_ground = "" if metres is None else f", {metres} m"
    return [
        f"Blocks of {config.block_size} pixels are smaller than the distance over which labels are alike "
        f"({correlation['relation']} {length} pixels{on_ground}): neighbouring parts are not independent and scores "
        "come out too high. Make the blocks larger, or divide by scenes."
    ]


def _absent(manifest: dict[str, Any]) -> list[str]:
    """A sentence for each list that lacks classes."""
    return [
        f"{name} has no pixel of {', '.join(absent)}."
        for name, entry in manifest["lists"].items()
        if (absent := [label for label, share in entry["class_shares"].items() if share == 0])
    ]
