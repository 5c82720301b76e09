"""Patches that show the same ground in both views, found from the views' geometry alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CANDIDATES = 32
"""Places tried for each patch before one that overlaps an earlier patch's centre is accepted."""

QUARTER_TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])
"""From (x, y) of an image turned clockwise by 90 degrees, about its centre, back to the image before the turn."""


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
    def matrix(self) -> FloatArray:
        """2 x 3: from (x, y) of a view pixel to (x, y) of a tile pixel, pixel centres at whole numbers."""
        flip = np.diag([-1.0 if self.flip_x else 1.0, -1.0 if self.flip_y else 1.0])
        scale = np.diag([self.width / self.size, self.height / self.size])
        linear = scale @ flip @ np.linalg.matrix_power(QUARTER_TURN, self.turns)
        centre = np.full(2, (self.size - 1) / 2)
        middle = np.array([self.left + (self.width - 1) / 2, self.top + (self.height - 1) / 2])
        return np.column_stack([linear, middle - linear @ centre])

    def to_tile(self, points: FloatArray) -> FloatArray:
        """Map view pixels (n x 2, x and y) to tile pixels."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    def from_tile(self, points: FloatArray) -> FloatArray:
        """Map tile pixels (n x 2, x and y) to view pixels."""
        return (points - self.matrix[:, 2]) @ np.linalg.inv(self.matrix[:, :2]).T


def patch_range(first: View, second: View, patch_size: int) -> tuple[IntArray, IntArray]:
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
    extremes = np.array([[half, half], [second.size - 1 - half] * 2])
    seen = first.from_tile(second.to_tile(extremes)) - half
    # A hair of tolerance: the corner of equal views must not be lost to rounding.
    lowest = np.maximum(np.ceil(seen.min(axis=0) - 1e-6), 0).astype(np.int64)
    highest = np.minimum(np.floor(seen.max(axis=0) + 1e-6), first.size - patch_size).astype(np.int64)
    return lowest, highest


def draw_patches(
    rng: np.random.Generator, first: View, second: View, patch_size: int, count: int
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
    if (lowest > highest).any():
        raise ValueError("no patch lies inside both views")
    half = (patch_size - 1) / 2
    corners = np.empty((count, 2), np.int64)
    for index in range(count):
        tries = rng.integers(lowest, highest + 1, size=(CANDIDATES, 2))
        inside = tries[:, None, :] + patch_size // 2 - corners[None, :index, :]
        taken = np.any(np.all((inside >= 0) & (inside < patch_size), axis=2), axis=1)
        corners[index] = tries[np.argmin(taken)]
    partners = second.from_tile(first.to_tile((corners + half).astype(np.float64))) - half
    return corners, np.clip(np.rint(partners), 0, second.size - patch_size).astype(np.int64)
