"""Sparse labels: single labelled pixels of each class, drawn from the index alone.

The index knows how many pixels of each class a tile has, but not where they are. So a point is a tile, a class and a
number n: the n-th pixel of this class in this tile, counted row by row from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from tmcnet.config import Budget, SplitsConfig
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.readers import reason
from tmcnet.seeding import generator
from tmcnet.splits.files import TilePoints
from tmcnet.splits.index import AreaArray, IntArray, Names

Points: TypeAlias = pd.DataFrame
"""P labelled pixels, sorted: columns `tile` and `class` (names), and `pixel` (number among those of its class)."""

_COLUMNS = ["tile", "class", "pixel"]
_MAX_SHUFFLED = 2**20  # pixels of a class shuffled as a whole; of more, some are picked until enough differ
_PICKS = 4096
_REMEDY = "Restore it, or delete `manifest.json` and run the same command again."


def draw_points(area: AreaArray, tiles: Names, classes: Sequence[str], config: SplitsConfig) -> dict[str, Points]:
    """Draw the points of all lists, by name: of each class a simple random sample without replacement.

    Within a draw the points of a list are among those of the lists with more. A class with too few pixels gives all
    it has. What is drawn for one class and number of points does not depend on the others. `area` are N x K labelled
    pixels of the classes, of the N labelled training tiles; their names are sorted.
    """
    drawn: dict[str, Points] = {}
    for draw in range(1, config.subsets + 1) if config.points else ():
        longest = [
            _draw_class(area[:, k], config.points[-1], generator(config.seed, "points", draw, k)).assign(class_id=k)
            for k in range(len(classes))
        ]
        for n in config.points:
            points = pd.concat([of_class[:n] for of_class in longest]).sort_values(["tile", "class_id", "pixel"])
            columns = tiles[points["tile"]], np.array(classes, object)[points["class_id"]], points["pixel"].to_numpy()
            drawn[Budget("P", n).subset(draw)] = pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))
    return drawn


def _draw_class(area: AreaArray, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """At most n points of one class, from its pixels in N tiles, in random order."""
    ends = np.cumsum(area, dtype=np.int64)
    numbers = _draw_numbers(int(ends[-1]), n, rng)
    tile = np.searchsorted(ends, numbers, side="right")
    return pd.DataFrame({"tile": tile, "pixel": numbers - (ends[tile] - area[tile])})


def _draw_numbers(total: int, n: int, rng: np.random.Generator) -> IntArray:
    """Up to n different numbers below `total`; a smaller n gives the first of them."""
    if total <= _MAX_SHUFFLED:
        return rng.permutation(total)[:n]
    numbers = np.empty(0, np.int64)
    while len(numbers) < min(n, total):
        picks = rng.integers(total, size=max(_PICKS, len(numbers)))  # a size that does not depend on n
        numbers = pd.unique(np.concatenate([numbers, picks]))
    return numbers[:n]


def warn_of_few_pixels(area: AreaArray, classes: Sequence[str], config: SplitsConfig) -> list[str]:
    """A sentence for each number of points that exceeds the pixels of some classes; arguments as in `draw_points`."""
    total = area.sum(axis=0, dtype=np.int64)
    short = {n: [f"{name} ({t})" for name, t in zip(classes, total, strict=True) if 0 < t < n] for n in config.points}
    return [
        f"P{n} needs {n} labelled pixels of each class; the training part has fewer of some: {', '.join(names)}. "
        "All of them are taken."
        for n, names in short.items()
        if names
    ]


def points_text(points: Points) -> bytes:
    """Content of a file of points: header, and one point a line."""
    return points.to_csv(index=False, lineterminator="\n").encode()


def read_points(path: Path, classes: Sequence[str]) -> Points:
    """Read a file of points.

    Raises:
        InputError: If it cannot be read or is damaged, or names unknown classes.
    """
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read ({error.strerror})", _REMEDY)) from error
    except ValueError as error:
        raise InputError(Problem(str(path), f"is damaged ({reason(error)})", _REMEDY)) from error
    if list(table.columns) != _COLUMNS:
        what = f"is damaged: its columns are not {', '.join(_COLUMNS)}"
        raise InputError(Problem(str(path), what, _REMEDY))
    valid = table["class"].isin(list(classes)) & table["pixel"].str.fullmatch(r"[0-9]{1,18}")
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        what = f"is damaged: line {row + 2} names no class and pixel ({', '.join(map(str, table.iloc[row]))})"
        raise InputError(Problem(str(path), what, _REMEDY))
    return table.astype({"pixel": np.int64})


def read_tile_points(path: Path, tiles: Sequence[str], classes: Sequence[str]) -> TilePoints:
    """Read a file of points for the tiles of its list; classes are in the order of their ids.

    Raises:
        InputError: If it cannot be read or is damaged, names unknown classes, or has points in other tiles than the
            list names.
    """
    points = read_points(path, classes)
    if odd := set(points["tile"]) ^ set(tiles):
        what = f"and its list do not name the same tiles: {format_names(odd)} are in one of them only"
        raise InputError(Problem(str(path), what, _REMEDY))
    points["class"] = points["class"].map({name: k for k, name in enumerate(classes)}).astype(np.int64)
    return {str(tile): rows[["class", "pixel"]].to_numpy() for tile, rows in points.groupby("tile")}
