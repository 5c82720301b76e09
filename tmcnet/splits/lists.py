"""What must hold for any lists of parts, label fractions and points, however they were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from tmcnet.config import Budget
from tmcnet.config.splits import PARTS
from tmcnet.errors import MAX_NAMES, Problem
from tmcnet.splits.files import REMEDY, format_all, list_names, points_file, points_per_class
from tmcnet.splits.index import IntArray, TileIndex, close_pairs
from tmcnet.splits.points import Points


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
