"""Images read window by window, so that memory does not grow with the scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.config import IGNORE
from tmcnet.raster.io.files import ByteArray, FloatArray, inner_window, pad_to_window
from tmcnet.raster.io.geometry import Box, interpolated

Points: TypeAlias = npt.NDArray[np.float64]  # N x 2, x and y in pixels; pixel centres are whole numbers
PointMap: TypeAlias = Callable[[Points], Points]
"""From points on the common grid to the points of another image on that grid that show the same content."""

MAX_STRIP_PIXELS = 4_000_000  # pixels of the full image read at a time while it is reduced or decimated


class Image(Protocol):
    """An image that can be read by windows, such as `tmcnet.raster.io.reader.Raster`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C x H x W."""

    def read(self, row: int, col: int, height: int, width: int) -> FloatArray:
        """C x height x width; NaN for no data and outside the image."""


@dataclass(frozen=True)
class ArrayImage:
    """An image in memory, C x H x W with NaN for no data."""

    array: FloatArray

    @property
    def shape(self) -> tuple[int, int, int]:
        """C x H x W."""
        bands, height, width = self.array.shape
        return bands, height, width

    def read(self, row: int, col: int, height: int, width: int) -> FloatArray:
        """A window; a copy."""
        box = row, col, height, width
        rows, columns = inner_window(box, *self.array.shape[1:]).toslices()
        return pad_to_window(self.array[:, rows, columns].astype(np.float32), box, np.nan)


@dataclass(frozen=True)
class Reduced:
    """Means of the valid pixels of each block of `scale` x `scale` of an image; NaN where there are none."""

    image: Image
    scale: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """C x H x W; incomplete blocks at the right and lower edges are dropped."""
        bands, height, width = self.image.shape
        return bands, height // self.scale, width // self.scale

    def read(self, row: int, col: int, height: int, width: int) -> FloatArray:
        """A window."""
        s = self.scale
        return block_means(self.image.read(row * s, col * s, height * s, width * s), s)


@dataclass(frozen=True)
class Warped:
    """An image resampled through a map: its pixel p shows what `image` has at `where(p)`."""

    image: Image
    where: PointMap

    @property
    def shape(self) -> tuple[int, int, int]:
        """C x H x W, as the image."""
        return self.image.shape

    def read(self, row: int, col: int, height: int, width: int) -> FloatArray:
        """A window, interpolated linearly."""
        x, y = interpolated(self._mapped, row, col, height, width)
        left, top = int(np.floor(x.min())) - 1, int(np.floor(y.min())) - 1
        wide, high = int(np.ceil(x.max())) + 2 - left, int(np.ceil(y.max())) + 2 - top
        source = self.image.read(top, left, high, wide)
        at = np.stack([y - top, x - left])
        bands = [ndimage.map_coordinates(b, at, order=1, cval=np.nan, output=np.float32) for b in source]
        return np.stack(bands)

    def _mapped(self, x: Points, y: Points) -> tuple[Points, Points]:
        """`where`, from places that count from the outer corner of the first pixel."""
        mapped = self.where(np.stack([x, y], -1) - 0.5)
        return mapped[:, 0], mapped[:, 1]


def block_means(image: FloatArray, scale: int) -> FloatArray:
    """Mean of the valid pixels of each block of `scale` x `scale` pixels; C x H x W, NaN where there are none."""
    if scale == 1:
        return image
    bands, height, width = image.shape
    rows, cols = height // scale, width // scale
    blocks = image[:, : rows * scale, : cols * scale].reshape(bands, rows, scale, cols, scale)
    valid = np.isfinite(blocks)
    count = valid.sum(axis=(2, 4))
    total = np.where(valid, blocks, 0.0).sum(axis=(2, 4))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def as_image(image: FloatArray | Image) -> Image:
    """Wrap an array, C x H x W or H x W, as an image; return an image unchanged."""
    if not isinstance(image, np.ndarray):
        return image
    return ArrayImage(np.asarray(image if image.ndim == 3 else image[None], dtype=np.float32))


def decimate(image: Image, step: int, box: Box | None = None) -> FloatArray:
    """Every `step`-th row and column of an image or of a window of it, C x h x w, read a strip at a time."""
    top, left, height, width = box or (0, 0, *image.shape[1:])
    scale = image.scale if isinstance(image, Reduced) else 1
    rows = max(1, MAX_STRIP_PIXELS // (width * step * scale * scale)) * step
    strips = (image.read(top + row, left, min(rows, height - row), width) for row in range(0, height, rows))
    return np.concatenate([strip[:, ::step, ::step].copy() for strip in strips], axis=1)


def decimate_ids(image: Image, step: int, box: Box | None = None) -> ByteArray:
    """`decimate` for a raster with class ids in its first band: h x w, 255 for no data."""
    return np.asarray(np.nan_to_num(decimate(image, step, box)[0], nan=IGNORE), dtype=np.uint8)


def in_memory(image: Image) -> ArrayImage:
    """Load the whole image, a strip at a time."""
    return image if isinstance(image, ArrayImage) else ArrayImage(decimate(image, 1))


def sample_windows(image: Image, per_side: int, side_px: int) -> Iterator[FloatArray]:
    """Read windows spread all over an image, C x H x W each: `per_side` along each side, if it is large enough."""
    sides = [min(side_px, length) for length in image.shape[1:]]
    rows, columns = (
        np.unique(np.linspace(0, length - side, per_side).astype(int))
        for length, side in zip(image.shape[1:], sides, strict=True)
    )
    return (image.read(int(row), int(column), *sides) for row in rows for column in columns)
