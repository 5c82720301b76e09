"""Bring optical image, SAR image and label of a scene to one grid, registered to each other.

Rasters are worked on a block at a time, those on the way as files: memory does not grow with the scene.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, AlignConfig, LabelsConfig, SensorsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.hashing import file_digest
from tmcnet.raster.inventory.records import Inventory, Record
from tmcnet.raster.io.atomic import write_bytes
from tmcnet.raster.io.form import Form
from tmcnet.raster.io.gdal_tools import require_tools, stack_files
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.opening import open_raster
from tmcnet.raster.io.progress import step, watched
from tmcnet.raster.io.rasters import Grid, read_grid, read_labels
from tmcnet.raster.io.streaming import (
    Part,
    blocks,
    float_blocks,
    is_complete,
    little_cache,
    write_blocks,
    write_draft,
)
from tmcnet.raster.io.windowed import FileImage
from tmcnet.raster.register import alignment_picture, coregister
from tmcnet.raster.register.alignment import Alignment, unmoved
from tmcnet.raster.tiling import further
from tmcnet.raster.tiling.second_sensor import SecondSensor, require_speckle
from tmcnet.raster.tiling.warp import cast, coarser_grid, exact_dtype, fitting_nodata, image_method, warp

RECORD = "alignment.json"
"""Name of the record beside the rasters of an aligned scene."""


@dataclass(frozen=True)
class _Scene:
    """A scene, the grid it comes to lie on, where its files go, and where those on the way."""

    record: Record
    sensors: SensorsConfig
    grid: Grid
    folder: Path
    work: Path
    threads: int

    @property
    def pixels(self) -> int:
        return self.grid.height * self.grid.width


def align_scene(
    inventory: Path,
    scene: str,
    sensors: SensorsConfig,
    labels: LabelsConfig,
    align: AlignConfig,
    folder: Path,
    threads: int = 1,
) -> None:
    """Write `optical.tif`, `sar.tif`, `label.tif`, `alignment.json` and `alignment.png` of a scene.

    The optical image keeps its grid, or gets `align.resolution`. The second sensor is warped to it as delivered,
    matched, and, where the match is believed, warped once more from the delivered file with the correction built
    in, so that it is resampled only once. Further modalities are warped to the same grid as delivered, to
    `<name>.tif`; they are not matched. Backscatter is filtered and averaged in linear power and written in dB,
    clipped. Where only one sensor exists the scene lies on its grid, and the raster of the other is NaN throughout.
    Files on the way take the room of the scene in single precision, twice or three times, beside the results.

    Args:
        inventory: `inventory.json`.
        scene: Name of the scene.
        sensors: Section `sensors` of the config.
        labels: Section `labels`.
        align: Section `align`.
        folder: Where to; is made.
        threads: How many threads filter, resample, compress and match.

    Raises:
        InputError: If a file cannot be read or written, if `align.resolution` leaves nothing of the scene, if a
            speckle filter is wanted of what is no backscatter, or if GDAL's tools are missing or fail.
    """
    require_tools()
    whole = Inventory.read(inventory)
    record = whole.record(scene)
    require_speckle(record, sensors["sar"])
    grid = _common_grid(record, align)
    folder.mkdir(parents=True, exist_ok=True)
    with little_cache(), tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as name:
        job = _Scene(record, sensors, grid, folder, Path(name), threads)
        _write_optical(job)
        _write_label(job, LabelCoder(labels, whole.classes, whole.label_encoding), whole.classes)
        alignment, before, told = _write_sar(job, align)
        further.write_aligned(record, sensors.others, grid, folder, threads)
        record_of = alignment.to_dict() | told | {"digests": scene_digests(folder, sensors)}
        write_bytes(folder / RECORD, (json.dumps(_plain(record_of), indent=1) + "\n").encode())
        optical, delivered, sar = (FileImage(path) for path in (folder / "optical.tif", before, folder / "sar.tif"))
        with step("picture"):
            alignment_picture.draw(optical, delivered, sar, alignment, folder / "alignment.png")


def _common_grid(record: Record, align: AlignConfig) -> Grid:
    native = read_grid((record.images["optical"].files or record.images["sar"].files)[0])
    grid = coarser_grid(native, align.resolution)
    if min(grid.width, grid.height) < 2 <= min(native.width, native.height):
        what = f"is {align.resolution:g}, which leaves {grid.width} x {grid.height} pixels of scene {record.scene}"
        remedy = "It is in units of the scene's CRS: warp a scene in degrees to the CRS of the others first."
        raise InputError(Problem("config key `align.resolution`", what, remedy))
    return grid


def _write_optical(job: _Scene) -> None:
    """The optical image on the common grid; NaN throughout for a scene without."""
    image, bands, target = job.record.images["optical"], job.sensors["optical"].bands, job.folder / "optical.tif"
    if not image.files:
        write_blocks(target, job.grid, Form(len(bands), "float32", math.nan, bands), ())
        return
    native = read_grid(image.files[0])
    path = stack_files(image.files, native, job.work / "optical.vrt")
    nodata = image.declared_nodata
    with step(f"optical image, {job.pixels / 1e6:.1f} megapixels"):
        if native != job.grid:
            form = Form(FileImage(path).shape[0], "float32", math.nan)
            draft = write_draft(job.work / "optical.tif", native, form, float_blocks(path, nodata))
            method = image_method(native, job.grid)
            draft = warp(draft, job.grid, job.work / "optical_warped.tif", method, threads=job.threads)
            path, nodata = draft.path, None
        with open_raster(image.files[0]) as dataset:
            dtype = exact_dtype(dataset.dtypes[0])
        empty = fitting_nodata(dtype, image.nodata, lambda: is_complete(path, nodata))
        form = Form(FileImage(path).shape[0], dtype, empty, bands)
        values = watched(float_blocks(path, nodata), job.pixels, "optical image")
        write_blocks(target, job.grid, form, ((box, cast(v, dtype, empty)) for box, v in values), job.threads)


def _write_label(job: _Scene, coder: LabelCoder, classes: ClassTable) -> None:
    """The label on the common grid; void everywhere for a scene without."""
    target, form = job.folder / "label.tif", Form(1, "uint8", IGNORE, classes=classes)
    if not job.record.label:
        write_blocks(target, job.grid, form, ())
        return
    native = read_grid(job.record.label[0])
    with step("label"):
        parts = _decoded(coder, job.record.label[0], native)
        if native != job.grid:
            draft = write_draft(job.work / "label.tif", native, Form(1, "uint8", IGNORE), parts)
            warped = warp(draft, job.grid, job.work / "label_warped.tif", "near", threads=job.threads).path
            boxes = blocks(job.grid.height, job.grid.width, 1)
            parts = ((box, read_labels(warped, box)[None]) for box in boxes)
        write_blocks(target, job.grid, form, watched(parts, job.pixels, "label"), job.threads)


def _decoded(coder: LabelCoder, path: str, grid: Grid) -> Iterator[Part]:
    """Class ids of a label file; by blocks as for four bands, since colours are packed in wide numbers."""
    for box in blocks(grid.height, grid.width, 4):
        yield box, coder.read(path, box)[None]


def _write_sar(job: _Scene, align: AlignConfig) -> tuple[Alignment, Path, dict[str, object]]:
    """The second sensor on the common grid, registered; NaN throughout for a scene without.

    Returns:
        What was found, where the image as delivered lies, and what else the record tells.
    """
    target, bands = job.folder / "sar.tif", job.sensors["sar"].bands
    form = Form(len(bands), "float32", math.nan, bands)
    if not job.record.images["sar"].files:
        write_blocks(target, job.grid, form, ())
        return unmoved("single_sensor", "only the optical image exists, so there is nothing to register"), target, {}
    sar = SecondSensor(job.record, job.sensors, job.grid, job.work, job.threads)
    delivered = sar.on_grid()
    alignment = _register(job, delivered.path, align)
    image = sar.on_grid(alignment) if alignment.status == "aligned" else delivered
    with step("second sensor written"):
        parts = watched(float_blocks(image.path), job.pixels, "second sensor written")
        write_blocks(target, job.grid, form, parts, job.threads)
    return alignment, delivered.path, {"speckle": asdict(sar.speckle)} if sar.speckle else {}


def _register(job: _Scene, sar: Path, align: AlignConfig) -> Alignment:
    if not job.record.images["optical"].files:
        return unmoved("single_sensor", "only the second sensor exists; the scene lies on its grid as delivered")
    if not align.enabled:
        return unmoved("rejected", "co-registration is switched off")
    with step("matching"):
        return coregister.estimate(FileImage(job.folder / "optical.tif"), FileImage(sar), align, job.threads)


def _plain(value: object) -> object:
    """What JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def scene_digests(folder: Path, modalities: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the rasters of an aligned scene: those of the modalities and `label`."""
    return {name: file_digest(folder / f"{name}.tif") for name in (*modalities, "label")}


def require_scenes(folders: Iterable[Path], names: Sequence[str], threads: int = 1) -> None:
    """Make sure that the rasters of aligned scenes are the ones that their records describe.

    Snakemake watches the records only, since it would hash large rasters once for every file that is made of them.

    Args:
        folders: Folders of aligned scenes, `alignment.json` in each.
        names: The rasters that are needed: modalities and `label`.
        threads: Number of rasters that are read at a time.

    Raises:
        InputError: If rasters are missing or were changed; names all of them.
    """
    recorded = [
        (folder / f"{name}.tif", digests.get(name))
        for folder in folders
        for digests in [json.loads((folder / RECORD).read_text()).get("digests", {})]
        for name in names
    ]
    with ThreadPoolExecutor(threads) as pool:
        problems = [problem for problem in pool.map(lambda raster: _changed(*raster), recorded) if problem]
    if problems:
        raise InputError(problems)


def _changed(path: Path, digest: str | None) -> Problem | None:
    again = "run `snakemake alignment`: it makes missing rasters again and repeats nothing else."
    if not path.exists():
        return Problem(str(path), "does not exist", f"Please {again}")
    if file_digest(path) != digest:
        return Problem(str(path), f"was changed after {RECORD} was written", f"Remove it and {again}")
    return None
