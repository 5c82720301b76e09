import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy import ndimage

from tmcnet.raster.io.geometry import Grid, reproject_points
from tmcnet.raster.io.writer import RasterProfile, write_draft
from tmcnet.raster.register.alignment import on_lattice
from tmcnet.raster.tiling.warp import choose_method, misregistered_grid, rescaled_grid, to_dtype, warp_to_grid

GRID = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000), 60, 50)


def warp_array(array, source, target, method, nodata, folder, nodes=None, threads=1):
    profile = RasterProfile(len(array), array.dtype.name, nodata)
    box = (0, 0, source.height, source.width)
    draft = write_draft(folder / "before.tif", source, profile, [(box, array)])
    with rasterio.open(warp_to_grid(draft, target, folder / "after.tif", method, nodes, threads).path) as dataset:
        return dataset.read()


def test_a_grid_onto_itself_changes_nothing(tmp_path):
    draft = write_draft(tmp_path / "a.tif", GRID, RasterProfile(2, "float32", float("nan")))
    assert warp_to_grid(draft, GRID, tmp_path / "b.tif", "bilinear") is draft
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(
    "matrix",
    [[[1, 0, 3], [0, 1, -2]], [[1, 0, 0.5], [0, 1, 0.25]], [[0.99, -0.05, 2.3], [0.05, 0.99, -1.7]]],
)
def test_a_correction_is_sampled_where_its_matrix_points(tmp_path, matrix):
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(50, 60)), 2).astype("f4")
    warped = warp_array(image[None], GRID, misregistered_grid(GRID, matrix), "bilinear", float("nan"), tmp_path)[0]
    y, x = np.mgrid[:50, :60]
    (a, b, c), (d, e, f) = matrix
    expected = ndimage.map_coordinates(image, [d * x + e * y + f, a * x + b * y + c], order=1, cval=np.nan)
    inside = ~np.isnan(expected)
    assert inside.mean() > 0.8
    # gdalwarp may be off by a hundredth of a pixel
    np.testing.assert_allclose(warped[inside], expected[inside], atol=0.01 * np.ptp(image))
    assert np.isnan(warped).mean() > 0.01 or np.abs(np.array(matrix)[:, 2]).max() < 1


def test_whole_pixels_are_moved_exactly_and_the_rest_is_no_data(tmp_path):
    image = np.random.default_rng(0).normal(size=(2, 50, 60)).astype("f4")
    image[0, 20, 20] = np.nan
    warped = warp_array(
        image, GRID, misregistered_grid(GRID, [[1, 0, 3], [0, 1, -2]]), "bilinear", float("nan"), tmp_path
    )
    np.testing.assert_allclose(warped[:, 2:, :-3], image[:, :-2, 3:], rtol=1e-5)
    assert np.isnan(warped[:, :2]).all() and np.isnan(warped[:, :, -3:]).all()
    assert not np.isnan(warped[1, 22, 17]) and np.isnan(warped[0, 22, 17])


def test_averaging_means_averaging_without_the_pixels_that_have_no_data(tmp_path):
    image = np.random.default_rng(0).gamma(1, 1, (1, 50, 60)).astype("f4")
    image[0, :5, :3] = np.nan
    target = rescaled_grid(GRID, 50)
    assert (target.height, target.width) == (10, 12) and choose_method(GRID, target) == "average"
    warped = warp_array(image, GRID, target, "average", float("nan"), tmp_path)
    expected = np.nanmean(image.reshape(10, 5, 12, 5), axis=(1, 3))
    np.testing.assert_allclose(warped[0], expected, rtol=1e-4)


def test_labels_are_never_mixed(tmp_path):
    labels = np.random.default_rng(0).choice([0, 5, 9, 255], (1, 50, 60)).astype("u1")
    rotated = misregistered_grid(GRID, [[0.9, 0.1, 1.2], [-0.1, 1.1, 3.4]])
    warped = warp_array(labels, GRID, rotated, "near", 255, tmp_path)
    assert set(np.unique(warped)) == {0, 5, 9, 255} and warped.dtype == np.uint8


def test_a_rescaled_grid_keeps_its_corner_and_rounds_its_size():
    grid = rescaled_grid(GRID, 30)
    assert (grid.width, grid.height) == (20, 17)
    assert grid.transform @ (0, 0) == GRID.transform @ (0, 0) and grid.pixel_size == pytest.approx(30)
    assert rescaled_grid(GRID, None) is GRID and rescaled_grid(GRID, 10) is GRID


def test_resampling_is_chosen_across_crs():
    geographic = Grid("EPSG:4326", Affine(0.001, 0, 15, 0, -0.001, 48.75), 80, 80)
    assert choose_method(geographic, GRID) == "bilinear"
    assert choose_method(GRID, geographic) == "average"


def test_values_return_to_their_type_without_turning_into_no_data():
    values = np.array([[[0.2, np.nan, 70000, 7.6]]], "f4")
    whole, nodata = to_dtype(values, "uint16", 0)
    assert whole.tolist() == [[[1, 0, 65535, 8]]] and nodata == 0
    whole, nodata = to_dtype(values, "uint16", None)
    assert whole.tolist() == [[[0, 65535, 65534, 8]]] and nodata == 65535
    whole, nodata = to_dtype(values[..., [0, 3]], "int16", None)
    assert whole.tolist() == [[[0, 8]]] and nodata is None
    same, nodata = to_dtype(values, "float64", -1)
    assert same is values and np.isnan(nodata)


def test_a_dark_band_of_a_byte_image_stays_as_it_is():
    values = np.array([[[0, 0, np.nan]], [[9, 0, np.nan]]], "f4")
    whole, _ = to_dtype(values, "uint8", 0)
    assert whole.tolist() == [[[0, 1, 0]], [[9, 1, 0]]]


def bend(points):
    x, y = 2 * np.pi * points.T / 60
    return points + np.stack([2 * np.sin(x) + 3, 1.5 * np.cos(y) - 2], axis=1)


def test_nodes_bend_an_image(tmp_path):
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(50, 60)), 2).astype("f4")
    image[10:14, 20:26] = np.nan
    nodes = on_lattice(bend, (50, 60))
    warped = warp_array(image[None], GRID, GRID, "bilinear", float("nan"), tmp_path, nodes)[0]
    y, x = np.mgrid[:50, :60].astype(float)
    at = bend(np.column_stack([x.ravel(), y.ravel()]))
    expected = ndimage.map_coordinates(image, at[:, ::-1].T, order=1, cval=np.nan).reshape(50, 60)
    inside = ~np.isnan(expected)
    assert inside.mean() > 0.75
    np.testing.assert_allclose(warped[inside], expected[inside], atol=0.03 * np.nanmax(np.abs(image)))
    hole = ndimage.map_coordinates(np.isnan(image).astype(float), at[:, ::-1].T, order=0).reshape(50, 60) > 0.5
    assert hole.sum() >= 10 and np.isnan(warped[hole]).mean() > 0.8


def test_nodes_work_across_crs_and_resolution(tmp_path):
    x, y = reproject_points("EPSG:32633", "EPSG:3035", np.array([500_300.0]), np.array([5_399_750.0]))
    source = Grid("EPSG:3035", Affine(8, 0, x[0] - 480, 0, -8, y[0] + 480), 120, 120)
    rows, cols = np.mgrid[:120, :120] + 0.5
    east, north = source.transform @ (cols, rows)
    east, north = reproject_points("EPSG:3035", "EPSG:32633", east, north)
    values = np.stack(~GRID.transform @ (east, north)).astype("f4") - 0.5
    nodes = on_lattice(bend, (50, 60))
    warped = warp_array(values, source, GRID, "bilinear", float("nan"), tmp_path, nodes)
    y, x = np.mgrid[:50, :60].astype(float)
    expected = bend(np.column_stack([x.ravel(), y.ravel()])).T.reshape(2, 50, 60)
    assert np.isfinite(warped).mean() > 0.9
    assert np.nanmax(np.abs(warped - expected)) < 0.08
