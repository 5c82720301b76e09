"""Vector files: labels as a raster of codes on a given grid, and areas of interest as a mask or a window."""

from __future__ import annotations

import itertools
import json
import math
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from rasterio.features import rasterize
from rasterio.transform import Affine

from tmcnet.config import LabelsConfig
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.io.blocks import block_windows
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.geometry import Box, Grid, geocentric, pixel_area, reproject_points, to_pixels
from tmcnet.raster.io.opening import files_of
from tmcnet.raster.io.writer import Block, RasterProfile, write_blocks
from tmcnet.raster.names import require_file

NO_CODE = -(2**31)  # means no label in the raster of codes
CORNERS = 64  # corners of the polygon in place of a circle around a point; its area is smaller by 0.2 %
_MAX_EDGE_DEGREES, _MAX_EDGE_M = 0.01, 1000.0  # of polygons, so that they leave no pixel where these are bent
_WHOLE_TURN = 360 - 1e-6  # degrees from which a feature is all around the globe
_MAX_LONGITUDE = 540.0  # more than a turn beyond the antimeridian is no longitude
_EXTENT = re.compile(r"^Extent: [(](\S+), \S+[)] - [(](\S+),", re.MULTILINE)
Points: TypeAlias = npt.NDArray[np.float64]
_Layer: TypeAlias = tuple[str, str]  # its name, and what `ogrinfo` prints about it


class _Shape(NamedTuple):
    """A part of a geometry."""

    kind: str  # `Point`, `LineString` or `Polygon`
    lines: list[list[list[float]]]  # its rings, its line or its point, N x 2 each; as lists, which rasterio takes


@dataclass(frozen=True)
class _Features:
    """Polygons in the CRS of the grid, in the order of the file; left, bottom, right, top of each; and its code."""

    shapes: list[dict[str, Any]]
    boxes: Points
    codes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, polygons: Sequence[_Shape], codes: Sequence[int]) -> _Features:
        corners = [np.array(list(itertools.chain(*polygon.lines))) for polygon in polygons]
        boxes = np.array([[*c.min(axis=0), *c.max(axis=0)] for c in corners]).reshape(-1, 4)
        # three corners without the first again are no ring to rasterio
        rings = ([line if line[0] == line[-1] else [*line, line[0]] for line in one.lines] for one in polygons)
        return cls([{"type": "Polygon", "coordinates": of_one} for of_one in rings], boxes, np.array(codes, np.int64))

    def between_centres(self, grid: Grid) -> int:
        """Number of polygons on a grid whose bounding box contains no centre of a pixel."""
        corners = ~grid.transform @ (self.boxes[:, [0, 2, 0, 2]], self.boxes[:, [1, 1, 3, 3]])
        low, high = (np.stack([pick(side, axis=1) for side in corners]) for pick in (np.min, np.max))
        inside = (high > 0) & (low < [[grid.width], [grid.height]])
        return int((inside.all(axis=0) & (np.ceil(low - 0.5) > np.floor(high - 0.5)).any(axis=0)).sum())


def rasterise_labels(path: Path | str, labels: LabelsConfig, grid: Grid, out: Path) -> tuple[list[str], bool]:
    """Write the features of a vector file as a raster of codes, tagged with `NO_CODE` for no label.

    A pixel gets the code of the last feature in which its centre is. Points and lines count as far as
    `labels.buffer`. An attribute is a code, or the name of a class; values that no class has are errors. Returns
    warnings of what gives no label, or several, and whether features name their class in place of giving a code.
    """
    layer = _find_layer(path)
    rows, codes, by_name = read_label_features(path, labels, grid, layer)
    features = _polygons(path, labels, grid, rows, codes)
    dtype = "int32" if np.abs(features.codes).max(initial=0) < -NO_CODE else "int64"
    n_labelled = n_overlapping = 0

    def parts() -> Iterator[Block]:
        nonlocal n_labelled, n_overlapping
        for box in block_windows(grid.height, grid.width, 4):
            codes, several = _burn(features, grid, box)
            n_labelled += int((codes != NO_CODE).sum())
            n_overlapping += int(several.sum())
            yield box, codes[None].astype(dtype)

    write_blocks(out, grid, RasterProfile(1, dtype, NO_CODE), parts())
    if not n_labelled:
        raise _off_scene(path, len(rows))
    n_small, n_without = features.between_centres(grid), codes.count(None)
    n_unusable = _count_unusable(path, layer, labels.buffer)
    unusable = "features whose geometry is missing, empty, not finite or without area: no label"
    counts = {
        f"features of different classes overlap on {n_overlapping} label pixels": n_overlapping,
        f"{n_small} label polygons lie between the centres of pixels: no label": n_small,
        f"{Path(path).name} has {n_unusable} {unusable}": n_unusable,
        f"{n_without} label features have no `{labels.attribute}`: void": n_without,
    }
    return [text for text, count in counts.items() if count], by_name


def read_label_features(
    path: Path | str, labels: LabelsConfig, grid: Grid, layer: _Layer | None = None
) -> tuple[list[dict[str, Any]], list[int | None], bool]:
    """Read the features of a vector file near a grid, their codes, and whether any names its class.

    Raises:
        InputError: If there is none, or the file, its layers or its attribute cannot be used.
    """
    rows = _read(path, grid, labels.buffer, layer)
    if labels.encoding != "ids":
        remedy = "Set `labels.encoding: ids` and give each class its `codes`."
        raise InputError(Problem(str(path), "is a vector file, but `labels.encoding` is `rgb`", remedy))
    if rows and not any(labels.attribute in row["properties"] for row in rows):
        attributes = format_names({name for row in rows for name in row["properties"]}) or "none"
        what = f"has no attribute `{labels.attribute}`; its attributes are {attributes}"
        raise InputError(Problem(str(path), what, "Name the one that gives the class as `labels.attribute`."))
    codes, by_name = _codes(path, labels, [row["properties"].get(labels.attribute) for row in rows])
    if not rows:
        raise _off_scene(path, 0)
    return rows, codes, by_name


def _off_scene(path: Path | str, n_near: int) -> InputError:
    what = f"has no feature on the scene ({n_near} features near it)"
    return InputError(Problem(str(path), what, "Check that this is the label of the scene, and its CRS."))


def read_attributes(path: Path) -> dict[str, set[str]]:
    """Values, as text, of each attribute of the features of a vector file; empty ones are left out."""
    values: dict[str, set[str]] = {}
    for row in _read(path, Grid("EPSG:4326", Affine.identity(), 1, 1)):
        for name, value in row["properties"].items():
            text = "" if value is None else str(value).strip()
            values.setdefault(name, set()).update({text} if text else ())
    return values


def rasterise_area(path: Path, grid: Grid, out: Path) -> None:
    """Write the polygons of a vector file, in any CRS, as a mask: 1 where the centre of a pixel is in one, else 0."""
    shapes = [shape for row in _read(path, grid, 0) for shape in row["shapes"]]
    shapes = [shape for shape in shapes if shape.kind == "Polygon"]
    features = _Features.of(shapes, [1] * len(shapes))

    def parts() -> Iterator[Block]:
        for box in block_windows(grid.height, grid.width, 4):
            yield box, (_burn(features, grid, box)[0] == 1).astype(np.uint8)[None]

    write_blocks(out, grid, RasterProfile(1, "uint8"), parts())


def area_window(path: Path, grid: Grid, margin_m: float, step: int = 1) -> Box | None:
    """The window of a raster with CRS that contains the features of a vector file and a margin; None if none is near.

    The margin is in metres, or in pixels if the CRS has no unit of length; the window starts at multiples of `step`.
    """
    shapes = [shape for row in _read(path, grid) for shape in row["shapes"]]
    if not shapes:
        raise InputError(Problem(str(path), "has no feature", "Draw the polygons that you want mapped."))
    x, y = np.array([point for shape in shapes for line in shape.lines for point in line]).T
    columns, rows = to_pixels(grid, grid.crs, x, y)
    square_metres = pixel_area(grid)
    margin = margin_m / math.sqrt(square_metres) if square_metres else margin_m
    (left, right), (top, bottom) = (
        (max(0, math.floor((places.min() - margin) / step) * step), min(length, math.ceil(places.max() + margin)))
        for places, length in ((columns, grid.width), (rows, grid.height))
    )
    return (top, left, bottom - top, right - left) if top < bottom and left < right else None


def _find_layer(path: Path | str) -> _Layer:
    """Find the layer with places of a vector file: its name, empty if it has none, and what GDAL says about it."""
    require_file(Path(path))
    try:
        printed = run_tool("ogrinfo", "-ro", "-so", "-al", path)
    except InputError:
        if not files_of(path):
            raise
        remedy = "Write a GeoTIFF and name that: `gdal_translate -b 1 IN OUT.tif`, three times `-b` for colours."
        raise InputError(Problem(str(path), "holds rasters, no features", remedy)) from None
    about = re.split(r"^Layer name: ", printed, flags=re.MULTILINE)[1:]
    layers = {layer.partition("\n")[0]: layer for layer in about if "\nGeometry: None\n" not in layer}
    if len(layers) > 1:
        what = f"has {len(layers)} layers: {format_names(layers)}"
        raise InputError(Problem(str(path), what, "Keep the one that is meant (`ogr2ogr OUT IN LAYER`)."))
    return next(iter(layers.items()), ("", ""))


def _count_unusable(path: Path | str, layer: _Layer, buffer_m: float) -> int:
    """Number of features of a layer whose geometry is missing, empty, not finite, or a polygon without area."""
    name = layer[0].replace("\\", "\\\\").replace('"', '\\"')
    unusable = "NOT (OGR_GEOM_AREA > 0 AND OGR_GEOM_AREA < 1e300)"  # NaN is neither
    if buffer_m:  # points and lines count; their text takes longer
        words = "".join(f" OR OGR_GEOM_WKT LIKE '%{word}%'" for word in ("EMPTY", "nan", "inf"))
        unusable += f" AND (OGR_GEOMETRY IS NULL OR OGR_GEOMETRY = '' OR OGR_GEOMETRY LIKE '%POLYGON%'{words})"
    query = f'SELECT OGR_GEOM_AREA FROM "{name}" WHERE {unusable}'
    # COUNT(*) ignores conditions on these fields
    return run_tool("ogrinfo", "-ro", "-q", "-dialect", "OGRSQL", "-sql", query, path).count("\nOGRFeature(")


def _read(
    path: Path | str, grid: Grid, buffer_m: float | None = None, layer: _Layer | None = None
) -> list[dict[str, Any]]:
    """Read features as GeoJSON in the CRS of a grid, with their `shapes` of one part each.

    With a buffer, these are the ones near the grid, and longitudes count modulo 360 degrees.
    """
    name, about = layer or _find_layer(path)
    in_degrees = re.search(r"\bGEOG(CRS|CS)\[", about) and not re.search(r"\bPROJ(CRS|CS)\[", about)
    extent = _EXTENT.search(about)
    west, east = map(float, extent.groups()) if in_degrees and extent else (0.0, 0.0)
    if max(abs(west), abs(east)) > _MAX_LONGITUDE:
        what = f"has coordinates from {west:g} to {east:g}, but its CRS is in degrees of longitude and latitude"
        remedy = "Assign its real CRS (`ogr2ogr -a_srs EPSG:... OUT.gpkg IN`); GeoJSON without one is in degrees."
        raise InputError(Problem(str(path), what, remedy))
    if east - west > 180:
        for row in _features(path, name):
            for shape in _simple(row["geometry"]):
                _require_cut(path, shape)
    box = None if buffer_m is None else _near(buffer_m, grid)
    is_near = box is not None and west >= -180 and east <= 180 and _is_within_turn(grid, box)
    limits = ("-spat", *box, "-spat_srs", grid.crs) if box is not None and is_near else ()
    # straight edges are bent in another CRS
    max_edge = _MAX_EDGE_DEGREES if in_degrees else _MAX_EDGE_M
    rows = _features(path, name, "-preserve_fid", "-segmentize", max_edge, "-t_srs", grid.crs, *limits)
    if not str(path).lower().endswith((".geojson", ".json")):  # where numbers of features may have any order
        rows.sort(key=lambda row: row.get("id", 0))  # an index of places, as in a GeoPackage, gives another order
    for row in rows:
        shapes = list(_simple(row["geometry"]))
        row["shapes"] = [t for s in shapes for t in _turned(path, s, box)] if box and grid.is_geographic else shapes
    return rows


def _features(path: Path | str, layer: str, *options: str | float) -> list[dict[str, Any]]:
    """Convert features to GeoJSON by options of ogr2ogr."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "features.geojson"
        form = ("-f", "GeoJSON", "-lco", "COORDINATE_PRECISION=9", "-dim", "XY")
        try:
            run_tool("ogr2ogr", *form, *options, table, path, *filter(None, [layer]))
        except InputError as error:
            if not re.search("no coordinate system|coordinate operations", str(error)):
                raise
            remedy = "Add it: the .prj of a Shapefile, or `ogr2ogr -a_srs EPSG:... OUT IN`."
            raise InputError(Problem(str(path), "has no CRS", remedy)) from None
        try:
            rows: list[dict[str, Any]] = json.loads(table.read_text(encoding="utf-8"))["features"]
        except UnicodeDecodeError:
            remedy = "Name it in a file beside the Shapefile: `echo ISO-8859-1 > NAME.cpg`; or save as a GeoPackage."
            raise InputError(Problem(str(path), "has text whose encoding is not known", remedy)) from None
    return [row for row in rows if row["geometry"]]


def _require_cut(path: Path | str, shape: _Shape) -> tuple[float, float]:
    """Longitudes of the ends of a shape in degrees; refuse one that may cross the 180th meridian uncut."""
    longitudes = [longitude for line in shape.lines for longitude, _ in line]
    west, east = min(longitudes), max(longitudes)
    if 180 < east - west < _WHOLE_TURN:
        what = f"has a feature from longitude {west:g} to {east:g}, which means all between if it is not cut at 180"
        raise InputError(Problem(str(path), what, "Cut it (`ogr2ogr -wrapdateline OUT IN`)."))
    return west, east


def _near(buffer_m: float, grid: Grid) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of the ground near a grid."""
    left, bottom, right, top = grid.bounds
    margin_x, margin_y = _radii(buffer_m, grid) + 0.05 * np.array([right - left, top - bottom])
    return left - margin_x, bottom - margin_y, right + margin_x, top + margin_y


def _is_within_turn(grid: Grid, box: Sequence[float]) -> bool:
    """Whether a box around a grid is on one side of the 180th meridian, where ogr2ogr finds features in it."""
    left, bottom, right, top = box
    if grid.is_geographic:
        return left >= -180 and right <= 180
    x, y = np.array([[left, right, left, right], [bottom, bottom, top, top]])
    return bool(np.ptp(reproject_points(grid.crs, "EPSG:4326", x, y)[0]) < 180)


def _turned(path: Path | str, shape: _Shape, box: Sequence[float]) -> Iterator[_Shape]:
    """A shape in degrees, moved by each number of turns that brings it into a box; as it is if none does."""
    west, east = _require_cut(path, shape)
    first, last = math.ceil((box[0] - east) / 360), math.floor((box[2] - west) / 360)
    for turns in range(first, last + 1) or (0,):
        moved = ([[x + 360.0 * turns, y] for x, y in line] for line in shape.lines)
        yield _Shape(shape.kind, list(moved)) if turns else shape


def _codes(path: Path | str, labels: LabelsConfig, values: Sequence[object]) -> tuple[list[int | None], bool]:
    """Codes from the values of the attribute, None for an empty one, and whether a value is the name of a class."""
    code_of = {str(code): code for code in labels.void}
    for of_class in labels.classes:
        code_of |= {str(code): code for code in of_class.codes} | {of_class.name: of_class.codes[0]}
    names = [of_class.name for of_class in labels.classes]
    spellings = Counter(map(_folded, names))
    folded = {_folded(name): name for name in names if spellings[_folded(name)] == 1}

    def as_key(text: str) -> str:
        number = text if text in code_of else text.removesuffix(".0")  # numbers may be stored as real ones
        return number if number in code_of else folded.get(_folded(number), number)

    texts = ("" if value is None else str(value).strip() for value in values)
    keys = [as_key(text) if text else None for text in texts]
    unknown = Counter(key for key in keys if key is not None and key not in code_of)
    if unknown:
        listed = format_names(f"`{value}` ({n} features)" for value, n in unknown.items())
        what = f"attribute `{labels.attribute}` has {len(unknown)} values that no class has: {listed}"
        raise InputError(Problem(str(path), what, "Add each to the `codes` of a class, or to `labels.void`."))
    numbers = {None, *map(str, code_of.values())}
    return [None if key is None else code_of[key] for key in keys], not numbers.issuperset(keys)


def _folded(name: str) -> str:
    """A name without the differences that people do not see or mean: composed characters and capitals."""
    return unicodedata.normalize("NFC", name).casefold()


def _polygons(
    path: Path | str, labels: LabelsConfig, grid: Grid, rows: Sequence[dict[str, Any]], codes: Sequence[int | None]
) -> _Features:
    shapes: list[_Shape] = []
    kept: list[int] = []
    radii = _radii(labels.buffer, grid)
    for row, code in zip(rows, codes, strict=True):
        for shape in row["shapes"]:
            if shape.kind != "Polygon" and not labels.buffer:
                remedy = "Set `labels.buffer`, the distance in metres up to which points and lines count."
                raise InputError(Problem(str(path), "holds points or lines, which cover no pixel", remedy))
            if code is not None:
                polygons = [shape] if shape.kind == "Polygon" else _buffer(shape.lines[0], radii)
                shapes += polygons
                kept += [code] * len(polygons)
    return _Features.of(shapes, kept)


def _simple(geometry: Mapping[str, Any]) -> Iterator[_Shape]:
    kind, coordinates = geometry["type"], geometry.get("coordinates", ())
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _simple(part)
    elif kind.startswith("Multi"):
        for part in coordinates:
            yield from _simple({"type": kind.removeprefix("Multi"), "coordinates": part})
    elif coordinates:
        lines = {"Point": [[coordinates]], "LineString": [coordinates], "Polygon": coordinates}[kind]
        yield _Shape(kind, lines)


def _radii(buffer_m: float, grid: Grid) -> Points:
    """A distance in metres in units of the map, along x and y in the middle of a grid."""
    x, y = grid.transform @ (grid.width / 2, grid.height / 2)
    step = np.array([-0.5, 0.5]) * grid.pixel_size
    ends = ((x + step, np.array([y, y])), (np.array([x, x]), y + step))
    metres = [
        float(np.linalg.norm(np.diff(geocentric(*reproject_points(grid.crs, "EPSG:4326", *end)), axis=0)))
        for end in ends
    ]
    return buffer_m * grid.pixel_size / np.array(metres)


def _buffer(line: list[list[float]], radii: Points) -> list[_Shape]:
    """Polygons of the places near a point or a line: one around each of its segments."""
    points = np.array(line) / radii
    ends = zip(points, points, strict=True) if len(points) == 1 else itertools.pairwise(points)
    angle = np.linspace(-np.pi / 2, np.pi / 2, CORNERS // 2 + 1)
    polygons = []
    for start, end in ends:
        heading = np.arctan2(*(end - start)[::-1])
        halves = [
            centre + np.stack([np.cos(angle + turn), np.sin(angle + turn)], axis=1)
            for centre, turn in ((end, heading), (start, heading + np.pi))
        ]
        polygons.append(_Shape("Polygon", [(np.concatenate(halves) * radii).tolist()]))
    return polygons


def _burn(features: _Features, grid: Grid, box: Box) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Codes of a block, and where features of different codes cover a pixel."""
    row, column, height, width = box
    transform = grid.transform @ Affine.translation(column, row)
    corners = np.array([transform @ (x, y) for x in (0, width) for y in (0, height)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    touched = np.flatnonzero((features.boxes[:, :2] <= high).all(axis=1) & (features.boxes[:, 2:] >= low).all(axis=1))
    if not touched.size:
        return np.full((height, width), NO_CODE, np.int64), np.zeros((height, width), bool)
    # codes may be larger than the numbers that are burnt
    distinct, numbers = np.unique(features.codes[touched], return_inverse=True)
    pairs = [(features.shapes[i], int(number)) for i, number in zip(touched, numbers, strict=True)]
    options = {"out_shape": (height, width), "transform": transform}
    burnt = rasterize(pairs, fill=len(distinct), dtype="int32", **options)
    covered, several = np.zeros((2, height, width), bool)
    for number in range(len(distinct)):
        mask = rasterize([shape for shape, own in pairs if own == number], dtype="uint8", **options).astype(bool)
        several |= covered & mask
        covered |= mask
    return np.append(distinct, NO_CODE)[burnt], several
