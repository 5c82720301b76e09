"""Tiles with their pixels: cut from scenes on one grid, or taken over as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, SensorsConfig
from tmcnet.config.modalities import REQUIRED
from tmcnet.raster.inventory.records import Record
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.opening import open_raster
from tmcnet.raster.io.rasters import (
    BoolArray,
    Box,
    ByteArray,
    FloatArray,
    Grid,
    inner_window,
    place,
    read_float,
    read_grid,
    read_labels,
    unify_masks,
    values_and_mask,
    write_raster,
)
from tmcnet.raster.register.residuals import Residuals
from tmcnet.raster.tiling.further import read_aligned, read_ready_made
from tmcnet.raster.tiling.grid import RECORD
from tmcnet.raster.tiling.second_sensor import read_ready_made_sar
from tmcnet.raster.tiling.speckle import Speckle
from tmcnet.raster.tiling.warp import to_dtype

_STRIP_PIXELS = 2_000_000
"""Tiles side by side are read together up to about so many pixels: most blocks of a file are then read once, and
memory does not grow with the scene."""


@dataclass(frozen=True)
class Stored:
    """An optical image as a file holds it.

    Attributes:
        values: C x H x W in the type of the file.
        valid: C x H x W, where there is data.
        nodata: Value that means no data in it; None for none.
    """

    values: npt.NDArray[Any]
    valid: BoolArray
    nodata: float | None

    @classmethod
    def of(cls, numbers: FloatArray, dtype: str, nodata: float | None) -> Stored:
        """An image with NaN for no data, in the type of the file it came from, as `to_dtype` gives it."""
        values, nodata = to_dtype(numbers, dtype, nodata)
        return cls(values, ~np.isnan(numbers), nodata)

    def columns(self, chosen: slice) -> Stored:
        """Some columns of it."""
        return replace(self, values=self.values[..., chosen], valid=self.valid[..., chosen])


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes:
        name: Its name.
        record: The scene or ready-made tile it comes from.
        box: Its window in the scene.
        grid: Where its pixels lie.
        optical: The optical image.
        sar: C x H x W, NaN for no data.
        label: H x W ids, 255 for void.
        folder: Folder of the rasters that it is a window of; None for a ready-made one.
        alignment: Residual of the registration of its scene in pixels, or empty.
        alignment_px: Residual of the registration at the tile in pixels; None where too few points tell.
        further: C x H x W of each further modality, NaN for no data.
    """

    name: str
    record: Record
    box: Box
    grid: Grid
    optical: Stored
    sar: FloatArray
    label: ByteArray
    folder: Path | None = None
    alignment: str = ""
    alignment_px: float | None = None
    further: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def valid_share(self) -> float:
        """Share of pixels that are valid in all bands of all modalities."""
        images = [~np.isnan(image) for image in (self.sar, *self.further.values())]
        return float(np.concatenate([self.optical.valid, *images]).all(axis=0).mean())


@dataclass(frozen=True)
class SceneStrip:
    """Tiles of one scene that begin at the same row and lie side by side."""

    record: Record
    folder: Path
    boxes: Sequence[Box]
    alignment: str
    residuals: Residuals

    def read(self) -> Iterator[Tile]:
        """The tiles; every raster is read once for all of them.

        Raises:
            InputError: If a raster cannot be read.
        """
        row, left, height, _ = self.boxes[0]
        strip = row, left, height, self.boxes[-1][1] + self.boxes[-1][3] - left
        optical = read_stored(self.folder / "optical.tif", strip)
        sar = read_float(self.folder / "sar.tif", strip)
        label = read_labels(self.folder / "label.tif", strip)
        further = read_aligned((n for n in self.record.images if n not in REQUIRED), self.folder, strip)
        grid = read_grid(self.folder / "optical.tif")
        for box in self.boxes:
            here = slice(box[1] - left, box[1] - left + box[3])
            yield Tile(
                f"{self.record.scene}_r{row}_c{box[1]}",
                self.record,
                box,
                grid.window(box),
                optical.columns(here),
                sar[..., here],
                label[..., here],
                self.folder,
                self.alignment,
                self.residuals.near(box),
                {name: image[..., here] for name, image in further.items()},
            )


@dataclass(frozen=True)
class ReadyMade:
    """A tile that the source comes with."""

    record: Record
    sensors: SensorsConfig
    coder: LabelCoder
    speckle: Speckle | None

    def read(self) -> Iterator[Tile]:
        """The tile, its label decoded and its backscatter filtered and in dB.

        Raises:
            InputError: If a file cannot be read.
        """
        record = self.record
        image = record.images["optical"]
        with open_raster(image.files[0]) as dataset:
            dtype = dataset.dtypes[0]
        grid = read_grid(image.files[0])
        optical = read_float(image.files, nodata=image.declared_nodata)
        yield Tile(
            record.scene,
            record,
            (0, 0, grid.height, grid.width),
            grid,
            Stored.of(optical, dtype, image.nodata),
            read_ready_made_sar(record, self.sensors, self.speckle),
            self.coder.read(record.label[0]),
            further=read_ready_made(record, self.sensors.others),
        )


def scene_strips(record: Record, scenes_root: Path, boxes: Sequence[Box]) -> list[SceneStrip]:
    """What there is to read of a scene, in pieces of about equal size.

    Args:
        record: The scene.
        scenes_root: Folder of the aligned scenes.
        boxes: Windows of its tiles.
    """
    folder = scenes_root / record.scene
    alignment = json.loads((folder / RECORD).read_text())
    rmse = alignment.get("rmse_px")
    told = f"{rmse:.6f}" if rmse is not None and alignment["status"] != "rejected" else ""
    residuals = Residuals.of(alignment)
    rows: dict[int, list[Box]] = {}
    for box in boxes:
        rows.setdefault(box[0], []).append(box)
    strips = []
    for row in rows.values():
        together = max(_STRIP_PIXELS // (row[0][2] * row[0][3]), 1)
        pieces = (row[first : first + together] for first in range(0, len(row), together))
        strips += [SceneStrip(record, folder, piece, told, residuals) for piece in pieces]
    return strips


def read_stored(path: Path, box: Box) -> Stored:
    """Read a window of an optical image as a file holds it.

    Args:
        path: The raster.
        box: The window; may reach past the edges.

    Raises:
        InputError: If it cannot be read.
    """
    with open_raster(path) as dataset:
        values, valid = values_and_mask(dataset, inner_window(box, dataset.height, dataset.width), None)
        nodata = dataset.nodata
    if values.dtype == np.uint8:
        valid = unify_masks(valid)
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and nodata is not None:
        return Stored(place(values, box, nodata), place(valid, box, False), nodata)
    numbers = values.astype(np.float32)
    numbers[~valid | ~np.isfinite(numbers)] = np.nan
    return Stored.of(place(numbers, box, np.nan), values.dtype.name, nodata)


def cut_window(path: Path, box: Box, target: Path, classes: ClassTable | None) -> None:
    """Write a window of a raster of an aligned scene as the file that a tile of its own would be.

    Args:
        path: The raster.
        box: The window; may reach past the edges.
        target: The file to write.
        classes: The classes, for a label; None for an image.

    Raises:
        InputError: If the raster cannot be read or the file not be written.
    """
    with open_raster(path) as dataset:
        names = [name or "" for name in dataset.descriptions]
    grid = read_grid(path).window(box)
    if classes is not None:
        write_raster(target, read_labels(path, box), grid, IGNORE, classes=classes)
        return
    stored = read_stored(path, box)
    write_raster(target, stored.values, grid, stored.nodata, names)
