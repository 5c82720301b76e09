"""Where tiles lie on the ground, as far as the index tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

if TYPE_CHECKING:
    from tmcnet.dataset.index import IntArray

COLUMNS = ("x", "y", "pixel_x", "pixel_y", "pixel_metres")
"""Optional columns of the index: tile centre and sides of a pixel in units of the CRS, side of a pixel in metres."""


@dataclass(frozen=True)
class Ground:
    """Ground of N tiles.

    Attributes:
        crs: N numbers of coordinate reference systems; -1 where tile or pixel size have no known place.
        window: N x 4: row, column, height and width on one grid per CRS, whose pixels are the smallest of the CRS and
            whose rows run south; zeros where the place is not known.
        metres: N sides of a pixel in metres; NaN where not known.
    """

    crs: IntArray
    window: IntArray
    metres: npt.NDArray[np.float64]


def locate(frame: pd.DataFrame, window: IntArray) -> Ground | None:
    """Ground of the tiles of an index; None where no tile has any.

    Pixels are taken to lie north up.

    Args:
        frame: Rows of the index, with `crs` and the columns of `COLUMNS`, or without any of these.
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
    return Ground(crs, _windows(crs, center, pixel, window), metres)


def pixel_side(ground: Ground | None) -> float | None:
    """Side of a pixel in metres, if all tiles have about the same (to 1 %); else None."""
    if ground is None or not np.isfinite(ground.metres).all():
        return None
    low, high = float(ground.metres.min()), float(ground.metres.max())
    return float(np.median(ground.metres)) if 0 < high <= low * 1.01 else None


def _windows(
    crs: IntArray, center: npt.NDArray[np.float64], pixel: npt.NDArray[np.float64], window: IntArray
) -> IntArray:
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
