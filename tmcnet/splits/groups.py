"""Groups of tiles that stay together in one part, and tiles of different groups that come too close."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.splits.ground import MOST_SCENES, near_circles, pixel_side
from tmcnet.splits.index import BoolArray, IntArray, TileIndex


@dataclass(frozen=True)
class Groups:
    """Which tiles belong together.

    Attributes:
        of: N numbers of groups.
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
    """The config with `block_size` as `block_metres` asks for it, in whole pixels of the tiles; else as it is.

    Args:
        config: The section `splits`.
        index: The tiles, for the size of their pixels.
        where: The index file, for messages.

    Raises:
        InputError: If the pixels have no known size or several, or a block would be smaller than a tile.
    """
    if config.block_metres is None:
        return config
    side = pixel_side(index.ground)
    if side is None:
        what = "does not tell one pixel size in metres for all tiles, which `splits.block_metres` needs"
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
    return _blocks(index, config.block_size)


def _blocks(index: TileIndex, size: int) -> Groups:
    """Square blocks from the scene's first pixel on; a tile belongs to the block that its centre lies in."""
    row = block_number(index.window[:, 0], index.window[:, 2], size)
    col = block_number(index.window[:, 1], index.window[:, 3], size)
    rows, cols = int(np.ptp(row)) + 1, int(np.ptp(col)) + 1
    key = (index.scene * rows + (row - row.min())) * cols + (col - col.min())
    unique, of = np.unique(key, return_inverse=True)
    places = np.stack(
        [unique // (rows * cols), (unique // cols % rows + row.min()) * size, (unique % cols + col.min()) * size],
        axis=1,
    )
    return Groups(of.astype(np.int64), None, places, len(places), "blocks")


def block_number(first: IntArray, length: IntArray, size: int) -> IntArray:
    """Number, along one axis, of the block that the centre of each window lies in.

    Args:
        first: N first pixels of the windows.
        length: N lengths of the windows in pixels.
        size: Side of a block in pixels.
    """
    return (2 * first + length) // (2 * size)


def close_pairs(index: TileIndex, key: IntArray, guard: int) -> IntArray:
    """Pairs of tiles with different keys whose windows overlap once one of them is widened by the guard band.

    Windows are compared within scenes and, where the place on the ground is known, between scenes of one CRS. Between
    scenes of different CRSs, or turned ones, circles around the tiles are compared instead, as `near_circles` says.

    Args:
        index: The tiles.
        key: N numbers; only pairs that differ in it are wanted.
        guard: Width of the band in pixels.

    Returns:
        M x 2 positions in the index, sorted.
    """
    found = _close(np.flatnonzero(_in_mixed_scene(index.scene, key)), index.scene, index.window, key, guard)
    if index.ground is not None and len(index.scenes) > 1:
        of, window = index.ground.crs, index.ground.window
        ground = _close(_in_meeting_scenes(of, window, index.scene, guard), of, window, key, guard)
        circles = near_circles(index.ground, index.scene, guard)
        circles = circles[key[circles[:, 0]] != key[circles[:, 1]]]
        found = np.concatenate([found, ground[index.scene[ground[:, 0]] != index.scene[ground[:, 1]]], circles])
    ordered: IntArray = found[np.lexsort((found[:, 1], found[:, 0]))]
    return ordered


def _close(chosen: IntArray, place: IntArray, window: IntArray, key: IntArray, guard: int) -> IntArray:
    """Pairs among the chosen tiles that lie in one place and are closer than the guard band, the smaller first."""
    if chosen.size == 0:
        return np.empty((0, 2), np.int64)
    row, col, height, width = window[chosen].T
    # Two windows can only be close if their centres are: the distance in units of the largest reach is then below 1,
    # and at most 1 less half a pixel. A radius between the two leaves out neighbours that merely touch.
    reach = max(int(height.max()), int(width.max())) + guard
    points = np.stack([place[chosen] * 4.0, (2 * row + height) / (2 * reach), (2 * col + width) / (2 * reach)], 1)
    radius = 1 - 0.25 / reach
    pairs = cKDTree(points).query_pairs(radius, p=np.inf, output_type="ndarray").astype(np.int64, copy=False)
    pairs = pairs[key[chosen[pairs[:, 0]]] != key[chosen[pairs[:, 1]]]]
    a, b = pairs.T
    close = (
        (row[a] < row[b] + height[b] + guard)
        & (row[b] < row[a] + height[a] + guard)
        & (col[a] < col[b] + width[b] + guard)
        & (col[b] < col[a] + width[a] + guard)
    )
    return np.sort(chosen[pairs[close]], axis=1)


def _in_meeting_scenes(crs: IntArray, window: IntArray, scene: IntArray, guard: int) -> IntArray:
    """Tiles with a known ground whose scene may meet another scene there."""
    known = np.flatnonzero(crs >= 0)
    ends = window[known, :2] + window[known, 2:]
    frame = pd.DataFrame(np.hstack([window[known, :2], -ends]), columns=["top", "left", "bottom", "right"])
    boxes = frame.assign(crs=crs[known]).groupby(scene[known]).min()
    if len(boxes) > MOST_SCENES:
        return known
    first, last = boxes[["top", "left"]].to_numpy(), -boxes[["bottom", "right"]].to_numpy()
    meet = (first[:, None] < last[None] + guard).all(axis=2)
    meet &= meet.T & (boxes["crs"].to_numpy()[:, None] == boxes["crs"].to_numpy())
    np.fill_diagonal(meet, False)
    chosen: IntArray = known[np.isin(scene[known], boxes.index[meet.any(axis=1)])]
    return chosen


def _in_mixed_scene(scene: IntArray, key: IntArray) -> BoolArray:
    """Whether a tile's scene holds tiles of more than one key."""
    n = int(scene.max()) + 1
    low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
    np.minimum.at(low, scene, key)
    np.maximum.at(high, scene, key)
    mixed: BoolArray = (low != high)[scene]
    return mixed
