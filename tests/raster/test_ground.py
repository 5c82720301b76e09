import pytest
from affine import Affine

from tmcnet.raster.ground import pixel_area
from tmcnet.raster.io import Grid

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
