"""Bring the images and the label of a scene to one grid, with the SAR image registered to the optical one.

Rasters are read and written in blocks, and intermediate results are files, so memory does not grow with the scene.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, AlignConfig, LabelsConfig, SensorsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster.inventory.records import Inventory, SceneRecord
from tmcnet.raster.io.blocks import block_windows, limited_cache, log_duration, log_progress
from tmcnet.raster.io.files import joined
from tmcnet.raster.io.gdal_tools import require_tools
from tmcnet.raster.io.geometry import Grid, residual_px
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.radiometry import power_to_db, to_power
from tmcnet.raster.io.reader import Raster, label_blocks
from tmcnet.raster.io.validity import ValidityProbe
from tmcnet.raster.io.windowed import sample_windows
from tmcnet.raster.io.writer import Block, Draft, RasterProfile, write_blocks, write_bytes, write_draft
from tmcnet.raster.register import estimate, picture
from tmcnet.raster.register.alignment import Alignment
from tmcnet.raster.tiling.speckle import (
    SAMPLE_SIDE_PX,
    SAMPLES_PER_SIDE,
    SpeckleFilter,
    make_filter,
    require_backscatter,
)
from tmcnet.raster.tiling.unchanged import RECORD, scene_digests
from tmcnet.raster.tiling.warp import (
    cast,
    choose_method,
    choose_nodata,
    misregistered_grid,
    rescaled_grid,
    stored_dtype,
    warp_to_grid,
)


@dataclass(frozen=True)
class _Job:
    record: SceneRecord
    sensors: SensorsConfig
    grid: Grid
    folder: Path
    work: Path
    threads: int

    @property
    def pixels(self) -> int:
        return self.grid.height * self.grid.width

    @property
    def sar_as_delivered(self) -> Path:
        """The SAR image on the common grid without correction, which is registered."""
        return self.work / "sar_delivered.tif"


def align_scene(
    inventory: Path,
    scene: str,
    sensors: SensorsConfig,
    labels: LabelsConfig,
    align: AlignConfig,
    folder: Path,
    threads: int = 1,
    settings: str = "",
) -> None:
    """Write `<modality>.tif` of all modalities, `label.tif`, `alignment.json` and `alignment.png` of a scene.

    The optical image keeps its grid, or gets `align.resolution`. The other modalities and the label are warped to
    this grid as delivered. The SAR image is then registered to the optical one and, if the correction is accepted,
    warped again from the delivered file with the correction built in, so that it is resampled only once. Backscatter
    is filtered and averaged in linear power and written in dB, clipped. A modality that the scene lacks is NaN
    throughout; a scene without optical image keeps the grid of its SAR image. Intermediate files need two to three
    times the space of the scene in single precision, beside the results in `folder`. `settings` is a hash of the
    settings of the job, for the record (see `require_same_settings`).

    Raises:
        InputError: If a file cannot be read or written, if `align.resolution` leaves less than two pixels a side, if
            a speckle filter is set for values that are not backscatter, or if GDAL's tools are missing or fail.
    """
    require_tools()
    whole = Inventory.read(inventory)
    record = whole.record(scene)
    require_backscatter(record, sensors["sar"])
    grid = _common_grid(record, align)
    folder.mkdir(parents=True, exist_ok=True)
    with limited_cache(), tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as work:
        job = _Job(record, sensors, grid, folder, Path(work), threads)
        _write_label(job, LabelCoder(labels, whole.classes, whole.label_encoding), whole.classes)
        alignment, speckle = _write_images(job, align)
        content = alignment.to_dict() | ({"speckle": asdict(speckle)} if speckle else {})
        if residuals := _control_residuals(record):
            content["control_points"] = residuals
        content |= {"digests": scene_digests(folder, sensors)} | ({"settings": settings} if settings else {})
        # NaN and infinity, which JSON does not have, become null
        content = json.loads(json.dumps(content), parse_constant=lambda _: None)
        write_bytes(folder / RECORD, (json.dumps(content, indent=1) + "\n").encode())
        optical, after = (Raster.of(folder / f"{name}.tif") for name in ("optical", "sar"))
        before = Raster.of(job.sar_as_delivered) if alignment.status == "aligned" else after
        with log_duration("picture"):
            picture.draw(optical, before, after, alignment, folder / "alignment.png")


def _control_residuals(record: SceneRecord) -> dict[str, list[dict[str, float]]]:
    """Number of control points of files that have them for georeference, and how well they agree, by modality."""
    return {
        name: [{"n_points": len(control), "rmse_px": round(residual_px(control), 4)} for control in controls]
        for name, image in record.images.items()
        if (controls := [layer.control for layer in image.raster.layers() if layer.control])
    }


def _common_grid(record: SceneRecord, align: AlignConfig) -> Grid:
    native = record.images["optical" if record.images["optical"].files else "sar"].raster.grid
    is_same = (native.height, native.width, native.crs) == (record.height, record.width, record.crs)
    is_same &= np.allclose(native.bounds, record.bounds, rtol=0, atol=0.01 * native.pixel_size)
    bands = [(len(i.valid_shares), i.raster.shape[0]) for i in record.images.values() if i.valid_shares]
    if not is_same or any(before != now for before, now in bands):
        what = "has files of another size, place or number of bands than in the inventory"
        remedy = "Run the same command again: the inventory is taken again if files have changed."
        raise InputError(Problem(f"scene {record.scene}", what, remedy))
    grid = rescaled_grid(native, align.resolution)
    if min(grid.width, grid.height) < 2 <= min(native.width, native.height):
        what = f"is {align.resolution:g}, which leaves {grid.width} x {grid.height} pixels of scene {record.scene}"
        remedy = "It is in units of the scene's CRS: warp a scene in degrees to the CRS of the others first."
        raise InputError(Problem("config key `align.resolution`", what, remedy))
    return grid


def _write_label(job: _Job, coder: LabelCoder, classes: ClassTable) -> None:
    """Write the label on the common grid; void everywhere for a scene without label."""
    target, profile = job.folder / "label.tif", RasterProfile(1, "uint8", IGNORE, classes=classes)
    if job.record.label is None:
        write_blocks(target, job.grid, profile, ())
        return
    source, native = job.record.label, job.record.label.grid
    with log_duration("label"):
        # blocks as for four bands, since colours are packed in wide numbers
        boxes = block_windows(native.height, native.width, 4)
        blocks: Iterator[Block] = ((box, coder.read(source, box)[None]) for box in boxes)
        if native != job.grid or source.control:
            draft = write_draft(job.work / "label.tif", native, RasterProfile(1, "uint8", IGNORE), blocks)
            path, points = job.work / "label_warped.tif", source.control
            warped = warp_to_grid(draft, job.grid, path, "near", threads=job.threads, control=points).path
            blocks = ((box, ids[None]) for box, ids in label_blocks(warped))
        write_blocks(target, job.grid, profile, log_progress(blocks, job.pixels, "label"), job.threads)


def _write_images(job: _Job, align: AlignConfig) -> tuple[Alignment, SpeckleFilter | None]:
    """Write every modality; return the registration of the SAR image and the speckle filter applied to it."""
    alignment = Alignment("single_sensor", "only the optical image exists, so there is nothing to register")
    speckle = None
    for name, sensor in job.sensors.items():
        if not job.record.images[name].files:
            profile = RasterProfile(len(sensor.bands), "float32", math.nan, sensor.bands)
            write_blocks(job.folder / f"{name}.tif", job.grid, profile, ())
            continue
        with log_duration(f"{name} image"), tempfile.TemporaryDirectory(dir=job.work) as work:
            image = _SourceImage(job, name, Path(work))
            rasters = image.on_grid()
            # The SAR image alone is filtered against speckle, and registered: to the optical one, which comes first.
            if name == "sar":
                alignment, speckle = _register(job, align, image, rasters), image.speckle
                rasters = image.on_grid(alignment) if alignment.status == "aligned" else rasters
            image.write(rasters)
    return alignment, speckle


def _register(job: _Job, align: AlignConfig, image: _SourceImage, rasters: Sequence[Raster]) -> Alignment:
    if not job.record.images["optical"].files:
        return Alignment("single_sensor", "only the SAR image exists; the scene keeps its grid as delivered")
    if not align.enabled:
        return Alignment("rejected", "co-registration is switched off")
    image.write_draft(rasters, job.sar_as_delivered)
    with log_duration("registration"):
        optical, sar = Raster.of(job.folder / "optical.tif"), Raster.of(job.sar_as_delivered)
        return estimate(optical, sar, align, job.threads)


class _SourceImage:
    """One modality of a scene, ready to be brought to the common grid as delivered or with a correction."""

    def __init__(self, job: _Job, name: str, work: Path) -> None:
        self._job, self._name, self._work = job, name, work
        self._record, self._sensor = job.record.images[name], job.sensors[name]
        self._layers = self._record.raster.layers()
        self._count = self._record.raster.shape[0]
        samples = (sample_windows(layer, SAMPLES_PER_SIDE, SAMPLE_SIDE_PX) for layer in self._layers)
        windows = (to_power(window, self._record.scale) for windows in samples for window in windows)
        self.speckle = make_filter(self._sensor, windows)
        self._drafts: dict[int, Draft] = {}
        self._is_checked = False

    def on_grid(self, alignment: Alignment | None = None) -> list[Raster]:
        """Bring the image to the common grid in one resampling at most; replaces the rasters of an earlier call.

        These are to be stacked, backscatter in linear power: one for each group of files on one grid.
        """
        common, nodes, grid = self._job.grid, None, self._job.grid
        if alignment is not None and alignment.matrix is not None:
            grid = misregistered_grid(common, alignment.matrix)
        elif alignment is not None:
            nodes = np.array(alignment.nodes)
        rasters = []
        for number, layer in enumerate(self._layers):
            if alignment is None and self._is_in_place(layer) and self._record.scale == "none":
                rasters.append(layer)
                continue
            method = choose_method(layer.grid, common)
            warped = self._work / f"{self._name}_{number}_warped.tif"
            draft = warp_to_grid(self._linear(number), grid, warped, method, nodes, self._job.threads, layer.control)
            rasters.append(Raster.of(draft.path))
        return rasters

    def _is_in_place(self, layer: Raster) -> bool:
        return layer.grid == self._job.grid and not layer.control

    def _linear(self, number: int) -> Draft:
        """A layer on its own grid, filtered and in linear power, in which pixels may be averaged; written once."""
        if number not in self._drafts:
            layer = self._layers[number]
            count, height, width = layer.shape
            blocks = log_progress(self._powers(layer), height * width, f"{self._name} read")
            profile = RasterProfile(count, "float32", math.nan)
            self._drafts[number] = write_draft(self._work / f"{self._name}_{number}.tif", layer.grid, profile, blocks)
        return self._drafts[number]

    def _powers(self, layer: Raster) -> Iterator[Block]:
        speckle = self.speckle
        for box, values in layer.blocks(speckle.rim if speckle else 0):
            power = to_power(values, self._record.scale)
            yield box, speckle.apply(power, self._job.threads) if speckle else power

    def _decibels(self, rasters: Sequence[Raster]) -> Iterator[Block]:
        """Blocks of rasters on the common grid, stacked, backscatter in dB."""
        grid = self._job.grid
        with ExitStack() as stack:
            opened = [stack.enter_context(raster.open()) for raster in rasters]
            for box in block_windows(grid.height, grid.width, self._count):
                power = joined([raster.read(box) for raster in opened])
                yield box, power_to_db(power, self._record.scale, self._sensor.clip_db)

    def _checked(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Pass on blocks; compare the valid pixels of the first image, as delivered, with those of the inventory."""
        if self._is_checked or not self._record.valid_cells:
            yield from blocks
            return
        probes, first, record = [], 0, self._record
        for layer in self._layers:
            bands = slice(first, first + layer.shape[0])
            measured = record.valid_shares[bands], record.valid_cells[bands]
            probes.append((bands, ValidityProbe(*measured, layer.grid, self._job.grid, not self._is_in_place(layer))))
            first = bands.stop
        for box, values in blocks:
            yield box, values
            for bands, probe in probes:
                probe.add(box, ~np.isnan(values[bands]))
        problems = []
        for bands, probe in probes:
            for band, before, now in probe.contradictions():
                what = f"{self._name} band {self._sensor.bands[bands.start + band]}: {before:.2%} of the pixels are "
                what += f"valid by the inventory, {now:.2%} on the same ground after alignment"
                remedy = "Remove inventory.json and run again; if this remains, write no data as a nodata tag."
                problems.append(Problem(f"scene {self._job.record.scene}", what, remedy))
        if problems:
            raise InputError(problems)
        self._is_checked = True

    def write_draft(self, rasters: Sequence[Raster], path: Path) -> None:
        """Write rasters on the common grid as an intermediate file, backscatter in dB."""
        profile = RasterProfile(self._count, "float32", math.nan)
        write_draft(path, self._job.grid, profile, self._checked(self._decibels(rasters)))

    def write(self, rasters: Sequence[Raster]) -> None:
        """Write rasters on the common grid as the result, backscatter in dB."""
        dtype = stored_dtype(self._name, self._record)
        nodata = choose_nodata(dtype, self._record.nodata, lambda: self._is_complete(rasters))
        profile = RasterProfile(self._count, dtype, nodata, self._sensor.bands)
        blocks = self._checked(self._decibels(rasters))
        values = log_progress(blocks, self._job.pixels, f"{self._name} written")
        parts = ((box, cast(v, dtype, nodata)) for box, v in values)
        write_blocks(self._job.folder / f"{self._name}.tif", self._job.grid, profile, parts, self._job.threads)

    def _is_complete(self, rasters: Sequence[Raster]) -> bool:
        """Whether every pixel of every band is valid; of rasters as delivered the inventory has counted them."""
        if rasters == self._layers:
            return min(self._record.valid_shares) == 1
        return not any(np.isnan(values).any() for raster in rasters for _, values in raster.blocks())
