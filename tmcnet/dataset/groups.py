"""Groups of tiles that stay together in one part, and tiles of different groups that come too close."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from tmcnet.config import SplitsConfig
from tmcnet.dataset.index import BoolArray, IntArray, TileIndex


@dataclass(frozen=True)
class Groups:
    """Which tiles belong together.

    Attributes:
        of: N numbers of groups.
        names: Name of each group: a scene, a value of the column, or `<scene>_r<row>_c<col>` of a block.
        places: G x 3 for blocks: number of the scene, row and column of the block's first pixel; else None.
        noun: What a group is, for messages.
    """

    of: IntArray
    names: list[str]
    places: IntArray | None
    noun: str


def group_tiles(index: TileIndex, config: SplitsConfig) -> Groups:
    """Group tiles by block, scene or value of a column, as `config.method` says; `given` uses blocks."""
    if config.method == "scenes":
        return Groups(index.scene, index.scenes, None, "scenes")
    if config.method == "column" and index.field is not None:
        codes, values = pd.factorize(index.field, sort=True)
        return Groups(codes.astype(np.int64), [str(v) for v in values], None, f"values of `{config.column}`")
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
    names = [f"{index.scenes[scene]}_r{r}_c{c}" for scene, r, c in places.tolist()]
    return Groups(of.astype(np.int64), names, places, "blocks")


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

    Args:
        index: The tiles.
        key: N numbers; only pairs that differ in it are wanted.
        guard: Width of the band in pixels.

    Returns:
        M x 2 positions in the index, sorted.
    """
    chosen = np.flatnonzero(_in_mixed_scene(index.scene, key))
    if chosen.size == 0:
        return np.empty((0, 2), np.int64)
    row, col, height, width = index.window[chosen].T
    # Two windows can only be close if their centres are; the distance in units of the largest reach is then below 1.
    reach = max(int(height.max()), int(width.max())) + guard
    points = np.stack(
        [index.scene[chosen] * 4.0, (2 * row + height) / (2 * reach), (2 * col + width) / (2 * reach)], 1
    )
    pairs = cKDTree(points).query_pairs(1.0, p=np.inf, output_type="ndarray").astype(np.int64, copy=False)
    pairs = pairs[key[chosen[pairs[:, 0]]] != key[chosen[pairs[:, 1]]]]
    a, b = pairs.T
    close = (
        (row[a] < row[b] + height[b] + guard)
        & (row[b] < row[a] + height[a] + guard)
        & (col[a] < col[b] + width[b] + guard)
        & (col[b] < col[a] + width[a] + guard)
    )
    found = np.sort(chosen[pairs[close]], axis=1)
    ordered: IntArray = found[np.lexsort((found[:, 1], found[:, 0]))]
    return ordered


def _in_mixed_scene(scene: IntArray, key: IntArray) -> BoolArray:
    """Whether a tile's scene holds tiles of more than one key."""
    n = int(scene.max()) + 1
    low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
    np.minimum.at(low, scene, key)
    np.maximum.at(high, scene, key)
    mixed: BoolArray = (low != high)[scene]
    return mixed
