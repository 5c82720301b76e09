"""Check that alignment kept the valid pixels that the inventory measured, with coarse maps of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.raster.io.files import BoolArray
from tmcnet.raster.io.geometry import Box, Grid, to_pixels

CELLS_PER_SIDE = 32
PROBES_PER_SIDE = 128  # probes of the common grid along each side
MAX_CONTRADICTION = 0.02
"""Largest share of probes on ground that was all valid, or all empty, in the source which may be found otherwise."""
MAX_SHARE_ERROR = 1e-6  # largest difference of valid shares where nothing was resampled


class ValidityMap:
    """Count valid pixels of each band in the cells of a coarse grid over a raster, block by block."""

    def __init__(self, bands: int, height: int, width: int) -> None:
        self._rows = np.arange(height) * CELLS_PER_SIDE // height
        self._columns = np.arange(width) * CELLS_PER_SIDE // width
        self._counts = np.zeros((bands, CELLS_PER_SIDE, CELLS_PER_SIDE), np.int64)

    def add(self, box: Box, valid: BoolArray) -> None:
        """Count a block, C x H x W."""
        row, column, height, width = box
        rows, columns = self._rows[row : row + height], self._columns[column : column + width]
        down, across = (np.flatnonzero(np.diff(cells, prepend=-1)) for cells in (rows, columns))
        if valid.all():
            counts = np.outer(np.diff(down, append=height), np.diff(across, append=width))
        else:
            counts = np.add.reduceat(np.add.reduceat(valid, across, axis=2, dtype=np.int32), down, axis=1)
        self._counts[:, rows[down][:, None], columns[across]] += counts

    @property
    def cells(self) -> list[str]:
        """Valid share of each cell of each band, row by row, as two hexadecimal digits: 00 to ff.

        00 means no pixel at all and ff all of them.
        """
        high, wide = (np.bincount(at, minlength=CELLS_PER_SIDE) for at in (self._rows, self._columns))
        pixels = high[:, None] * wide
        share = np.where(pixels, self._counts / np.maximum(pixels, 1), 0.5)
        coded = np.where(share == 0, 0, np.where(share == 1, 255, np.clip(np.rint(share * 255), 1, 254)))
        return [band.astype(np.uint8).tobytes().hex() for band in coded]


class ValidityProbe:
    """Compare the valid pixels of an aligned raster, block by block, with those that were measured in its source.

    On the grid of the source the shares must be equal. On another grid only pixels are compared that show ground
    which was all valid, or all empty, in the source: resampling fills or widens small gaps.
    """

    def __init__(
        self, shares: Sequence[float], cells: Sequence[str], source: Grid, target: Grid, resampled: bool
    ) -> None:
        self._shares, self._exact = shares, not resampled
        self._counts, self._size = np.zeros(len(shares), np.int64), target.height * target.width
        self._rows, self._columns = (
            np.unique(((np.arange(PROBES_PER_SIDE) + 0.5) * side / PROBES_PER_SIDE).astype(int))
            for side in (target.height, target.width)
        )
        column, row = np.meshgrid(self._columns + 0.5, self._rows + 0.5)
        at = to_pixels(source, target.crs, *(target.transform @ (column, row)))
        coded = np.stack([np.frombuffer(bytes.fromhex(band), np.uint8) for band in cells])
        coded = coded.reshape(-1, CELLS_PER_SIDE, CELLS_PER_SIDE)
        self._measured = _sure_shares(coded, at[1] / source.height, at[0] / source.width)
        self._found = np.full(self._measured.shape, np.nan, np.float32)

    def add(self, box: Box, valid: BoolArray) -> None:
        """Look at a block of the aligned raster, C x H x W."""
        row, column, height, width = box
        if self._exact:
            self._counts += valid.sum(axis=(1, 2))
            return
        rows = slice(*np.searchsorted(self._rows, (row, row + height)))
        columns = slice(*np.searchsorted(self._columns, (column, column + width)))
        self._found[:, rows, columns] = valid[:, self._rows[rows] - row][:, :, self._columns[columns] - column]

    def contradictions(self) -> list[tuple[int, float, float]]:
        """Bands, from 0, that have data elsewhere than the source, with the shares measured there and found here."""
        if self._exact:
            pairs = zip(self._shares, self._counts / self._size, strict=True)
            found = [(band, share, float(now)) for band, (share, now) in enumerate(pairs)]
            return [one for one in found if abs(one[1] - one[2]) > MAX_SHARE_ERROR]
        result = []
        for band, (measured, now) in enumerate(zip(self._measured, self._found, strict=True)):
            sure = np.isfinite(measured)
            if sure.any() and np.mean(measured[sure] != now[sure]) > MAX_CONTRADICTION:
                result.append((band, float(measured[sure].mean()), float(now[sure].mean())))
        return result


def _sure_shares(
    shares: npt.NDArray[np.uint8], down: npt.NDArray[np.float64], across: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """1 or 0 at places, from 0 to 1 in the source, whose cell and all its neighbours are full or empty, else NaN."""
    low, high = (pick(shares, (1, 3, 3), mode="nearest") for pick in (ndimage.minimum_filter, ndimage.maximum_filter))
    sure = np.where(low == 255, 1, np.where(high == 0, 0, np.nan)).astype(np.float32)
    inside = (down >= 0) & (down < 1) & (across >= 0) & (across < 1)
    rows, columns = (np.where(inside, at * CELLS_PER_SIDE, 0).astype(int) for at in (down, across))
    return np.where(inside, sure[:, rows, columns], np.nan).astype(np.float32)
