"""Checks of the places of the files of a scene or tile: sizes, georeference, overlap and quality masks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tmcnet.errors import Problem, format_names
from tmcnet.raster.inventory.fill import share_of
from tmcnet.raster.inventory.rasters import preview
from tmcnet.raster.inventory.scan import FileSummary, Inspection
from tmcnet.raster.io.files import BoolArray, numpy_type
from tmcnet.raster.io.geometry import Grid, to_pixels

_BIT_FIELDS = {
    "QA_PIXEL": "[0, 1, 2, 3, 4] for fill, dilated cloud, cirrus, cloud and shadow",
    "pixel_qa": "[0, 3, 5] for fill, shadow and cloud",
    "QA60": "[10, 11] for cloud and cirrus",
    "HLS.*Fmask": "[1, 2, 3] for cloud, its surroundings and shadow",
    "MSK_CLASSI": "[0, 1] for cloud and cirrus",
    "state_(1km|500m)": "[0, 1, 2] for cloud, mixed and shadow",
}
"""Names of quality masks that hold bits, in files or bands, and the bits of clouds in them."""
_PROBES_PER_SIDE = 33
_MAX_LATITUDE = 91.0  # pixels of global rasters may be centred on a pole
_MAX_TILE_OFFSET = 0.25  # of the larger side of a tile; flipped rows or columns are a whole side off
_MIN_OVERLAP = 0.5  # share of the scene that every modality must cover


def check_sizes(tile: Inspection) -> None:
    """Add problems and warnings for files of a ready-made tile that differ in size or are on other ground."""
    grids = [(file.name, file.grid) for file in tile.files]
    for name, files in tile.images.items():
        for file in files:
            if file.file.quality and file.file.quality_file.header.georeferenced:
                _check_place_of_mask(tile, name, file)
            elif file.file.quality:
                grids.append((Path(file.file.quality).name, file.file.quality_file.header.grid))
    if len({(grid.height, grid.width) for _, grid in grids}) > 1:
        sizes = ", ".join(f"{name} {grid.width} x {grid.height}" for name, grid in grids)
        remedy = "Tiles are taken pixel by pixel: bring them to one grid, or use `source.layout: scenes`."
        what = f"differs in size from the other files: {sizes}"
        tile.problems.append(Problem(tile.files[0].file.label, what, remedy))
        return
    placed = [file for file in tile.files if file.grid.crs and file.header.georeferenced]
    for file in placed[1:]:
        off = _offset(placed[0].grid, file.grid)
        if not off <= _MAX_TILE_OFFSET * max(file.grid.width, file.grid.height):
            what = "is on other ground than the first file of its tile, or turned or upside down, by its georeference"
            remedy = "Tiles are taken pixel by pixel: correct the file or its place, or use `source.layout: scenes`."
            tile.problems.append(Problem(file.file.label, what, remedy))
        elif off > 1:
            what = f"{file.name}: by its georeference up to {off:.3g} pixels from {placed[0].name}"
            tile.warnings.append(f"{what}; tiles are taken pixel by pixel")


def _offset(grid: Grid, other: Grid) -> float:
    """Largest distance, in pixels along an axis, between the same corners of two rasters of one size."""
    if grid == other:
        return 0.0
    x, y = np.array([0.0, grid.width, 0, grid.width]), np.array([0.0, 0, grid.height, grid.height])
    column, row = to_pixels(grid, other.crs, *(other.transform @ (x, y)))
    return float(max(np.abs(column - x).max(), np.abs(row - y).max()))


def check_georeference(scene: Inspection) -> bool:
    """Whether all files have CRS and transform or control points; adds a problem for each that has not."""
    for file in scene.files:
        if points := file.header.control:
            scene.warnings.append(f"{file.name}: placed by {len(points)} control points")
    without = [file for file in scene.files if not file.grid.crs or not file.header.georeferenced]
    for file in without:
        missing = {"CRS": not file.grid.crs, "geotransform": not file.header.georeferenced}
        what = f"has no {' and '.join(name for name, lacks in missing.items() if lacks)}"
        remedy = "Scenes are warped to a common grid: assign it (`gdal_translate -a_srs EPSG:... -a_ullr ...`)"
        remedy += ", or set `source.crs`." if file.header.georeferenced else "."
        if file.header.has_geolocation:
            what, remedy = f"{what} but geolocation arrays", "Warp it by these first (`gdalwarp -geoloc`)."
        elif missing["CRS"] and (prj := Path(file.file.paths[0]).with_suffix(".prj")).is_file():
            remedy = f"GDAL does not read {prj.name} for this format: `gdal_edit.py -a_srs {prj.name} {file.name}`."
        scene.problems.append(Problem(file.label, what, remedy))
    for file in scene.files:
        if file.grid.is_geographic and max(map(abs, file.grid.bounds[1::2])) > _MAX_LATITUDE:
            what = f"is at latitudes from {file.grid.bounds[1]:g} to {file.grid.bounds[3]:g}"
            remedy = "Exchange x and y (`gdal_edit.py -a_ullr ...`), or assign the CRS that it has."
            scene.problems.append(Problem(file.label, what, remedy))
    return not without


def check_overlap(scene: Inspection) -> None:
    """Measure which share of a scene each file covers; add problems where that is too little, and warnings."""
    grid = scene.grid
    for name, files in scene.images.items():
        share = scene.overlaps[name] = min((coverage(grid, file.grid) for file in files), default=0.0)
        if files and share < _MIN_OVERLAP:
            reference = next(file.name for file in scene.images[scene.reference] if file.grid == grid)
            what = f"covers {share:.0%} of {reference}; at least {_MIN_OVERLAP:.0%} is needed"
            remedy = f"Check that this is the {name} of scene {scene.entry.scene}, and its CRS."
            file = min(files, key=lambda file: coverage(grid, file.grid))
            scene.problems.append(Problem(file.label, what, remedy))
        elif files and share < 1:
            scene.warnings.append(f"{name} covers {share:.1%} of the {scene.reference} image")
        if files and files[0].file.quality:
            _check_mask(scene, name, files[0])
    if scene.label:
        _check_label_overlap(scene, scene.label)


def _check_mask(scene: Inspection, name: str, image: FileSummary) -> None:
    """Check that the quality mask of an image is on its ground, and that it holds codes or bits as declared."""
    _check_place_of_mask(scene, name, image)
    file, header, mask = image.file, image.file.quality_file.header, Path(image.file.quality).name
    layers, kept = preview(file.quality, slice(None if file.quality_bits else 1), remote=file.remote)
    stored = layers[0]
    unknown = np.isnan(stored) | (~kept & (stored != header.nodata[0]) & (not header.alpha))
    if unknown.any():
        what = f"{share_of(unknown):.1%} of the quality mask {mask} is masked itself or NaN"
        scene.warnings.append(f"{what}: no data in {name}, since the quality is not known there")
    codes = np.unique(stored[~unknown])
    bits = next((bits for names, bits in _BIT_FIELDS.items() if re.search(names, f"{mask} {header.names[0]}")), "")
    unlisted = codes[~np.isin(codes, (0, *file.quality_codes))]
    if file.quality_bits:
        width = header.count if header.count > 1 else 8 * numpy_type(header.dtype).itemsize
        if max(file.quality_bits) >= width:
            what = f"the quality mask {mask} has {width} bits, but `mask_bits` names {max(file.quality_bits)}"
            scene.warnings.append(f"{what}; bits are counted from 0")
        if header.count > 1 and layers.max() > 1:
            what = f"has {header.count} bands, which count as bits in a quality mask, but values above 1"
            scene.problems.append(Problem(file.quality, what, "Name a file of the one band (`gdal_translate -b`)."))
    elif bits and unlisted.size:
        what = f"the quality mask {mask} holds bits by its name, so that `mask_codes` misses combinations such as"
        what += f" {unlisted[0]}: give `sensors.{name}.mask_bits`, such as {bits}"
        scene.warnings.append(f"{what}, in place of codes")
    elif not np.isin(codes, file.quality_codes).any():
        what = f"the quality mask of {name} has the codes {format_names(map(str, codes.tolist()))}"
        hint = "; if they are sums of bits, give `mask_bits` instead" if np.median(codes) > 255 else ""
        scene.warnings.append(f"{what}, none of which is in `sensors.{name}.mask_codes`{hint}")
    tagged = stored[stored == header.nodata[0]] if header.count == 1 else stored[:0]
    if tagged.size and not file.is_bad(tagged[None]).any():
        what = f"the quality mask {mask} has its own value of no data, {tagged.flat[0]:g}, where {name} is used: only"
        what += f" listed codes count. Add it to `sensors.{name}.mask_codes` if it means no data, as 0 does in SCL"
        scene.warnings.append(f"{what}; leave it out if it means clear, as 0 does in many cloud masks")
    if header.count > 1 and not file.quality_bits:
        scene.warnings.append(
            f"the quality mask {mask} has {header.count} bands, of which the first is read; `mask_bits` reads all"
        )


def _check_place_of_mask(scene: Inspection, name: str, image: FileSummary) -> None:
    share = coverage(image.grid, image.file.quality_file.header.grid)
    if not share:
        remedy = f"Check that this is the mask of scene {scene.entry.scene}, and its CRS."
        what = f"is the quality mask of {image.name}, but covers 0% of it"
        scene.problems.append(Problem(image.file.quality, what, remedy))
    elif share < 1:
        what = f"the quality mask covers {share:.1%} of the {name} image"
        scene.warnings.append(f"{what}; outside it, code 0 is assumed")


def _check_label_overlap(scene: Inspection, label: FileSummary) -> None:
    """A label may cover any part of a scene, but not nothing of it; the rest is void."""
    share, inside = coverage(scene.grid, label.grid), coverage(label.grid, scene.grid)
    scene.label_overlap = share
    if not share and not inside:
        what = f"covers 0% of {scene.images[scene.reference][0].name}; some ground must be in both"
        remedy = f"Check that this is the label of scene {scene.entry.scene}, and its CRS."
        scene.problems.append(Problem(label.label, what, remedy))
        return
    if share < 1:
        scene.warnings.append(f"label covers {share:.1%} of the {scene.reference} image; the rest is void")
    scene.labelled_share = label.labelled_share
    if label.labelled and label.grid != scene.grid:
        scene.labelled_share = share_of(on_reference(scene, *label.labelled, label.grid))
    if not scene.labelled_share:
        scene.warnings.append("no pixel of the scene has a label")


def on_reference(scene: Inspection, values: BoolArray, step: int, grid: Grid) -> BoolArray:
    """A mask of every `step`-th pixel of a grid, at the pixels of the decimated reference image; False outside."""
    lattice, own = scene.lattices[scene.reference][0], scene.images[scene.reference][0].grid
    if (grid, step) == (own, lattice.step):
        return values
    rows, columns = np.indices(lattice.stored.shape[1:]) * float(lattice.step)
    if grid != own and grid.crs and own.crs:
        columns, rows = to_pixels(grid, own.crs, *(own.transform @ (columns + 0.5, rows + 0.5)))
    row, column = (np.floor(at / step).astype(int) for at in (rows, columns))
    inside = (row >= 0) & (column >= 0) & (row < values.shape[0]) & (column < values.shape[1])
    sampled = np.zeros(inside.shape, bool)
    sampled[inside] = values[row[inside], column[inside]]
    return sampled


def coverage(reference: Grid, other: Grid) -> float:
    """Share of the footprint of one raster that is inside another, from 33 x 33 probes."""
    along = (np.arange(_PROBES_PER_SIDE) + 0.5) / _PROBES_PER_SIDE
    x, y = np.meshgrid(along * reference.width, along * reference.height)
    column, row = to_pixels(other, reference.crs, *(reference.transform @ (x, y)))
    return share_of((column >= 0) & (column <= other.width) & (row >= 0) & (row <= other.height))
