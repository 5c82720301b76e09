"""Pictures of rasters: read them decimated, colour them, and encode them for the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, SensorConfig
from tmcnet.errors import InputError
from tmcnet.raster.io.radiometry import display_range

Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint8]
Limits = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
Box = tuple[int, int, int, int]
"""A window as (row, col, height, width) in pixels."""

NO_DATA = (238, 238, 238)
RIGHT = (205, 222, 235)
WRONG = (213, 94, 0)
_STRIP_ROWS = 256


def decimate(ids: Ids, max_side: int) -> Ids:
    """Every n-th pixel (H x W), so that no side is longer than `max_side`."""
    step = _step(len(ids), len(ids[0]), max_side)
    return ids[::step, ::step]


def _step(height: int, width: int, max_side: int) -> int:
    return -(-max(height, width) // max_side)


def read_decimated(path: Path, max_side: int, box: Box | None = None) -> Floats:
    """Every n-th pixel of a raster or of a window of it, C x H x W with NaN for no data.

    Reads in strips: the memory does not grow with the height of the raster.
    """
    from tmcnet.raster.io.reader import read_float, read_grid

    grid = read_grid(path)
    top, left, height, width = box or (0, 0, grid.height, grid.width)
    step = _step(height, width, max_side)
    strip = max(_STRIP_ROWS // step, 1) * step
    parts = []
    for row in range(0, height, strip):
        window = (top + row, left, min(strip, height - row), width)
        parts.append(read_float(path, window)[:, ::step, ::step])
    return np.concatenate(parts, axis=1)


def read_decimated_classes(path: Path, max_side: int) -> Ids | None:
    """Every n-th pixel of a raster of class ids or confidences; None without a readable file."""
    if not path.exists():
        return None
    try:
        values = read_decimated(path, max_side)[0]
    except InputError:
        return None
    return np.where(np.isfinite(values), values, IGNORE).astype(np.uint8)


def read_classes(path: Path, box: Box | None = None) -> Ids | None:
    """Class ids or confidences of a window; None without a readable file."""
    from tmcnet.raster.io.reader import read_labels

    if not path.exists():
        return None
    try:
        return read_labels(path, box)
    except InputError:
        return None


def shown_bands(sensor: SensorConfig) -> list[int]:
    """Numbers (from 0) of the bands that pictures of a sensor show: three, or one for grey."""
    if sensor.display:
        return [sensor.bands.index(band) for band in sensor.display]
    return [0, 1, 2] if sensor.kind == "reflectance" and len(sensor.bands) == 3 else [0]


def limits_of(image: Floats) -> Limits:
    """Values of each band (C x H x W) that become black and white; 0 and 1 for bands without data."""
    ranges = [display_range(valid) if len(valid := band[np.isfinite(band)]) else (0.0, 1.0) for band in image]
    bottom, top = np.array(ranges, dtype=np.float32).T
    return bottom, top


def stretch(image: Floats, limits: Limits) -> Rgb:
    """Picture (H x W x 3) of one or three bands (C x H x W); pixels without data become light grey."""
    low, high = (side[:, None, None] for side in limits)
    scaled = np.clip((image - low) / (high - low), 0, 1)
    grey = np.nan_to_num(scaled * 255).astype(np.uint8)
    picture = np.repeat(grey, 3, axis=0) if len(grey) == 1 else grey
    shown: Rgb = np.ascontiguousarray(picture.transpose(1, 2, 0))
    shown[~np.isfinite(image).all(axis=0)] = NO_DATA
    return shown


def paint_classes(ids: Ids, classes: ClassTable) -> Rgb:
    """Picture of class ids (H x W) in the class colours; void and unknown ids become light grey."""
    lookup = np.full((256, 3), NO_DATA, np.uint8)
    for land_cover in classes.classes:
        lookup[land_cover.id] = land_cover.rgb
    return lookup[ids]


def paint_errors(truth: Ids, guess: Ids) -> Rgb:
    """Picture of right (pale blue) and wrong (orange) pixels; light grey where truth or guess is void."""
    known = (truth != IGNORE) & (guess != IGNORE)
    shown: Rgb = np.full((*truth.shape, 3), NO_DATA, np.uint8)
    shown[known & (truth == guess)] = RIGHT
    shown[known & (truth != guess)] = WRONG
    return shown


def paint_confidence(percent: Ids) -> Rgb:
    """Picture of confidence 0..100 (H x W) in steps of 2 % and the colours of `cividis`; 255 becomes light grey."""
    from matplotlib import colormaps

    steps = np.clip(percent, 0, 100) // 2
    values = (colormaps["cividis"](steps / 50)[..., :3] * 255).astype(np.uint8)
    shown: Rgb = np.where((percent == IGNORE)[..., None], np.array(NO_DATA, np.uint8), values)
    return shown


def hex_color(color: Sequence[int]) -> str:
    """`#rrggbb` of red, green and blue in 0..255."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def encode(picture: Rgb, *, photo: bool) -> tuple[bytes, str]:
    """File content and ending of a picture: JPEG for imagery, PNG with few colours for maps."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    if photo:
        image.save(buffer, "JPEG", quality=85, optimize=True)
        return buffer.getvalue(), "jpg"
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue(), "png"


def data_uri(content: bytes, ending: str) -> str:
    """A `data:` address with the content of the file."""
    kind = {"jpg": "jpeg", "png": "png"}[ending]
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def shrink(content: bytes, max_side: int) -> Rgb:
    """Decode a picture file and reduce it to at most `max_side` pixels a side."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        small = image.convert("RGB")
        small.thumbnail((max_side, max_side))
    return np.asarray(small)
