"""Maps of whole scenes of any size as cloud-optimised GeoTIFFs."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, ComputeConfig, MapsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate import polygons
from tmcnet.evaluate.predict import choose_device
from tmcnet.evaluate.trained import Trained
from tmcnet.evaluate.windows import SceneImages, Strip, predict_scene
from tmcnet.raster.io.gdal_tools import require_tools, run_tool
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import data_bands, open_raster, read_grid
from tmcnet.raster.io.writer import write_bytes

__all__ = ["MapWriter", "SceneImages", "map_scenes"]

_COMPRESSED = ("-co", "COMPRESS=DEFLATE", "-co", "BIGTIFF=IF_SAFER")
COLUMNS = ("scene", "path", "confidence", "megapixels", "seconds")


def map_scenes(
    weights: Path,
    scenes: list[SceneImages],
    classes: ClassTable,
    config: MapsConfig,
    compute: ComputeConfig,
    run_name: str,
    maps_root: Path,
    table: Path,
) -> None:
    """Draw the maps of one network: class ids and confidence as cloud-optimised GeoTIFFs, and a table of them.

    Memory grows with the width of a scene, never with its height; polygons alone need a whole map.

    Args:
        weights: The network, as fine-tuning wrote it.
        scenes: What to map.
        classes: The classes of the data at hand, which the network must tell apart.
        config: Window, overlap, batch size, test-time copies, and whether coloured copies and polygons are wanted.
        compute: Threads and accelerator.
        run_name: Name of the run, or of the model in `maps.models`; becomes the name of the files.
        maps_root: Folder with one folder a scene.
        table: CSV to write; paths in it are relative to `maps_root`.

    Raises:
        InputError: If the images of a scene differ in size, an image cannot be read, the network was trained on other
            modalities, bands or classes, or GDAL's tools are missing.
    """
    require_tools(["gdal_translate", *(polygons.TOOLS if config.polygons else ())])
    torch.set_num_threads(compute.finetune_threads)
    trained = Trained.read(weights, choose_device(compute))
    problems = [*_size_problems(scenes), *_fit_problems(weights, trained, scenes, classes)]
    if problems:
        raise InputError(problems)
    rows = []
    for scene in scenes:
        began = time.monotonic()
        ids, sure = (maps_root / scene.name / f"{run_name}{end}.tif" for end in ("", "_confidence"))
        grid = scene.grid
        _map_scene(trained, scene, grid, config, ids, sure)
        megapixels, seconds = grid.width * grid.height / 1e6, time.monotonic() - began
        print(
            f"{run_name}: {scene.name}, {megapixels:.2f} megapixels in {seconds:.1f} s", file=sys.stderr, flush=True
        )
        paths = (str(path.relative_to(maps_root)) for path in (ids, sure))
        rows.append([scene.name, *paths, f"{megapixels:.6f}", f"{seconds:.1f}"])
    _write_table(table, rows)


def _map_scene(trained: Trained, scene: SceneImages, grid: Grid, config: MapsConfig, ids: Path, sure: Path) -> None:
    """Draw one scene: map, confidence, and what else is wanted beside them."""
    coloured, vector = ids.with_name(f"{ids.stem}_rgb.tif"), ids.with_name(f"{ids.stem}.gpkg")
    for earlier in (coloured, vector):
        earlier.unlink(missing_ok=True)  # of an earlier map, and perhaps not wanted any more
    with TemporaryDirectory(prefix=".map_", dir=_folder(ids.parent)) as draft:
        with MapWriter(Path(draft), grid, trained.classes) as writer:
            for strip in predict_scene(trained, scene, config):
                writer.write(strip)
        writer.publish(ids, sure)
        if config.rgb:
            colour = Path(draft) / "rgb.tif"
            run_tool("gdal_translate", "-q", "-of", "COG", *_COMPRESSED, "-expand", "rgb", ids, colour)
            colour.replace(coloured)
    if config.polygons:
        polygons.write_polygons(ids, trained.classes, config.minimum_mapping_unit, vector)


class MapWriter:
    """Writes a map and its confidence strip by strip, then turns both into cloud-optimised GeoTIFFs.

    The finished files appear whole or not at all. Used as a context manager around `write`; `publish` comes after.

    Args:
        folder: Folder for the unfinished files.
        grid: Grid of the scene.
        classes: Their colours become the colour table, their names the tags `CLASS_<id>` and GDAL's category names.
    """

    def __init__(self, folder: Path, grid: Grid, classes: ClassTable) -> None:
        self._classes = classes
        self._drafts = folder / "ids.tif", folder / "confidence.tif"
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "count": 1,
            "height": grid.height,
            "width": grid.width,
            "dtype": "uint8",
            "nodata": IGNORE,
            "crs": grid.crs or None,
            "transform": grid.transform,
            "compress": "deflate",
            "bigtiff": "if_safer",
        }
        self._files = [rasterio.open(path, "w", **profile) for path in self._drafts]
        ids, confidence = self._files
        ids.write_colormap(1, {c.id: (*c.rgb, 255) for c in classes.classes} | {IGNORE: (0, 0, 0, 0)})
        ids.update_tags(1, **{f"CLASS_{c.id}": c.name for c in classes.classes})
        ids.set_band_description(1, "class")
        confidence.set_band_description(1, "confidence in percent")

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def write(self, strip: Strip) -> None:
        """Write finished rows: the likeliest class, and its probability in percent."""
        ids = strip.probabilities.argmax(axis=0)
        percent = np.rint(strip.probabilities.max(axis=0) * 100).clip(0, 100)
        window = Window(0, strip.top, strip.valid.shape[1], strip.valid.shape[0])
        for file, values in zip(self._files, (ids, percent), strict=True):
            file.write(np.where(strip.valid, values, IGNORE).astype(np.uint8), 1, window=window)

    def publish(self, ids: Path, confidence: Path) -> None:
        """Turn the closed drafts into cloud-optimised GeoTIFFs with these names.

        GeoTIFF has no place for category names; GDAL looks for them in `<ids>.aux.xml`.
        """
        # averaging ids would invent classes; in overviews the most frequent one stands for the others
        for draft, target, resampling in zip(self._drafts, (ids, confidence), ("MODE", "AVERAGE"), strict=True):
            cog = draft.with_suffix(".cog.tif")
            run_tool(
                "gdal_translate", "-q", "-of", "COG", *_COMPRESSED, "-co", f"RESAMPLING={resampling}", draft, cog
            )
            cog.replace(target)
        write_bytes(ids.with_name(f"{ids.name}.aux.xml"), _categories(self._classes))


def _categories(classes: ClassTable) -> bytes:
    """The class names as GDAL's persistent auxiliary metadata, as programs show them in legends."""
    root = ElementTree.Element("PAMDataset")
    names = ElementTree.SubElement(ElementTree.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for c in classes.classes:
        ElementTree.SubElement(names, "Category").text = c.name
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8")
    return text + b"\n"


def _size_problems(scenes: Sequence[SceneImages]) -> Iterator[Problem]:
    for scene in scenes:
        grids = [read_grid(path) for path in scene.images.values()]
        if len({(grid.height, grid.width) for grid in grids}) > 1:
            sizes = " and ".join(f"{grid.height} x {grid.width}" for grid in grids)
            yield Problem(f"scene {scene.name}", f"its images differ in size ({sizes})", "Align the scene first.")


def _fit_problems(
    weights: Path, trained: Trained, scenes: Sequence[SceneImages], classes: ClassTable
) -> Iterator[Problem]:
    """What keeps a network from being used on these data; one scene stands for all that differ alike."""
    if trained.classes.names != classes.names:
        what = f"tells apart {trained.classes.names}; the classes here are {classes.names}"
        yield Problem(str(weights), what, "Give a network that was trained on these classes, in this order.")
    for name, sensor in trained.sensors.items():
        bands = sensor.bands
        for scene in scenes:
            count = _bands(scene.images[name]) if name in scene.images else 0
            if count != len(bands):
                what = f"was trained on {len(bands)} bands of `{name}` {bands}; scene {scene.name} has {count}"
                yield Problem(str(weights), what, "Give a network that was trained on the bands of these scenes.")
                break


def _bands(path: Path) -> int:
    with open_raster(path) as dataset:
        return len(data_bands(dataset))


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)
