"""Sparse labels: single labelled pixels of each class, which the index alone is enough to draw.

The index knows how many pixels of each class a tile has, but not where. So a point is a tile, a class and a number n:
the n-th pixel of this class in this tile, counted row by row from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tmcnet.config import IGNORE, Budget, SplitsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.seeding import generator
from tmcnet.splits.fractions import AreaArray
from tmcnet.splits.index import IntArray, TileIndex
from tmcnet.splits.lists import format_names

COLUMNS = ("tile", "class", "pixel")
"""Columns of a file of points."""

TilePoints = Mapping[str, IntArray]
"""Points by tile, P x 2: class id and number of the pixel among those of its class."""

_SHUFFLED = 2**20
"""Up to so many pixels of a class are shuffled as a whole; of more, some are picked until enough differ."""
_PICKS = 4096
_REMEDY = "Run the splits again."


@dataclass(frozen=True)
class Points:
    """P labelled pixels, sorted by tile, class and pixel.

    Attributes:
        tile: P positions of the tiles in the index.
        class_id: P numbers of the classes.
        pixel: P numbers of the pixels among those of their class in their tile.
    """

    tile: IntArray
    class_id: IntArray
    pixel: IntArray

    @classmethod
    def of(cls, tile: IntArray, class_id: IntArray, pixel: IntArray) -> Points:
        """Put points into their order."""
        order = np.lexsort((pixel, class_id, tile))
        return cls(tile[order], class_id[order], pixel[order])

    @property
    def tiles(self) -> IntArray:
        """Positions of the tiles that hold points, each once, sorted."""
        return np.unique(self.tile)

    @property
    def keys(self) -> pd.MultiIndex:
        """Tile, class and pixel of each point, for comparisons."""
        return pd.MultiIndex.from_arrays([self.tile, self.class_id, self.pixel])

    def of_class(self, classes: int) -> IntArray:
        """How many points each of K classes has."""
        return np.bincount(self.class_id, minlength=classes)


def file_of(folder: Path, name: str) -> Path:
    """The file of the points that belong to a list such as `trainP10`."""
    return folder / f"{name}_points.csv"


def points_of_each_class(name: str) -> int | None:
    """How many labelled pixels of each class a list asks for by its name; None for lists of whole tiles."""
    subset = Budget.parse_subset(name)
    return subset[0].points if subset else None


def draw_points(area: AreaArray, tiles: IntArray, classes: Sequence[str], config: SplitsConfig) -> dict[str, Points]:
    """Draw the points of all lists: of each class a simple random sample without replacement.

    Within a draw the points of a list are among those of the lists with more. A class with fewer pixels than are
    asked for gives all it has. What is drawn for one class or number of points depends on no other.

    Args:
        area: N x K labelled pixels of the classes, of the N labelled training tiles.
        tiles: N positions of these tiles in the index.
        classes: K names.
        config: Numbers of points, number of draws, seed.

    Returns:
        Points by the name of their list.
    """
    if not config.points:
        return {}
    drawn: dict[str, Points] = {}
    for draw in range(1, config.subsets + 1):
        longest = [
            _of_class(area[:, k], tiles, k, config.points[-1], generator(config.seed, "points", draw, name))
            for k, name in enumerate(classes)
        ]
        for n in config.points:
            rows = np.concatenate([points[:n] for points in longest])
            drawn[Budget("P", n).subset(draw)] = Points.of(*rows.T)
    return drawn


def _of_class(area: AreaArray, tiles: IntArray, class_id: int, n: int, random: np.random.Generator) -> IntArray:
    """At most n points of one class in random order: tile, class and pixel, P x 3."""
    ends = np.cumsum(area, dtype=np.int64)
    ranks = _ranks(int(ends[-1]), n, random)
    at = np.searchsorted(ends, ranks, side="right")
    return np.stack([tiles[at], np.full(len(at), class_id), ranks - (ends[at] - area[at])], axis=1)


def _ranks(total: int, n: int, random: np.random.Generator) -> IntArray:
    """So many different numbers below `total`, all where there are fewer; a smaller n gives a beginning of them."""
    if total <= _SHUFFLED:
        return random.permutation(total)[:n]
    found = np.empty(0, np.int64)
    while len(found) < min(n, total):
        picks = random.integers(total, size=max(_PICKS, len(found)))  # a size that does not depend on n
        found = pd.unique(np.concatenate([found, picks]))
    return found[:n]


def too_few(area: AreaArray, classes: Sequence[str], config: SplitsConfig) -> list[str]:
    """A sentence for each number of points that some classes do not have pixels enough for.

    Args:
        area: N x K labelled pixels of the classes, of the labelled training tiles.
        classes: K names.
        config: Numbers of points.
    """
    total = area.sum(axis=0, dtype=np.int64)
    short = {n: [f"{name} ({t})" for name, t in zip(classes, total, strict=True) if 0 < t < n] for n in config.points}
    return [
        f"P{n} asks for {n} labelled pixels of each class; the training part has fewer of some: {', '.join(names)}. "
        "All of them are taken."
        for n, names in short.items()
        if names
    ]


def points_text(points: Points, index: TileIndex) -> bytes:
    """Content of a file of points: header, and one point a line."""
    names = np.array(index.classes, dtype=object)
    columns = (index.tiles[points.tile], names[points.class_id], points.pixel)
    table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    return table.to_csv(index=False, lineterminator="\n").encode()


def read_points(path: Path, index: TileIndex) -> Points:
    """Read a file of points as positions in the index.

    Raises:
        InputError: If it cannot be read or is no such table, or names tiles or classes that the index does not have.
    """
    table = _read(path, index.classes)
    names = table["tile"].to_numpy(object)
    at = np.searchsorted(index.tiles, names).clip(max=len(index.tiles) - 1)  # the few find their places in the many
    if len(strangers := names[index.tiles[at] != names]):
        what = f"names tiles that the index does not have: {format_names(set(strangers))}"
        raise InputError(Problem(str(path), what, _REMEDY))
    return Points.of(at, table["class"].to_numpy(), table["pixel"].to_numpy())


def read_tile_points(path: Path, tiles: Sequence[str], classes: Sequence[str]) -> TilePoints:
    """Read a file of points for the tiles of its list.

    Args:
        path: The file.
        tiles: The tiles of the list.
        classes: K names in the order of their ids.

    Raises:
        InputError: If it cannot be read or is no such table, names classes that there are not, or has points in other
            tiles than the list names.
    """
    table = _read(path, classes)
    odd = set(table["tile"]) ^ set(tiles)
    if odd:
        what = f"and its list do not name the same tiles: {format_names(odd)} are in one of them only"
        raise InputError(Problem(str(path), what, _REMEDY))
    return {str(tile): rows[["class", "pixel"]].to_numpy() for tile, rows in table.groupby("tile")}


def _read(path: Path, classes: Sequence[str]) -> pd.DataFrame:
    """The table with numbers for classes and pixels."""
    try:
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read ({error.strerror})", _REMEDY)) from error
    except ValueError as error:
        raise InputError(Problem(str(path), f"is damaged ({error})", _REMEDY)) from error
    if tuple(table.columns) != COLUMNS:
        what = f"is damaged: its columns are not {', '.join(COLUMNS)}"
        raise InputError(Problem(str(path), what, _REMEDY))
    known = table["class"].isin(list(classes))
    whole = table["pixel"].str.fullmatch(r"[0-9]{1,18}")
    if not (known & whole).all():
        row = int(np.flatnonzero(~(known & whole))[0])
        what = f"is damaged: line {row + 2} names no class and pixel ({', '.join(map(str, table.iloc[row]))})"
        raise InputError(Problem(str(path), what, _REMEDY))
    number = {name: k for k, name in enumerate(classes)}
    class_id, pixel = table["class"].map(number).astype(np.int64), table["pixel"].astype(np.int64)
    return table.assign(**{"class": class_id, "pixel": pixel})


def keep_points(label: npt.NDArray[np.uint8], points: IntArray, tile: str) -> npt.NDArray[np.uint8]:
    """A label with everything void but its points.

    The index has shares of six digits. In tiles of a million pixels and more they may promise a pixel too many, so a
    point past the last pixel of its class takes the last one, which may be a point already.

    Args:
        label: H x W class ids, `IGNORE` for void.
        points: P x 2: class id and number of the pixel among those of its class.
        tile: Name of the tile, for messages.

    Raises:
        InputError: If the tile has no pixel of a class.
    """
    sparse = np.full_like(label, IGNORE)
    for class_id in np.unique(points[:, 0]):
        here = np.flatnonzero(label == class_id)
        if not len(here):
            what = f"its label has no pixel of class id {class_id}, of which it should hold points"
            raise InputError(Problem(tile, what, "Cut the tiles anew, then make the splits anew."))
        chosen = points[points[:, 0] == class_id, 1]
        sparse.ravel()[here[np.minimum(chosen, len(here) - 1)]] = class_id
    return sparse
