"""Virtual rasters: mosaics of the tiles of one scene, and a CRS for files without one.

They are small text files below the results that name the files of the source; no pixel is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from tmcnet.errors import InputError, Problem
from tmcnet.raster.inventory.sample_sheet import Entry
from tmcnet.raster.inventory.scan import FileSummary, read_metadata
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.reader import data_bands, open_raster

_MAX_GRID_OFFSET_PX = 0.05
"""GDAL silently moves tiles to the grid of the first; a larger offset is an error."""

Rectangle: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the first tile."""


def check_crs(crs: str | None) -> None:
    """Check `source.crs`.

    Raises:
        InputError: If it is no coordinate reference system.
    """
    try:
        CRS.from_user_input(crs or "EPSG:4326")
    except CRSError:
        what = f"is `{crs}`, which is no coordinate reference system"
        raise InputError(Problem("config key `source.crs`", what, "Write it like `EPSG:32633`.")) from None


def with_virtual_files(
    entry: Entry, declared: Mapping[str, float | None], crs: str | None, coder: LabelCoder | None, folder: Path
) -> Entry:
    """Write the virtual rasters that a scene needs, and name them in place of patterns and files.

    Where tiles of a mosaic overlap, the last by name is on top, except for its pixels without data. Pixels that no
    tile covers are no data: the declared value, else that of the files, else NaN in floating-point files; in label
    files a code that is no class.

    Args:
        entry: The scene; patterns of the sample sheet have their tiles in `members`.
        declared: Value that means no data, by modality; None: as in the files.
        crs: CRS of files without one. None: such files are unchanged.
        coder: The label codes; None where there are no labels.
        folder: Folder of the scene's virtual rasters; made only if there are any.

    Returns:
        The scene with virtual rasters in place of patterns, and of files that got a CRS.

    Raises:
        InputError: If a file cannot be opened, or the tiles of a mosaic differ in CRS, bands, type of numbers, pixel
            grid or value of no data, or leave gaps for which no value means no data; names all of them.
    """
    problems: list[Problem] = []
    named: dict[str, tuple[Path, ...]] = {}
    members: dict[Path, tuple[Path, ...]] = {}
    given = {**entry.images, "label": entry.label}
    for kind, paths in given.items():
        for number, path in enumerate(paths, start=1):
            vrt = folder / f"{kind}_{number}.vrt"
            files = entry.members.get(path, (path,))
            try:
                if path in entry.members:
                    _mosaic(_Mosaic(kind, path, files, declared.get(kind), coder), crs, vrt)
                elif not (crs and _assign_crs(path, crs, vrt)):
                    vrt = path
            except InputError as error:
                problems += error.problems
            named[kind] = (*named.get(kind, ()), vrt)
            if vrt != path:
                members[vrt] = files
    if problems:
        raise InputError(problems)
    images = {name: named.get(name, ()) for name in entry.images}
    return replace(entry, images=images, label=named.get("label", ()), members=members)


def _assign_crs(path: Path, crs: str, vrt: Path) -> bool:
    """Write a virtual raster with the CRS, unless the file has one."""
    with open_raster(path) as dataset:
        if dataset.crs:
            return False
        count, chosen = dataset.count, data_bands(dataset)
    bands = [part for band in chosen for part in ("-b", str(band))]
    alpha = ["-mask", str(count)] if len(chosen) < count else []
    vrt.parent.mkdir(parents=True, exist_ok=True)
    run_tool("gdal_translate", "-q", "-of", "VRT", "-a_srs", crs, *bands, *alpha, path.resolve(), vrt)
    return True


@dataclass(frozen=True)
class _Mosaic:
    """Tiles that become one raster."""

    kind: str
    pattern: Path
    files: tuple[Path, ...]
    declared: float | None
    coder: LabelCoder | None

    def empty_value(self, first: FileSummary) -> float | None:
        """Value of pixels that no tile covers; None where none means no data."""
        if self.kind == "label":
            return self.coder.empty_code(first.dtype, first.nodata) if self.coder else None
        if self.declared is not None or first.nodata is not None:
            return first.nodata if self.declared is None else self.declared
        return float("nan") if np.dtype(first.dtype).kind == "f" else None

    def transparent_value(self, empty: float | None) -> float | str:
        """Value at which the tile below shows through. In colours one band alone does not mean no data."""
        colours = self.kind == "label" and self.coder is not None and self.coder.encoding == "rgb"
        return "None" if empty is None or colours else empty


def _mosaic(mosaic: _Mosaic, crs: str | None, vrt: Path) -> None:
    found = [read_metadata(path) for path in mosaic.files]
    problems = [problem for one in found[1:] for problem in _differences(one, found[0], mosaic)]
    for one in found:
        if one.grid.transform.b or one.grid.transform.d or one.grid.transform.e >= 0:
            remedy = f"Warp the tiles of `{mosaic.pattern.name}` to a grid that runs east and north (`gdalwarp`)."
            problems.append(Problem(str(one.path), "is a turned tile of a mosaic, or upside down", remedy))
    empty = mosaic.empty_value(found[0])
    if not problems and empty is None and _has_gaps([_rectangle(one.grid, found[0].grid) for one in found]):
        what = "matches tiles with gaps between them, and no value means no data"
        remedy = f"Declare `sensors.{mosaic.kind}.nodata`"
        remedy += f", or `{mosaic.kind}_nodata` in the sample sheet." if mosaic.kind in ("optical", "sar") else "."
        if mosaic.kind == "label":
            remedy = "Name a code that means no label in `labels.void`, or add the missing tiles."
        problems.append(Problem(str(mosaic.pattern), what, remedy))
    if problems:
        raise InputError(problems)
    assigned = ("-a_srs", crs) if crs and not found[0].grid.crs else ()
    nodata = ("-srcnodata", mosaic.transparent_value(empty), "-vrtnodata", "None" if empty is None else empty)
    vrt.parent.mkdir(parents=True, exist_ok=True)
    files = [one.path.resolve() for one in found]
    run_tool("gdalbuildvrt", "-q", "-strict", *assigned, *nodata, vrt, *files)


def _differences(one: FileSummary, first: FileSummary, mosaic: _Mosaic) -> list[Problem]:
    """Reasons why a file cannot be a tile of the same mosaic as the first."""
    side, first_side = ((grid.transform.a, grid.transform.e) for grid in (one.grid, first.grid))
    same = {
        "CRS": one.grid.crs == first.grid.crs,
        f"number of bands ({one.bands}, not {first.bands})": one.bands == first.bands,
        f"type of numbers ({one.dtype}, not {first.dtype})": one.dtype == first.dtype,
        "pixel size": np.allclose(side, first_side, rtol=1e-6, atol=0),
        "value of no data": mosaic.declared is not None or _equal(one.nodata, first.nodata),
    }
    other = [name for name, equal in same.items() if not equal]
    if not other and any(abs(s - round(s)) > _MAX_GRID_OFFSET_PX for s in _rectangle(one.grid, first.grid)):
        other = ["pixel grid: it is between its pixels"]
    if not other:
        return []
    what = f"is mosaicked with {first.path.name} but has another {' and '.join(other)}"
    remedy = f"Bring the tiles of `{mosaic.pattern.name}` to one, or narrow the pattern."
    return [Problem(str(one.path), what, remedy)]


def _equal(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and np.isnan(one) and np.isnan(other))


def _rectangle(grid: Grid, first: Grid) -> Rectangle:
    left, top = ~first.transform @ (grid.transform.c, grid.transform.f)
    return left, top, left + grid.width, top + grid.height


def _has_gaps(rectangles: Sequence[Rectangle]) -> bool:
    """Whether the tiles leave a pixel of the rectangle around them uncovered."""
    sides = np.rint(rectangles).astype(int)
    columns, rows = np.unique(sides[:, ::2]), np.unique(sides[:, 1::2])
    covered = np.zeros((len(rows) - 1, len(columns) - 1), bool)
    for left, top, right, bottom in sides:
        inside = np.s_[np.searchsorted(rows, top) : np.searchsorted(rows, bottom)]
        covered[inside, np.searchsorted(columns, left) : np.searchsorted(columns, right)] = True
    return not bool(covered.all())
