"""Read tiles with their pixels: windows of aligned scenes, or the ready-made tiles of a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, SensorsConfig, TilesConfig
from tmcnet.raster.inventory.records import SceneRecord
from tmcnet.raster.io.files import BoolArray, ByteArray, FloatArray, pad_to_window
from tmcnet.raster.io.geometry import Box, Grid
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.radiometry import power_to_db, to_db, to_power
from tmcnet.raster.io.reader import Raster, read_grid, read_labels
from tmcnet.raster.io.writer import write_raster
from tmcnet.raster.register.alignment import Residuals
from tmcnet.raster.tiling.speckle import SpeckleFilter
from tmcnet.raster.tiling.unchanged import RECORD
from tmcnet.raster.tiling.warp import stored_dtype, to_dtype
from tmcnet.readers import read_record, reading

_MAX_STRIP_PIXELS = 2_000_000
"""Adjacent tiles are read together up to this number of pixels: most blocks of a file are then read once, and memory
does not grow with the scene."""


@dataclass(frozen=True)
class TileImage:
    """One modality of a tile as its file holds it."""

    values: npt.NDArray[Any]  # C x H x W in the type of the file
    valid: BoolArray  # C x H x W, where there is data
    nodata: float | None  # value that means no data; None for none

    @classmethod
    def of(cls, values: FloatArray, dtype: str, nodata: float | None) -> TileImage:
        """Convert values with NaN for no data to the type of their file (see `to_dtype`)."""
        stored, nodata = to_dtype(values, dtype, nodata)
        return cls(stored, ~np.isnan(values), nodata)


@dataclass(frozen=True)
class CutTile:
    """One tile."""

    name: str
    record: SceneRecord  # the scene or ready-made tile that it comes from
    box: Box  # its window in the scene
    grid: Grid
    images: dict[str, TileImage]  # its modalities in the order of the config
    label: ByteArray  # H x W ids, 255 for void
    folder: Path | None = None  # folder of the rasters of its scene; None for a ready-made tile
    alignment: str = ""  # residual of the registration of its scene in pixels, or empty
    alignment_px: float | None = None  # the same near the tile; None where too few points are near

    @property
    def valid_share(self) -> float:
        """Share of pixels that are valid in all bands of all modalities."""
        return float(np.concatenate([image.valid for image in self.images.values()]).all(axis=0).mean())


def read_ready_made(
    record: SceneRecord, sensors: SensorsConfig, coder: LabelCoder, speckle: SpeckleFilter | None
) -> Iterator[CutTile]:
    """Read a tile that the source comes with: label decoded, backscatter in dB, the SAR image filtered if set."""
    grid, images = record.images["optical"].raster.grid, {}
    for name, image in record.images.items():
        values, clip_db = image.raster.read_all(), sensors[name].clip_db
        if speckle is not None and name == "sar":
            power = speckle.apply_to_edges(to_power(values, image.scale))
            values = power_to_db(power, image.scale, clip_db)
        else:
            values = to_db(values, image.scale, clip_db)
        images[name] = TileImage.of(values, stored_dtype(name, image), image.nodata)
    size = grid.height, grid.width
    label = np.full(size, IGNORE, np.uint8) if record.label is None else coder.read(record.label)
    yield CutTile(record.scene, record, (0, 0, *size), grid, images, label)


def windows(height: int, width: int, tiles: TilesConfig) -> list[Box]:
    """List the windows of the tiles of a scene, row by row; a scene smaller than a tile is padded."""
    rows = offsets(height, tiles.size, tiles.stride, tiles.edge)
    columns = offsets(width, tiles.size, tiles.stride, tiles.edge)
    return [(row, column, tiles.size, tiles.size) for row in rows for column in columns]


def offsets(length: int, size: int, stride: int, edge: Literal["pad", "shift", "drop"]) -> list[int]:
    """List where tiles begin along one side of a scene."""
    if length <= size:
        return [0]
    firsts = list(range(0, length - size + 1, stride))
    if firsts[-1] + size < length and edge != "drop":
        firsts.append(firsts[-1] + stride if edge == "pad" else length - size)
    return firsts


def scene_strips(record: SceneRecord, scenes_root: Path, tiles: TilesConfig) -> list[Callable[[], Iterator[CutTile]]]:
    """Divide an aligned scene into strips of adjacent tiles of about equal size; each is read when it is called."""
    folder = scenes_root / record.scene
    alignment = read_record(folder / RECORD)
    with reading(folder / RECORD):
        rmse = alignment.get("rmse_px")
        scene_rmse = f"{rmse:.6f}" if rmse is not None and alignment["status"] != "rejected" else ""
        residuals = Residuals.of(alignment)
    grid = read_grid(folder / "optical.tif")

    def read(boxes: Sequence[Box]) -> Iterator[CutTile]:
        row, left, height, _ = boxes[0]
        strip = row, left, height, boxes[-1][1] + boxes[-1][3] - left
        images = {name: read_image(folder / f"{name}.tif", strip) for name in record.images}
        label = read_labels(folder / "label.tif", strip)
        for box in boxes:
            columns = slice(box[1] - left, box[1] - left + box[3])
            cut = {n: TileImage(i.values[..., columns], i.valid[..., columns], i.nodata) for n, i in images.items()}
            name, near = f"{record.scene}_r{row}_c{box[1]}", residuals.near(box)
            yield CutTile(name, record, box, grid.window(box), cut, label[..., columns], folder, scene_rmse, near)

    boxes = windows(grid.height, grid.width, tiles)
    n_tiles = max(_MAX_STRIP_PIXELS // tiles.size**2, 1)
    rows = (list(row) for _, row in groupby(boxes, key=lambda box: box[0]))
    pieces = (row[first : first + n_tiles] for row in rows for first in range(0, len(row), n_tiles))
    return [partial(read, piece) for piece in pieces]


def read_image(path: Path, box: Box) -> TileImage:
    """Read a window of an image, which may reach past the edges, in the type of its file."""
    raster = Raster.of(path)
    with raster.open() as opened:
        (part,) = opened.parts(box)
    nodata = raster.files[0].header.nodata[0]
    values, valid = part.values, part.bands_valid
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and nodata is not None:
        return TileImage(pad_to_window(values, box, nodata), pad_to_window(valid, box, False), nodata)
    return TileImage.of(pad_to_window(part.numbers, box, np.nan), values.dtype.name, nodata)


def cut_window(path: Path, box: Box, target: Path, classes: ClassTable | None) -> None:
    """Write a window of a raster of an aligned scene, as `cut_tiles` does; `classes` are those of a label."""
    grid = read_grid(path).window(box)
    if classes is not None:
        write_raster(target, read_labels(path, box), grid, IGNORE, classes=classes)
        return
    image = read_image(path, box)
    write_raster(target, image.values, grid, image.nodata, Raster.of(path).files[0].header.names)
