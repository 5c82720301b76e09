"""The second sensor of a scene as delivered, brought to the common grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster.inventory.records import Record
from tmcnet.raster.io.backscatter import power_to_db, to_db, to_power
from tmcnet.raster.io.form import Form
from tmcnet.raster.io.gdal_tools import stack_files
from tmcnet.raster.io.progress import say, step, watched
from tmcnet.raster.io.rasters import FloatArray, Grid, read_float, read_grid
from tmcnet.raster.io.streaming import Draft, Part, float_blocks, write_draft
from tmcnet.raster.io.windowed import FileImage
from tmcnet.raster.register.alignment import Alignment
from tmcnet.raster.tiling.speckle import SAMPLES, Speckle, estimate_looks, looks_of
from tmcnet.raster.tiling.warp import image_method, shifted_grid, warp


def require_speckle(record: Record, sensor: SensorConfig) -> None:
    """Ask whether the speckle filter wanted can be applied to a scene.

    Raises:
        InputError: If its numbers are no backscatter.
    """
    if sensor.speckle != "none" and record.images["sar"].files and record.images["sar"].scale == "none":
        what = f"is `{sensor.speckle}`, but the values of scene {record.scene} are not on a scale of backscatter"
        remedy = "Set it to `none`, or say in `sensors.sar.scale` what the values are: linear, amplitude or db."
        raise InputError(Problem("config key `sensors.sar.speckle`", what, remedy))


def speckle_of_tiles(records: Sequence[Record], sensors: SensorsConfig) -> Speckle | None:
    """The filter for ready-made tiles; None for none.

    One number of looks holds for all of them: a tile has too few squares of homogeneous ground to tell its own.

    Raises:
        InputError: If the numbers of a tile are no backscatter, or a file cannot be read.
    """
    for record in records:
        require_speckle(record, sensors["sar"])
    some = records[:: max(len(records) // SAMPLES**2, 1)]
    powers = (to_power(_values(record), record.images["sar"].scale) for record in some)
    return _filter(sensors["sar"], lambda: looks_of(powers))


def _filter(sensor: SensorConfig, estimate: Callable[[], float]) -> Speckle | None:
    """The filter that the config asks for, with its number of looks or, without one, what is estimated."""
    if sensor.speckle == "none":
        return None
    looks = sensor.looks or estimate()
    say(f"speckle of {looks:.2f} looks")
    return Speckle(sensor.speckle, sensor.speckle_window, looks)


def read_ready_made_sar(record: Record, sensors: SensorsConfig, speckle: Speckle | None) -> FloatArray:
    """The second sensor of a ready-made tile, C x H x W, in dB where it is backscatter; NaN for no data.

    Args:
        record: The tile.
        sensors: Section `sensors` of the config.
        speckle: A filter to apply; at the edges of the tile it takes its means over what is left of its window.

    Raises:
        InputError: If a file cannot be read.
    """
    scale, clip_db, values = record.images["sar"].scale, sensors["sar"].clip_db, _values(record)
    if speckle is None:
        return to_db(values, scale, clip_db)
    rim = speckle.rim
    power = np.pad(to_power(values, scale), ((0, 0), (rim, rim), (rim, rim)), constant_values=np.nan)
    return power_to_db(speckle.apply(power), scale, clip_db)


def _values(record: Record) -> FloatArray:
    return read_float(record.images["sar"].files, nodata=record.images["sar"].declared_nodata)


class SecondSensor:
    """The second sensor in linear power, or in its own values where it is no backscatter, ready to be warped.

    Attributes:
        speckle: The filter that was applied; None for none.
    """

    def __init__(self, record: Record, sensors: SensorsConfig, grid: Grid, work: Path, threads: int) -> None:
        """Read the files, filter speckle, and put what comes of it on the disk.

        Args:
            record: The scene.
            sensors: Section `sensors` of the config.
            grid: The common grid.
            work: Where files on the way go.
            threads: How many threads filter and resample.

        Raises:
            InputError: If a file cannot be read or written.
        """
        files = record.images["sar"].files
        self._scale, self._sensor, self._grid = record.images["sar"].scale, sensors["sar"], grid
        self._nodata, self._work, self._threads = record.images["sar"].declared_nodata, work, threads
        source = read_grid(files[0])
        path = stack_files(files, source, work / "sar.vrt")
        image = FileImage(path, self._nodata)
        self.speckle = _filter(
            sensors["sar"], lambda: estimate_looks(image, lambda values: to_power(values, self._scale))
        )
        form = Form(image.shape[0], "float32", math.nan)
        pixels = source.height * source.width
        with step(f"second sensor read, {pixels / 1e6:.1f} megapixels"):
            parts = watched(self._power(path), pixels, "second sensor read")
            self._draft = write_draft(work / "sar_power.tif", source, form, parts)
        self._method = image_method(source, grid)

    def _power(self, path: Path) -> Iterator[Part]:
        speckle = self.speckle
        for box, values in float_blocks(path, self._nodata, speckle.rim if speckle else 0):
            power = to_power(values, self._scale)
            yield box, speckle.apply(power, self._threads) if speckle else power

    def on_grid(self, alignment: Alignment | None = None) -> Draft:
        """The image on the common grid, resampled once, in dB where it is backscatter; NaN for no data.

        Args:
            alignment: A correction that is built in; None: as delivered.

        Raises:
            InputError: If the disk is full.
        """
        name, grid, nodes = "delivered" if alignment is None else "corrected", self._grid, None
        if alignment is not None and alignment.matrix is not None:
            grid = shifted_grid(grid, alignment.matrix)
        elif alignment is not None:
            nodes = np.array(alignment.nodes)
        between = self._work / "sar_warped.tif"
        with step(f"second sensor as {name}"):
            warped = warp(self._draft, grid, between, self._method, nodes, self._threads)
            draft = write_draft(self._work / f"sar_{name}.tif", self._grid, warped.form, self._shown(warped))
            between.unlink(missing_ok=True)
        return draft

    def _shown(self, warped: Draft) -> Iterator[Part]:
        for box, power in float_blocks(warped.path):
            yield box, power_to_db(power, self._scale, self._sensor.clip_db)
