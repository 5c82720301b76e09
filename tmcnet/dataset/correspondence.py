"""Patches that show the same ground in both views, found from the views' geometry alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CANDIDATES = 32
"""Places tried for each patch before one that overlaps an earlier patch's centre is accepted."""

QUARTER_TURNS = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))
"""From (x, y) of an image turned clockwise by so many quarters, about its centre, back to the image before the turns:
the rows of a 2 x 2 matrix."""

Corner = tuple[int, int]
"""First column and row of a patch."""


@dataclass(frozen=True)
class View:
    """A crop of a tile, resized to a square, flipped, then turned clockwise.

    Attributes:
        top: First row of the crop in the tile.
        left: First column.
        height: Rows of the crop.
        width: Columns of the crop.
        size: Side of the view in pixels.
        flip_x: Left and right are swapped.
        flip_y: Top and bottom are swapped.
        turns: Quarter turns clockwise, 0..3.
    """

    top: int
    left: int
    height: int
    width: int
    size: int
    flip_x: bool = False
    flip_y: bool = False
    turns: int = 0

    @cached_property
    def rows(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Rows of the 2 x 3 matrix from (x, y) of a view pixel to that of a tile pixel, centres at whole numbers.

        Plain numbers: a handful of points goes through them many times faster than through arrays.
        """
        xx, xy, yx, yy = QUARTER_TURNS[self.turns]
        across = self.width / self.size * (-1 if self.flip_x else 1)
        down = self.height / self.size * (-1 if self.flip_y else 1)
        a, b, c, d = across * xx, across * xy, down * yx, down * yy
        centre = (self.size - 1) / 2
        x = self.left + (self.width - 1) / 2 - (a * centre + b * centre)
        y = self.top + (self.height - 1) / 2 - (c * centre + d * centre)
        return (a, b, x), (c, d, y)

    def point_to_tile(self, x: float, y: float) -> tuple[float, float]:
        """Map a view pixel to a tile pixel."""
        (a, b, left), (c, d, top) = self.rows
        return a * x + b * y + left, c * x + d * y + top

    def point_from_tile(self, x: float, y: float) -> tuple[float, float]:
        """Map a tile pixel to a view pixel."""
        (a, b, left), (c, d, top) = self.rows
        if self.turns % 2:
            return (y - top) * (1 / c), (x - left) * (1 / b)
        return (x - left) * (1 / a), (y - top) * (1 / d)

    def to_tile(self, points: FloatArray) -> FloatArray:
        """Map view pixels (n x 2, x and y) to tile pixels."""
        return np.array([self.point_to_tile(*point) for point in points.tolist()])

    def from_tile(self, points: FloatArray) -> FloatArray:
        """Map tile pixels (n x 2, x and y) to view pixels."""
        return np.array([self.point_from_tile(*point) for point in points.tolist()])


def patch_range(first: View, second: View, patch_size: int) -> tuple[Corner, Corner]:
    """Where patches may begin in the first view so that they lie inside both views.

    Both views are aligned with the tile's axes, so the answer is a rectangle.

    Args:
        first: View 1.
        second: View 2.
        patch_size: Side of a patch in pixels of each view.

    Returns:
        Lowest and highest (x, y) of a patch's first pixel in view 1, both inclusive; empty where lowest > highest.
    """
    half = (patch_size - 1) / 2
    far = second.size - 1 - half
    one, other = (first.point_from_tile(*second.point_to_tile(place, place)) for place in (half, far))
    xs, ys = sorted((one[0], other[0])), sorted((one[1], other[1]))
    # A hair of tolerance: the corner of equal views must not be lost to rounding.
    lowest = max(math.ceil(xs[0] - half - 1e-6), 0), max(math.ceil(ys[0] - half - 1e-6), 0)
    last = first.size - patch_size
    highest = min(math.floor(xs[1] - half + 1e-6), last), min(math.floor(ys[1] - half + 1e-6), last)
    return lowest, highest


def draw_patches(
    rng: np.random.Generator,
    first: View,
    second: View,
    patch_size: int,
    count: int,
) -> tuple[IntArray, IntArray]:
    """Draw patches whose centres lie on the same ground in both views, to within half a pixel of view 2.

    As published, the centre of a later patch lies outside earlier patches of view 1 while there is room, and patches
    keep their size in pixels and their axes in each view, whatever its scale. The published code matches pixels of a
    nearest-neighbour index map; here the centres of the patches themselves are matched, which is exact under flips.

    Args:
        rng: Source of the draws.
        first: View 1.
        second: View 2.
        patch_size: Side of a patch in pixels.
        count: Number of patches.

    Returns:
        First pixel (x, y) of each patch in view 1 and in view 2, each count x 2.

    Raises:
        ValueError: If no patch lies inside both views.
    """
    lowest, highest = patch_range(first, second, patch_size)
    if lowest[0] > highest[0] or lowest[1] > highest[1]:
        raise ValueError("no patch lies inside both views")
    last = second.size - patch_size
    above = highest[0] + 1, highest[1] + 1
    corners: list[Corner] = []
    for places in rng.integers(lowest, above, size=(count, CANDIDATES, 2)).tolist():
        corners.append(_first_free(places, corners, patch_size))
    half = (patch_size - 1) / 2
    centres = [second.point_from_tile(*first.point_to_tile(x + half, y + half)) for x, y in corners]
    partners = [[min(max(round(centre - half), 0), last) for centre in point] for point in centres]
    return np.array(corners, np.int64), np.array(partners, np.int64)


def _first_free(places: Sequence[Corner], earlier: Sequence[Corner], patch_size: int) -> Corner:
    """The first place whose centre lies outside the earlier patches; the first of all where there is none."""
    low = -(patch_size // 2)
    high = low + patch_size
    for x, y in places:
        if not any(low <= x - left < high and low <= y - top < high for left, top in earlier):
            return x, y
    return places[0]
