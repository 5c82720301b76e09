"""What must hold for any lists of parts, label fractions and points, however they were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from tmcnet.config import Budget
from tmcnet.errors import MAX_NAMES, Problem, format_names
from tmcnet.raster.inventory.seed_layout import PARTS
from tmcnet.splits.groups import close_pairs
from tmcnet.splits.index import IntArray, TileIndex
from tmcnet.splits.manifest import REMEDY
from tmcnet.splits.points import Points, points_file, points_per_class


@dataclass(frozen=True)
class Lists:
    """Lists of tiles as positions in the index.

    Attributes:
        folder: Where they are, for messages.
        index: The tiles.
        members: Positions of the tiles of each list, of those that the index has.
        dropped: Positions of the tiles that are in no part on purpose.
        guard: Width in pixels of the band that has to be empty between parts.
        points: The points of the lists that have some.
    """

    folder: Path
    index: TileIndex
    members: dict[str, IntArray]
    dropped: IntArray
    guard: int
    points: dict[str, Points]

    def of(self, name: str) -> IntArray:
        """Positions of the tiles of a list; none if it does not exist."""
        return self.members.get(name, np.empty(0, np.int64))

    def problem(self, name: str, what: str) -> Problem:
        """A problem of one list."""
        return Problem(str(self.folder / f"{name}_RGB.txt"), what, REMEDY)

    def tiles(self, positions: IntArray) -> str:
        """Names of tiles for messages."""
        return format_all(self.index.tiles[positions])


def format_all(tiles: Iterable[str]) -> str:
    """The first tiles by name, and how many there are."""
    known = set(tiles)
    return f"{format_names(known)} ({len(known)} in all)"


def check_lists(lists: Lists, given: Set[str]) -> list[Problem]:
    """Everything wrong with lists: tiles doubled, in two parts, in none, unlabelled, not nested, too close.

    And points: doubled, past the pixels of their class, too many or too few, not nested, in other tiles than listed.

    Args:
        lists: The lists.
        given: Label fractions given by the source; they may be independent draws.
    """
    return [
        *_check_each(lists),
        *_check_parts(lists),
        *_check_nested(lists, given),
        *_check_distance(lists),
        *_check_points(lists),
    ]


def _check_each(lists: Lists) -> Iterator[Problem]:
    """Tiles listed twice, and tiles without labels where labels are needed: everywhere but in the training part."""
    for name, members in lists.members.items():
        unique, counts = np.unique(members, return_counts=True)
        if (counts > 1).any():
            yield lists.problem(name, f"names tiles twice: {lists.tiles(unique[counts > 1])}")
        unlabelled = members[~lists.index.labelled[members]]
        if name != "train" and len(unlabelled):
            yield lists.problem(name, f"names tiles without labels: {lists.tiles(unlabelled)}")


def _check_parts(lists: Lists) -> Iterator[Problem]:
    """Tiles in two parts, or in no part though not dropped."""
    where, masks = str(lists.folder), {}
    for name in (*PARTS, "dropped"):
        masks[name] = np.zeros(len(lists.index.tiles), bool)
        masks[name][lists.dropped if name == "dropped" else lists.of(name)] = True
    for one, other in combinations(masks, 2):
        if (both := masks[one] & masks[other]).any():
            what = f"tiles are in {one} and in {other}: {lists.tiles(np.flatnonzero(both))}"
            yield Problem(where, what, REMEDY)
    if not (known := np.any(list(masks.values()), axis=0)).all():
        what = f"tiles are in no part and not among the dropped: {lists.tiles(np.flatnonzero(~known))}"
        yield Problem(where, what, REMEDY)


def _check_nested(lists: Lists, given: Set[str]) -> Iterator[Problem]:
    """Label fractions and points that leave the training part or do not contain the smaller ones of their draw."""
    draws: dict[tuple[str, int], list[tuple[Budget, str]]] = {}
    for name in lists.members:
        if subset := Budget.parse_subset(name):
            draws.setdefault((subset[0].kind, subset[1]), []).append((subset[0], name))
    for _, draw in sorted(draws.items()):
        names = [name for _, name in sorted(draw)]
        for small, large in combinations([*names, *({"train"} & lists.members.keys())], 2):
            outside = lists.members[small][~np.isin(lists.members[small], lists.members[large])]
            if len(outside) and not {small, large} <= given:
                yield lists.problem(small, f"is not nested in {large}: {lists.tiles(outside)}")
        for small, large in combinations([name for name in names if name in lists.points], 2):
            few, many = lists.points[small], lists.points[large]
            missing = ~pd.MultiIndex.from_frame(few).isin(pd.MultiIndex.from_frame(many))
            if missing.any():
                what = f"is not nested in {large}: {_format_points(few[missing])}"
                yield Problem(str(points_file(lists.folder, small)), what, REMEDY)


def _check_distance(lists: Lists) -> Iterator[Problem]:
    """Tiles of different parts that overlap, in their scene or on the ground, or are closer than the guard band."""
    part = np.full(len(lists.index.tiles), -1, np.int64)
    for p, name in enumerate(PARTS):
        part[lists.of(name)] = p
    pairs = close_pairs(lists.index, part, lists.guard)
    of = np.sort(part[pairs], axis=1)
    for p, q in combinations(range(len(PARTS)), 2):
        if len(chosen := lists.index.tiles[pairs[(of == [p, q]).all(axis=1)]]):
            shown = ", ".join(f"{a} with {b}" for a, b in chosen[:MAX_NAMES])
            what = f"{PARTS[p]} and {PARTS[q]} share pixels or are closer than {lists.guard} pixels"
            yield Problem(str(lists.folder), f"{what}: {shown} ({len(chosen)} pairs)", REMEDY)


def _check_points(lists: Lists) -> Iterator[Problem]:
    """Points that do not fit their list, their tile or the number in the name of their list."""
    index = lists.index
    total = index.area[lists.of("train")].sum(axis=0, dtype=np.int64)
    for name, points in lists.points.items():
        where = str(points_file(lists.folder, name))
        if odd := set(points["tile"]) ^ set(index.tiles[lists.of(name)]):
            yield Problem(where, f"and its list do not name the same tiles: {format_all(odd)}", REMEDY)
        if (doubled := points.duplicated()).any():
            yield Problem(where, f"names points twice: {_format_points(points[doubled])}", REMEDY)
        tile = np.searchsorted(index.tiles, points["tile"].to_numpy(object))
        class_id = pd.Index(index.classes).get_indexer(pd.Index(points["class"]))
        if (past := points["pixel"] >= index.area[tile, class_id]).any():
            what = f"has points past the last pixel of their class: {_format_points(points[past])}"
            yield Problem(where, what, REMEDY)
        wanted = np.minimum(total, points_per_class(name) or 0)
        found = np.bincount(class_id, minlength=len(index.classes))
        wrong = [f"{index.classes[k]} {found[k]} in place of {wanted[k]}" for k in np.flatnonzero(found != wanted)]
        if wrong:
            yield Problem(where, f"has other numbers of points than it should: {', '.join(wrong)}", REMEDY)


def _format_points(points: Points) -> str:
    """The first of some points, and how many there are."""
    shown = ", ".join(" ".join(map(str, point)) for point in points.head(MAX_NAMES).itertuples(index=False))
    return f"{shown} ({len(points)} in all)"
