"""Where tiles lie on the ground, as far as the index tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from tmcnet.raster.io.geometry import geocentric

if TYPE_CHECKING:
    from tmcnet.splits.index import IntArray

FloatArray = npt.NDArray[np.float64]

COLUMNS = ("x", "y", "pixel_x", "pixel_y", "pixel_metres")
"""Optional columns of the index: tile centre and sides of a pixel in units of the CRS, side of a pixel in metres."""
CIRCLE = ("lon", "lat", "radius_metres")
"""Further ones, of a circle that holds the tile: centre in degrees, radius in metres."""
NORTH_UP = "north_up"
"""One that comes with them: 1 where rows and columns of the tile run along the axes of its CRS, else 0."""
MOST_SCENES = 2000
"""Among more scenes than these, all tiles are compared on the ground, rather than scenes first."""


@dataclass(frozen=True)
class Ground:
    """Ground of N tiles.

    Attributes:
        crs: N numbers of coordinate reference systems; -1 where tile or pixel size have no known place, or the tile
            is turned against the axes of its CRS and has a circle.
        window: N x 4: row, column, height and width on one grid per CRS, whose pixels are the smallest of the CRS and
            whose rows run south; zeros where the place is not known.
        metres: N sides of a pixel in metres; NaN where not known.
        circle: N x 4: geocentric centre and radius, in metres, of a circle that holds the tile; NaN where not known.
            None where windows tell all: one CRS and no tile turned, or an index that has no circles.
    """

    crs: IntArray
    window: IntArray
    metres: FloatArray
    circle: FloatArray | None = None

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """N flags: tiles that can be compared with those of other scenes, by window or by circle."""
        window = self.crs >= 0
        return window if self.circle is None else window | np.isfinite(self.circle).all(axis=1)

    def only(self, chosen: npt.NDArray[np.bool_]) -> Ground:
        """The ground of the chosen ones (N flags) of the tiles."""
        circle = None if self.circle is None else self.circle[chosen]
        return Ground(self.crs[chosen], self.window[chosen], self.metres[chosen], circle)


def locate(frame: pd.DataFrame, window: IntArray) -> Ground | None:
    """Ground of the tiles of an index; None where no tile has any.

    Pixels are taken to lie north up where the index does not tell.

    Args:
        frame: Rows of the index, with `crs` and the columns of `COLUMNS`, or without any of these; with `NORTH_UP`
            and those of `CIRCLE`, or without.
        window: N x 4: row, column, height and width in the scene, in pixels.
    """
    if not {"crs", *COLUMNS} <= set(frame.columns) or (frame["crs"] == "").all():
        return None
    center = frame[["x", "y"]].to_numpy(np.float64)
    pixel = frame[["pixel_x", "pixel_y"]].to_numpy(np.float64)
    metres = frame["pixel_metres"].to_numpy(np.float64)
    codes, _ = pd.factorize(frame["crs"].astype(str), sort=True)
    known = (frame["crs"] != "").to_numpy() & np.isfinite(center).all(axis=1) & (pixel > 0).all(axis=1)
    if not known.any():
        return None
    crs = np.where(known, codes, -1).astype(np.int64)
    turned = frame[NORTH_UP].to_numpy() == 0 if NORTH_UP in frame else np.zeros(len(frame), bool)
    circle = None
    if set(CIRCLE) <= set(frame.columns) and (turned.any() or (crs[known] != crs[known][0]).any()):
        circle = _circles(frame)
        crs[turned & np.isfinite(circle).all(axis=1)] = -1
    return Ground(crs, _windows(crs, center, pixel, window), metres, circle)


def pixel_side(ground: Ground | None) -> float | None:
    """Side of a pixel in metres, if all tiles have about the same (to 1 %); else None."""
    if ground is None or not np.isfinite(ground.metres).all():
        return None
    low, high = float(ground.metres.min()), float(ground.metres.max())
    return float(np.median(ground.metres)) if 0 < high <= low * 1.01 else None


def near_circles(ground: Ground, scene: IntArray, guard: int) -> IntArray:
    """Pairs of tiles of different scenes that no grid has in common, and whose circles may share ground.

    Windows of different CRSs, or of turned tiles, cannot be compared. So these circles are, which are larger: tiles
    count as too close where the distance between the centres is below the sum of the radii and the guard band.

    Args:
        ground: Where the tiles lie.
        scene: N numbers of scenes.
        guard: Width of the band in pixels; the larger pixels of a pair count.

    Returns:
        M x 2 positions in the index, the smaller first.
    """
    if ground.circle is None:
        return np.empty((0, 2), np.int64)
    band = guard * ground.metres
    chosen = np.flatnonzero(np.isfinite(ground.circle).all(axis=1) & np.isfinite(band))
    chosen = chosen[_of_meeting_scenes(ground.circle[chosen], ground.crs[chosen], scene[chosen], band[chosen])]
    if chosen.size == 0:
        return np.empty((0, 2), np.int64)
    center, radius = ground.circle[chosen, :3], ground.circle[chosen, 3]
    largest = 2 * float(radius.max()) + float(band[chosen].max())
    pairs = chosen[cKDTree(center).query_pairs(largest, output_type="ndarray")]
    a, b = pairs.T
    away = np.linalg.norm(ground.circle[a, :3] - ground.circle[b, :3], axis=1)
    close = away < ground.circle[a, 3] + ground.circle[b, 3] + np.maximum(band[a], band[b])
    close &= (scene[a] != scene[b]) & ((ground.crs[a] != ground.crs[b]) | (ground.crs[a] < 0))
    return np.sort(pairs[close].astype(np.int64, copy=False), axis=1)


def _of_meeting_scenes(circle: FloatArray, crs: IntArray, scene: IntArray, band: FloatArray) -> IntArray:
    """Positions of the tiles whose scene may meet another one with which it has no grid in common."""
    frame = pd.DataFrame(circle, columns=["x", "y", "z", "radius"]).assign(band=band)
    of = frame.groupby([scene, crs], sort=True)
    number, n = of.ngroup().to_numpy(), of.ngroups
    if n > MOST_SCENES:
        return np.arange(len(circle))
    center = of[["x", "y", "z"]].mean().to_numpy()
    frame["reach"] = np.linalg.norm(circle[:, :3] - center[number], axis=1) + circle[:, 3]
    reach, guard = of["reach"].max().to_numpy(), of["band"].max().to_numpy()
    keys = of["band"].first().index
    scenes, codes = (keys.get_level_values(level).to_numpy() for level in (0, 1))
    meet = cdist(center, center) < reach[:, None] + reach + np.maximum(guard[:, None], guard)
    meet &= (scenes[:, None] != scenes) & ((codes[:, None] != codes) | (codes < 0))
    return np.flatnonzero(meet.any(axis=1)[number])


def _circles(frame: pd.DataFrame) -> FloatArray:
    lon, lat, radius = frame[list(CIRCLE)].to_numpy(np.float64).T
    return np.column_stack([geocentric(lon, lat), radius])


def _windows(crs: IntArray, center: FloatArray, pixel: FloatArray, window: IntArray) -> IntArray:
    """Windows on one grid of the smallest pixels of each CRS."""
    result = np.zeros_like(window)
    for code in np.unique(crs[crs >= 0]):
        chosen = crs == code
        unit = pixel[chosen].min(axis=0)
        sides = window[chosen][:, [3, 2]] * pixel[chosen] / unit
        corner = center[chosen] * (1, -1) / unit - sides / 2
        corner -= corner[0]  # grids often begin at half a pixel, where rounding would go either way
        result[chosen] = np.rint(np.hstack([corner[:, ::-1], sides[:, ::-1]])).astype(np.int64)
    return result
