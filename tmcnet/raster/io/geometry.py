"""Where the pixels of a raster are: its grid or control points, coordinates in other reference systems, areas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from affine import Affine
from pydantic import PlainValidator
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import transform

GdalError: type[Exception] = CPLE_BaseError
"""Raised by rasterio where GDAL or PROJ fails outside of opening a file. It has no public name; a test fails when it
changes."""

Box: TypeAlias = tuple[int, int, int, int]
"""A window as (row, col, height, width) in pixels; it may reach past the edges."""
Coordinates: TypeAlias = npt.NDArray[np.float64]
PixelMap: TypeAlias = Callable[[Coordinates, Coordinates], tuple[Coordinates, Coordinates]]
"""From columns and rows to two other coordinates."""

ControlPoint: TypeAlias = tuple[float, float, float, float]
"""Column and row, counted from the outer corner of the first pixel, and the place x, y in a CRS."""

Transform = Annotated[Affine, PlainValidator(lambda values: Affine(*values[:6]))]
"""An affine transform; pydantic takes it from a list of its coefficients."""

_MIN_POINTS, _CORNERS = 3, 4
_RPC_POINTS_PER_SIDE = 21
WGS84_SEMI_MAJOR_M = 6_378_137.0
WGS84_FLATTENING = 1 / 298.257223563
_MAX_LEAN = 1e-6
"""Largest slope, in pixels a pixel, of rows and columns that count as parallel to the axes of the map."""
MAX_AREA_DISTORTION = 0.005  # projections that change areas by at most this share preserve them
_LATTICE_NODES = 33  # nodes along each side of a grid between which an equal-area projection is interpolated
_EQUAL_AREAS = 1e-3  # pixels whose areas differ by less than this share are of one size
KNOT_SPACING_PX = 16
"""Maps are evaluated this far apart and interpolated linearly in between: they are much smoother than that."""
_ROUNDING_M = 0.005  # added to a radius for the digits that centre and radius are written with

GROUND = ("x", "y", "pixel_x", "pixel_y", "pixel_metres", "north_up", "lon", "lat", "radius_metres")
"""Columns of the tile index that give the place of a tile on the ground."""


@dataclass(frozen=True)
class Grid:
    """Size and georeference of a raster."""

    crs: str  # `EPSG:...` or WKT; empty for none
    transform: Transform  # from (column, row) of pixel corners to map coordinates
    width: int
    height: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest upright rectangle around the raster: left, bottom, right, top."""
        corners = [self.transform @ (x, y) for x in (0, self.width) for y in (0, self.height)]
        xs, ys = [c[0] for c in corners], [c[1] for c in corners]
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def pixel_size(self) -> float:
        """Square root of the area of a pixel, in units of the CRS."""
        return float(abs(self.transform.determinant) ** 0.5)

    @property
    def is_geographic(self) -> bool:
        """Whether the units of the map are degrees of longitude and latitude."""
        return bool(self.crs) and bool(CRS.from_user_input(self.crs).is_geographic)

    @property
    def georeference(self) -> dict[str, Any]:
        """CRS and transform as rasterio takes them for a new file."""
        return {"crs": self.crs or None, "transform": self.transform}

    def window(self, box: Box) -> Grid:
        """The grid of a window of this raster."""
        row, col, height, width = box
        return Grid(self.crs, self.transform @ Affine.translation(col, row), width, height)


def crs_name(crs: CRS | None) -> str:
    """Short name of a rasterio CRS: `EPSG:...` where that describes it fully, else WKT, empty for none."""
    if not crs:
        return ""
    name: str = crs.to_string()
    return name if name.startswith("EPSG:") else crs.to_wkt()


def reproject_points(source: str, target: str, x: Coordinates, y: Coordinates) -> tuple[Coordinates, Coordinates]:
    """Transform coordinates (x or longitude, y or latitude) of any shape from one CRS to another.

    They are not finite where the target has no such place or no transformation is known.
    """
    try:
        eastings, northings = transform(source, target, np.ravel(x), np.ravel(y))
    except GdalError:
        return np.full(np.shape(x), np.nan), np.full(np.shape(y), np.nan)
    return np.reshape(eastings, np.shape(x)), np.reshape(northings, np.shape(y))


def geocentric(longitude: Coordinates, latitude: Coordinates) -> Coordinates:
    """Convert points on the ellipsoid of WGS 84, in degrees, to geocentric coordinates (EPSG:4978), N x 3 metres.

    Straight distances between them are never longer than those along the ground.
    """
    lon, lat = np.radians(longitude), np.radians(latitude)
    eccentricity_squared = WGS84_FLATTENING * (2 - WGS84_FLATTENING)
    radius = WGS84_SEMI_MAJOR_M / np.sqrt(1 - eccentricity_squared * np.sin(lat) ** 2)
    flat = radius * np.cos(lat)
    z = radius * (1 - eccentricity_squared) * np.sin(lat)
    return np.stack([flat * np.cos(lon), flat * np.sin(lon), z], axis=-1)


def to_pixels(
    grid: Grid, crs: str, x: Coordinates, y: Coordinates, *, control: Sequence[ControlPoint] = ()
) -> tuple[Coordinates, Coordinates]:
    """Convert map coordinates in another CRS to columns and rows of a grid, or of an image with control points.

    Longitudes count modulo 360 degrees, so that a grid may cross the 180th meridian.
    """
    if grid.crs != crs:
        x, y = reproject_points(crs, grid.crs, x, y)
    if control:
        return to_control_pixels(control, x, y)
    if grid.is_geographic:
        middle = (grid.transform @ (grid.width / 2, grid.height / 2))[0]
        x = middle + (x - middle + 180.0) % 360.0 - 180.0
    column, row = ~grid.transform @ (x, y)
    return column, row


def interpolated(
    where: PixelMap, row: float, column: float, height: int, width: int
) -> tuple[Coordinates, Coordinates]:
    """Coordinates of the centre of every pixel of a window, each height x width, linear between exact ones.

    Smooth maps need no more: the exact ones are `KNOT_SPACING_PX` apart.
    """
    from scipy import ndimage  # takes as long to import as all else that short jobs need

    sides = [np.arange(0, side + KNOT_SPACING_PX, KNOT_SPACING_PX, dtype=np.float64) for side in (height, width)]
    rows, columns = np.meshgrid(*sides, indexing="ij")
    knots = where(np.ravel(columns + column + 0.5), np.ravel(rows + row + 0.5))
    at = np.mgrid[:height, :width] / KNOT_SPACING_PX
    x, y = (ndimage.map_coordinates(np.reshape(values, rows.shape), at, order=1) for values in knots)
    return x, y


@lru_cache(maxsize=64)
def pixel_area(grid: Grid) -> float | None:
    """Compute the area of the pixel at the centre of a grid in square metres; None without a known unit of length.

    It is that in the plane of the map, as GIS programs give it, where the projection preserves areas within 0.5 %
    (as UTM does), and that on the ellipsoid elsewhere.
    """
    if not grid.crs:
        return None
    crs = CRS.from_user_input(grid.crs)
    if not (crs.is_projected or crs.is_geographic):
        return None
    # half the product of its diagonals, on the ellipsoid; NaN off the ground
    columns, rows = np.array([[-0.5, 0.5, 0.5, -0.5], [-0.5, -0.5, 0.5, 0.5]])
    x, y = grid.transform @ (grid.width / 2 + columns, grid.height / 2 + rows)
    places = geocentric(*reproject_points(grid.crs, "EPSG:4326", x, y))
    geodesic = float(np.linalg.norm(np.cross(places[2] - places[0], places[3] - places[1])) / 2)
    if crs.is_projected:
        planar = float(abs(grid.transform.determinant) * crs.linear_units_factor[1] ** 2)
        if not abs(geodesic - planar) > MAX_AREA_DISTORTION * planar:
            return planar
    return geodesic


def equal_area(grid: Grid) -> PixelMap | None:
    """The map from columns and rows to an equal-area plane in metres; None if the CRS preserves areas or is unknown.

    It is a spline through a lattice of points projected by PROJ.
    """
    area = pixel_area(grid)
    corners = [grid.window((row, col, 1, 1)) for row in (0, grid.height - 1) for col in (0, grid.width - 1)]
    if area is None or all(pixel_area(corner) == area for corner in corners):
        return None
    from scipy.interpolate import RectBivariateSpline  # takes as long to import as all else that short jobs need

    columns, rows = (np.linspace(0.0, side, _LATTICE_NODES) for side in (grid.width, grid.height))
    across, down = np.meshgrid(columns, rows, indexing="ij")
    x, y = grid.transform @ (grid.width / 2, grid.height / 2)
    longitude = float(reproject_points(grid.crs, "EPSG:4326", np.array([x]), np.array([y]))[0][0])
    plane = f"+proj=cea +lon_0={longitude!r} +ellps=WGS84"
    splines = [
        RectBivariateSpline(columns, rows, values)
        for values in reproject_points(grid.crs, plane, *(grid.transform @ (across, down)))
    ]
    return lambda column, row: (splines[0].ev(column, row), splines[1].ev(column, row))


def round_length(longest: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that is not above a length, for scale bars."""
    power = 10.0 ** math.floor(math.log10(longest))
    return power * max(step for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9))


def finest(grids: Sequence[Grid]) -> Grid:
    """The grid with the smallest pixels; the first of equals."""
    if all(grid == grids[0] for grid in grids):
        return grids[0]
    areas = [pixel_area(grid) or grid.pixel_size**2 for grid in grids]
    return grids[next(i for i, area in enumerate(areas) if area <= min(areas) * (1 + _EQUAL_AREAS))]


def ground_columns(grid: Grid) -> dict[str, str]:
    """Describe the place of a tile on the ground for the tile index, under the names of `GROUND`.

    Centre and sides of a pixel in map units; its side in metres; 1 where rows and columns are parallel to the axes of
    the map, else 0; longitude and latitude of the centre in degrees; and the radius in metres of a circle around it
    that contains the tile. Empty where unknown; all empty without a CRS.
    """
    if not grid.crs:
        return dict.fromkeys(GROUND, "")
    at = grid.transform
    x, y = at @ (grid.width / 2, grid.height / 2)
    sides = math.hypot(at.a, at.d), math.hypot(at.b, at.e)
    area = pixel_area(grid)
    values = (
        *(f"{value:.6f}" for value in (x, y)),
        *(f"{side:.12g}" for side in sides),
        f"{math.sqrt(area):.6f}" if area else "",
        "1" if max(abs(at.b) / sides[1], abs(at.d) / sides[0]) < _MAX_LEAN else "0",
        *(_enclosing_circle(grid) if area else ("", "", "")),
    )
    return dict(zip(GROUND, values, strict=True))


def _enclosing_circle(grid: Grid) -> tuple[str, str, str]:
    """Longitude, latitude and radius of a circle around a tile; empty where the map has no ground there."""
    # the centre, then corners and middles of the edges: on some maps the latter are farther away
    columns, rows = (side.ravel() for side in np.meshgrid((0.5, 0, 1), (0.5, 0, 1)))
    x, y = grid.transform @ (columns * grid.width, rows * grid.height)
    lon, lat = reproject_points(grid.crs, "EPSG:4326", x, y)
    places = geocentric(lon, lat)
    radius = float(np.linalg.norm(places - places[0], axis=1).max())
    if not math.isfinite(radius):
        return "", "", ""
    return f"{lon[0]:.8f}", f"{lat[0]:.8f}", f"{radius + _ROUNDING_M:.3f}"


def control_points(dataset: DatasetReader) -> tuple[str, tuple[ControlPoint, ...]]:
    """Find the CRS and the control points of a file without transform; no points where there are none.

    Rational polynomials are evaluated on a lattice at their mean height: relief displaces pixels from there. They are
    more accurate than corners alone, which files such as NITF have beside them.
    """
    points, crs = dataset.gcps
    if crs and len(points) >= (_MIN_POINTS if dataset.rpcs is None else _CORNERS + 1):
        return _continuous(crs, np.array([(p.col, p.row, p.x, p.y) for p in points]))
    if dataset.rpcs is None:
        return "", ()
    columns, rows = (
        side.ravel() for side in np.meshgrid(*(np.linspace(0, n, _RPC_POINTS_PER_SIDE) for n in dataset.shape[::-1]))
    )
    with RPCTransformer(dataset.rpcs, rpc_height=dataset.rpcs.height_off) as transformer:
        x, y = transformer.xy(rows, columns, offset="ul")
    return _continuous(CRS.from_epsg(4326), np.column_stack([columns, rows, x, y]))


def _continuous(crs: CRS, control: npt.NDArray[np.float64]) -> tuple[str, tuple[ControlPoint, ...]]:
    """Control points, N x 4; across the 180th meridian on a plane in metres, since longitudes jump there."""
    name = crs_name(crs)
    if crs.is_geographic and np.ptp(control[:, 2]) > 180:
        plane = CRS.from_string(f"+proj=aeqd +lon_0=180 +lat_0={control[:, 3].mean():.3f} +datum=WGS84")
        control[:, 2:] = np.stack(reproject_points(name, crs_name(plane), *control[:, 2:].T), axis=1)
        name = crs_name(plane)
    return name, tuple((c, r, x, y) for c, r, x, y in control.tolist())


def fit_affine(control: Sequence[ControlPoint]) -> Affine:
    """The affine transform from pixels to places that fits control points best."""
    column, row, x, y = np.array(control).T
    design = np.stack([column, row, np.ones_like(row)], axis=1)
    (a, d), (b, e), (c, f) = np.linalg.lstsq(design, np.stack([x, y], axis=1), rcond=None)[0].tolist()
    return Affine(a, b, c, d, e, f)


def to_control_pixels(
    control: Sequence[ControlPoint], x: Coordinates, y: Coordinates, *, splines: bool = True
) -> tuple[Coordinates, Coordinates]:
    """Find the pixels (column, row) at places, by thin-plate splines through the points or a polynomial."""
    points = [GroundControlPoint(row, column, east, north) for column, row, east, north in control]
    with GCPTransformer(points, tps=splines) as transformer:
        rows, columns = transformer.rowcol(x, y, op=np.float64)
    return np.asarray(columns, np.float64), np.asarray(rows, np.float64)


def to_ground(
    control: Sequence[ControlPoint], columns: Coordinates, rows: Coordinates
) -> tuple[Coordinates, Coordinates]:
    """Find the places of pixels, by thin-plate splines through the points; the reverse of `to_control_pixels`."""
    points = [GroundControlPoint(row, column, east, north) for column, row, east, north in control]
    with GCPTransformer(points, tps=True) as transformer:
        x, y = transformer.xy(rows, columns, offset="ul")
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def residual_px(control: Sequence[ControlPoint]) -> float:
    """RMSE in pixels of a polynomial through control points: how well they agree with each other."""
    column, row, x, y = np.array(control).T
    columns, rows = to_control_pixels(control, x, y, splines=False)
    return float(np.sqrt(np.mean((columns - column) ** 2 + (rows - row) ** 2)))
