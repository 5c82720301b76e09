"""Read rasters of any size at the few pixels that a page can show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tmcnet.config import IGNORE
from tmcnet.errors import InputError
from tmcnet.report.pictures import Ids

Box = tuple[int, int, int, int]
_STRIP = 256


def step_of(height: int, width: int, longest: int) -> int:
    """How many pixels of a raster stand behind one of its picture, a side."""
    return -(-max(height, width) // longest)


def thin(ids: Ids, longest: int) -> Ids:
    """Every n-th pixel (H x W), so that no side is longer than `longest`."""
    height, width = ids.shape
    step = step_of(height, width, longest)
    return ids[::step, ::step]


def read_thinned(path: Path, longest: int, box: Box | None = None) -> npt.NDArray[np.float32]:
    """Every n-th pixel of a raster or of a window of it, C x H x W with NaN for no data; read in strips."""
    from tmcnet.raster.io.reader import read_float, read_grid

    grid = read_grid(path)
    top, left, height, width = box or (0, 0, grid.height, grid.width)
    step = step_of(height, width, longest)
    strip = max(_STRIP // step, 1) * step
    parts = []
    for row in range(0, height, strip):
        window = (top + row, left, min(strip, height - row), width)
        parts.append(read_float(path, window)[:, ::step, ::step])
    return np.concatenate(parts, axis=1)


def read_thinned_classes(path: Path, longest: int) -> Ids | None:
    """Every n-th pixel of a raster of class ids or confidences; None where there is no readable file."""
    if not path.exists():
        return None
    try:
        values = read_thinned(path, longest)[0]
    except InputError:
        return None
    return np.where(np.isfinite(values), values, IGNORE).astype(np.uint8)


def read_classes(path: Path, box: Box | None = None) -> Ids | None:
    """Class ids or confidences of a window; None where there is no readable file."""
    from tmcnet.raster.io.reader import read_labels

    if not path.exists():
        return None
    try:
        return read_labels(path, box)
    except InputError:
        return None
