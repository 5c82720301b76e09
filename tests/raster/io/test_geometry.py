import numpy as np
import pytest
from affine import Affine
from rasterio.warp import transform

from tmcnet.raster.io.geometry import (
    GROUND,
    GdalError,
    Grid,
    equal_area,
    geocentric,
    ground_columns,
    pixel_area,
    reproject_points,
    to_pixels,
)

FOOT = 0.3048006096012192  # the US survey foot, in metres


def test_a_projected_pixel_is_as_large_as_on_the_map():
    assert pixel_area(Grid("EPSG:32633", Affine(10, 0, 5e5, 0, -20, 5.2e6), 30, 40)) == pytest.approx(200)


def test_a_turned_pixel_keeps_its_area():
    turned = Affine.translation(5e5, 5.2e6) @ Affine.rotation(30) @ Affine.scale(10, -10)
    assert pixel_area(Grid("EPSG:32633", turned, 30, 40)) == pytest.approx(100)


def test_feet_become_metres():
    assert pixel_area(Grid("EPSG:2263", Affine(3, 0, 1e6, 0, -3, 2e5), 30, 40)) == pytest.approx(9 * FOOT**2)


@pytest.mark.parametrize(("latitude", "metres"), [(0, (111319.49, 110574.28)), (60, (55800.0, 111412.24))])
def test_a_geographic_pixel_is_measured_at_the_centre(latitude, metres):
    """Lengths of a degree of longitude and of latitude on WGS 84, as tables give them."""
    degree = 1e-4
    grid = Grid("EPSG:4326", Affine(degree, 0, 15 - 50 * degree, 0, -degree, latitude + 50 * degree), 100, 100)
    assert pixel_area(grid) == pytest.approx(degree**2 * metres[0] * metres[1], rel=1e-4)


def test_nowhere_on_the_ground():
    assert pixel_area(Grid("", Affine.identity(), 30, 40)) is None
    assert ground_columns(Grid("", Affine.identity(), 30, 40)) == dict.fromkeys(GROUND, "")


def test_a_tile_is_found_by_its_centre_and_a_circle():
    """The central meridian of zone 33 is 15 degrees east; lengths on it are 0.9996 of those on the ground."""
    found = ground_columns(Grid("EPSG:32633", Affine(10, 0, 499_700, 0, -10, 400), 60, 80))
    assert [found[name] for name in ("x", "y", "pixel_x", "pixel_y", "pixel_metres", "north_up")] == [
        "500000.000000",
        "0.000000",
        "10",
        "10",
        "10.000000",
        "1",
    ]
    assert (float(found["lon"]), float(found["lat"])) == pytest.approx((15, 0), abs=1e-8)
    assert float(found["radius_metres"]) == pytest.approx(500 / 0.9996, abs=0.01)


TURNED = Affine.translation(5e5, 5.2e6) @ Affine.rotation(30) @ Affine.scale(10, -10)


@pytest.mark.parametrize(
    ("crs", "at", "upright"),
    [
        ("EPSG:32633", TURNED, "0"),
        ("EPSG:32633", Affine(10, 0, 5e5, 0, 10, 5.2e6), "1"),
        ("EPSG:2263", Affine(3, 0, 1e6, 0, -3, 2e5), "1"),
        ("EPSG:4326", Affine(0.5, 0, 15, 0, -0.1, 87), "1"),
        ("EPSG:3857", Affine(100, 0, 1e6, 0, -100, 9e6), "1"),
        ("EPSG:3035", Affine(100, 5, 4e6, 0, -100, 3e6), "0"),
    ],
)
def test_the_circle_holds_the_tile_and_little_more(crs, at, upright):
    grid = Grid(crs, at, 30, 40)
    found = ground_columns(grid)
    columns, rows = (side.ravel() for side in np.meshgrid(np.linspace(0, 30, 31), np.linspace(0, 40, 41)))
    places = geocentric(*map(np.array, transform(crs, "EPSG:4326", *(at @ (columns, rows)))))
    centre = geocentric(*(np.array([float(found[name])]) for name in ("lon", "lat")))
    away = np.linalg.norm(places - centre, axis=1)
    radius = float(found["radius_metres"])
    assert away.max() < radius < away.max() + 0.02
    assert found["north_up"] == upright


@pytest.mark.parametrize(
    ("crs", "at"),
    [
        ('LOCAL_CS["somewhere",UNIT["metre",1]]', Affine(10, 0, 0, 0, -10, 0)),
        ("+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84", Affine(3000, 0, 7e6, 0, -3000, 7e6)),
    ],
    ids=["engineering", "past the horizon"],
)
def test_a_map_without_ground_has_no_circle(crs, at):
    found = ground_columns(Grid(crs, at, 30, 40))
    assert [found[name] for name in ("lon", "lat", "radius_metres")] == ["", "", ""]
    assert found["x"] and found["pixel_x"]


def test_geocentric_places_are_those_of_proj():
    lon, lat = np.array([0.0, 15, -120, 179]), np.array([0.0, 48, -33, 89])
    expected = np.array(transform("EPSG:4326", "EPSG:4978", lon, lat, np.zeros(4))).T
    np.testing.assert_allclose(geocentric(lon, lat), expected, atol=1e-6)


def test_a_failed_transformation_gives_no_place():
    """PROJ's failures come as a class without a public name; were it another one, this would raise."""
    for crs in ('LOCAL_CS["somewhere",UNIT["metre",1]]', "+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84"):
        with pytest.raises(GdalError):
            transform(crs, "EPSG:4326", [7e7], [7e6])
        x, y = reproject_points(crs, "EPSG:4326", np.array([[7e7]]), np.array([[7e6]]))
        assert x.shape == y.shape == (1, 1) and not np.isfinite([x, y]).any()


@pytest.mark.parametrize(("crs", "power"), [("EPSG:3857", 2), ("EPSG:3395", 2)])
def test_pixels_of_a_projection_that_stretches_areas_have_their_area_on_the_ground(crs, power):
    (x,), (y,) = reproject_points("EPSG:4326", crs, np.array([15.0]), np.array([60.0]))
    area = pixel_area(Grid(crs, Affine(10, 0, x, 0, -10, y), 2, 2))
    assert area == pytest.approx(100 * np.cos(np.radians(60)) ** power, rel=0.01)
    # the same ground in UTM, whose scale is 0.9996 on this meridian
    (east,), (north,) = reproject_points(crs, "EPSG:32633", np.array([x + 10]), np.array([y - 10]))
    corners = np.array([[-5, 5, 5, -5], [-5, -5, 5, 5.0]])
    e, n = reproject_points(crs, "EPSG:32633", x + 10 + corners[0], y - 10 + corners[1])
    planar = abs((e - east) @ np.roll(n - north, -1) - (n - north) @ np.roll(e - east, -1)) / 2
    assert area == pytest.approx(planar / 0.9996**2, rel=1e-4)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4326"])
def test_an_equal_area_plane_gives_the_area_of_any_part(crs):
    (x0, x1), (y1, y0) = reproject_points("EPSG:4326", crs, np.array([10.0, 12.0]), np.array([58.0, 61.0]))
    plane = equal_area(Grid(crs, Affine((x1 - x0) / 500, 0, x0, 0, (y1 - y0) / 400, y0), 500, 400))
    corners = np.array([[0, 500, 500, 0], [0, 0, 400, 400.0]])
    x, y = plane(*corners)
    flat = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    # of the ellipsoid between two parallels and two meridians, integrated over narrow rows
    lat = np.radians(np.linspace(58, 61, 20_001))
    e2 = 0.00669437999014
    ring = 6_378_137.0**2 * (1 - e2) * np.cos(lat) / (1 - e2 * np.sin(lat) ** 2) ** 2
    assert flat == pytest.approx(np.radians(2) * np.trapezoid(ring, lat), rel=1e-6)
    assert equal_area(Grid("EPSG:32633", Affine(10, 0, 5e5, 0, -10, 6.5e6), 500, 400)) is None


def test_a_grid_across_the_180th_meridian_has_pixels_on_both_sides():
    grid = Grid("EPSG:4326", Affine(0.001, 0, 179.9, 0, -0.001, 0.1), 200, 200)
    columns, _ = to_pixels(grid, "EPSG:4326", np.array([179.95, -179.95]), np.array([0.0, 0.0]))
    assert columns == pytest.approx([50, 150])
    x, y = reproject_points("EPSG:4326", "EPSG:32601", np.array([-179.95]), np.array([0.05]))
    column, row = to_pixels(grid, "EPSG:32601", x, y)
    assert (*column, *row) == pytest.approx((150, 50), abs=1e-3)
