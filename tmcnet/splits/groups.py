"""Groups of tiles that stay together in one part, and tiles of different groups that come too close."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.splits.index import Ground, IntArray, TileIndex

_MAX_BOXES = 2000  # scenes compared with one another before their tiles are


@dataclass(frozen=True)
class Groups:
    """G groups of tiles.

    Attributes:
        of: N numbers of groups, one per tile.
        names: Name of each group: a scene or a value of the column; None for blocks.
        places: G x 3 for blocks: number of the scene, row and column of the block's first pixel; else None.
        n: Number of groups, G.
        noun: What a group is, for messages.
    """

    of: IntArray
    names: list[str] | None
    places: IntArray | None
    n: int
    noun: str


def in_pixels(config: SplitsConfig, index: TileIndex, where: str) -> SplitsConfig:
    """Config with `block_size` computed from `block_metres`, if that is set.

    Args:
        config: The section `splits`.
        index: The tiles, for the size of their pixels.
        where: The index file, for messages.

    Raises:
        InputError: If pixels have no known size or several, or a block would be smaller than a tile.
    """
    if config.block_metres is None:
        return config
    side = index.pixel_side
    if side is None:
        what = "does not give one pixel size in metres for all tiles, which `splits.block_metres` needs"
        remedy = "Set `splits.block_metres` to null and give `splits.block_size` in pixels."
        raise InputError(Problem(where, what, remedy))
    size, tile = round(config.block_metres / side), int(index.window[:, 2:].max())
    if size < tile:
        what = f"({config.block_metres:g} m) is {size} pixels of {side:g} m, less than the {tile} of a tile"
        raise InputError(Problem("config key `splits.block_metres`", what, f"Make it at least {tile * side:g}."))
    return config.model_copy(update={"block_size": size})


def group_tiles(index: TileIndex, config: SplitsConfig) -> Groups:
    """Group tiles by block, scene or value of a column, as `config.method` says; `given` uses blocks."""
    if config.method == "scenes":
        return Groups(index.scene, index.scenes, None, len(index.scenes), "scenes")
    if config.method == "column" and index.field is not None:
        codes, values = pd.factorize(index.field, sort=True)
        names = [str(v) for v in values]
        return Groups(codes.astype(np.int64), names, None, len(names), f"values of `{config.column}`")
    size = config.block_size
    row = block_number(index.window[:, 0], index.window[:, 2], size)
    col = block_number(index.window[:, 1], index.window[:, 3], size)
    rows, cols = int(np.ptp(row)) + 1, int(np.ptp(col)) + 1
    key = (index.scene * rows + (row - row.min())) * cols + (col - col.min())
    unique, of = np.unique(key, return_inverse=True)
    scene, row_of, col_of = unique // (rows * cols), unique // cols % rows + row.min(), unique % cols + col.min()
    places = np.stack([scene, row_of * size, col_of * size], axis=1)
    return Groups(of.astype(np.int64), None, places, len(places), "blocks")


def block_number(first: IntArray, length: IntArray, size: int) -> IntArray:
    """Number, along one axis, of the block that contains the centre of each window; blocks begin at the first pixel.

    Args:
        first: N first pixels of the windows.
        length: N lengths of the windows in pixels.
        size: Side of a block in pixels.
    """
    return (2 * first + length) // (2 * size)


def close_pairs(index: TileIndex, key: IntArray, guard: int) -> IntArray:
    """Pairs of tiles with different keys whose windows overlap once one of them is widened by the guard band.

    Windows are compared within scenes and, where the place on the ground is known, between scenes of one CRS. Between
    scenes of different CRSs, or turned ones, circles around the tiles are compared, see `_close_circles`.

    Args:
        index: The tiles.
        key: N numbers; only pairs that differ in it are returned.
        guard: Width of the band in pixels.

    Returns:
        M x 2 positions in the index, the smaller first, sorted.
    """
    keys = pd.Series(key).groupby(index.scene)
    mixed = np.flatnonzero(keys.transform("min") != keys.transform("max"))
    found = _close_windows(mixed, index.scene, index.window, guard)
    if index.ground is not None and len(index.scenes) > 1:
        meeting = _in_meeting_scenes(index.ground, index.scene, guard)
        windows = _close_windows(meeting, index.ground.crs, index.ground.window, guard)
        pairs = np.concatenate([windows, _close_circles(index.ground, guard)])
        found = np.concatenate([found, pairs[index.scene[pairs[:, 0]] != index.scene[pairs[:, 1]]]])
    found = found[key[found[:, 0]] != key[found[:, 1]]]
    ordered: IntArray = found[np.lexsort((found[:, 1], found[:, 0]))]
    return ordered


def _in_meeting_scenes(ground: Ground, scene: IntArray, guard: int) -> IntArray:
    """Tiles of scenes whose bounding box, widened by the guard band, meets that of another scene of their CRS."""
    known = np.flatnonzero(ground.crs >= 0)
    first, last = ground.window[known, :2], ground.window[known, :2] + ground.window[known, 2:]
    boxes = pd.DataFrame(np.hstack([first, -last])).groupby([scene[known], ground.crs[known]]).min()
    if len(boxes) > _MAX_BOXES:
        return known
    low, high, crs = boxes[[0, 1]].to_numpy(), -boxes[[2, 3]].to_numpy(), boxes.index.get_level_values(1).to_numpy()
    meet = (low[:, None] < high + guard).all(axis=2)
    meet &= meet.T & (crs[:, None] == crs)
    np.fill_diagonal(meet, False)
    found: IntArray = known[np.isin(scene[known], boxes.index.get_level_values(0)[meet.any(axis=1)])]
    return found


def _close_windows(chosen: IntArray, place: IntArray, window: IntArray, guard: int) -> IntArray:
    """Pairs among the chosen tiles in the same place (scene or CRS) that are closer than the guard band."""
    if chosen.size == 0:
        return np.empty((0, 2), np.int64)
    row, col, height, width = window[chosen].T
    # Two windows can only be close if their centres are: the distance in units of the largest reach is then below 1,
    # and at most 1 less half a pixel. A radius between the two leaves out neighbours that merely touch.
    reach = max(int(height.max()), int(width.max())) + guard
    points = np.stack([place[chosen] * 4.0, (2 * row + height) / (2 * reach), (2 * col + width) / (2 * reach)], 1)
    pairs = cKDTree(points).query_pairs(1 - 0.25 / reach, p=np.inf, output_type="ndarray")
    a, b = pairs.T
    close = (
        (row[a] < row[b] + height[b] + guard)
        & (row[b] < row[a] + height[a] + guard)
        & (col[a] < col[b] + width[b] + guard)
        & (col[b] < col[a] + width[a] + guard)
    )
    return np.sort(chosen[pairs[close]], axis=1)


def _close_circles(ground: Ground, guard: int) -> IntArray:
    """Pairs of tiles without a common grid whose circles may share ground.

    Circles are larger than windows. Tiles are too close where the distance between the centres is below the sum of
    the radii and the guard band, in the larger pixels of the two.
    """
    if ground.circle is None:
        return np.empty((0, 2), np.int64)
    band = guard * ground.metres
    chosen = np.flatnonzero(np.isfinite(ground.circle).all(axis=1) & np.isfinite(band))
    center, radius, crs = ground.circle[:, :3], ground.circle[:, 3], ground.crs
    largest = 2 * float(radius[chosen].max(initial=0)) + float(band[chosen].max(initial=0))
    pairs = np.sort(chosen[cKDTree(center[chosen]).query_pairs(largest, output_type="ndarray")], axis=1)
    a, b = pairs.T
    close = np.linalg.norm(center[a] - center[b], axis=1) < radius[a] + radius[b] + np.maximum(band[a], band[b])
    found: IntArray = pairs[close & ((crs[a] != crs[b]) | (crs[a] < 0))]
    return found
