import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from tmcnet.errors import InputError
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.opening import write_part
from tmcnet.raster.io.reader import Raster, read_float, read_grid, read_labels
from tmcnet.raster.io.writer import write_raster

GRID = Grid("EPSG:3035", Affine(20, 0, 4e6, 0, -20, 3e6), 300, 280)


@pytest.mark.parametrize("window", [(-5, 290, 20, 30), (10, 20, 30, 40), (270, -7, 20, 10), (900, 900, 4, 5)])
def test_windows_may_reach_past_the_edges(tmp_path, window):
    image = np.random.default_rng(0).normal(size=(2, 280, 300)).astype("f4")
    write_raster(tmp_path / "a.tif", image, GRID)
    row, col, height, width = window
    expected = np.full((2, height, width), np.nan, "f4")
    for y in range(height):
        for x in range(width):
            if 0 <= row + y < 280 and 0 <= col + x < 300:
                expected[:, y, x] = image[:, row + y, col + x]
    np.testing.assert_array_equal(read_float(tmp_path / "a.tif", window), expected)


def test_declared_no_data_replaces_that_of_the_file(tmp_path):
    write_raster(tmp_path / "a.tif", np.array([[[1, 2, 3]]], "i2"), None, nodata=1)
    assert np.isnan(read_float(tmp_path / "a.tif")).tolist() == [[[True, False, False]]]
    assert np.isnan(Raster.of(tmp_path / "a.tif", nodata=3).read_all()).tolist() == [[[False, False, True]]]


def test_wider_types_have_no_data_per_band_but_bytes_only_where_all_bands_do(tmp_path):
    image = np.array([[[0, 0, 5]], [[0, 7, 5]]])
    write_raster(tmp_path / "wide.tif", image.astype("u2"), None, nodata=0)
    write_raster(tmp_path / "byte.tif", image.astype("u1"), None, nodata=0)
    write_raster(tmp_path / "bare.tif", image.astype("u1"), None)
    assert np.isnan(read_float(tmp_path / "wide.tif")).tolist() == [[[True, True, False]], [[True, False, False]]]
    only_first = [[[True, False, False]], [[True, False, False]]]
    assert np.isnan(read_float(tmp_path / "byte.tif")).tolist() == only_first
    assert np.isnan(Raster.of(tmp_path / "bare.tif", nodata=0).read_all()).tolist() == only_first


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("u1", 0),
        ("u2", 65535),
        ("i2", -9999),
        ("i4", 7),
        ("f4", np.nan),
        ("f4", -9999.0),
        ("f8", np.nan),
        ("u2", None),
    ],
)
def test_masks_are_those_of_gdal(tmp_path, dtype, nodata):
    values = np.random.default_rng(0).integers(1, 9, (2, 20, 30)).astype(dtype)
    values[np.random.default_rng(1).random(values.shape) < 0.3] = 0 if nodata is None else nodata
    write_raster(tmp_path / "a.tif", values, None, nodata=nodata)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        expected = dataset.read_masks(window=Window(3, 4, 20, 10)) > 0
    with Raster.of(tmp_path / "a.tif").open() as opened:
        (part,) = opened.parts((4, 3, 10, 20))
    np.testing.assert_array_equal(part.values, values[:, 4:14, 3:23])
    if dtype == "u1":
        expected = np.broadcast_to(expected.any(axis=0), expected.shape)
    np.testing.assert_array_equal(part.bands_valid, expected)
    assert part.bands_valid.all() == (nodata is None)


def test_bands_may_have_no_data_values_of_their_own(tmp_path):
    for name, nodata in (("one", 1), ("two", 2)):
        write_raster(tmp_path / f"{name}.tif", np.array([[[1, 2, 3]]], "i2"), None, nodata=nodata)
    sources = [str(tmp_path / "one.tif"), str(tmp_path / "two.tif")]
    subprocess.run(["gdalbuildvrt", "-q", "-separate", str(tmp_path / "a.vrt"), *sources], check=True)
    assert np.isnan(read_float(tmp_path / "a.vrt")).tolist() == [[[True, False, False]], [[False, True, False]]]


def test_infinite_values_are_no_data(tmp_path):
    write_raster(tmp_path / "a.tif", np.array([[[1, np.inf, -np.inf]]], "f4"), None)
    assert np.isnan(read_float(tmp_path / "a.tif")).sum() == 2


def test_four_byte_bands_have_no_alpha(tmp_path):
    image = np.zeros((4, 8, 8), "u1") + 9
    image[3] = 0
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        count=4,
        height=8,
        width=8,
        dtype="uint8",
        alpha="yes",
        photometric="rgb",
    ) as dataset:
        dataset.write(image)
    np.testing.assert_array_equal(read_float(tmp_path / "a.tif"), image)


def test_several_files_are_stacked_if_they_agree_in_size(tmp_path):
    write_raster(tmp_path / "a.tif", np.ones((2, 8, 8), "u2"), None)
    write_raster(tmp_path / "b.tif", np.full((8, 8), 2, "f4"), None)
    write_raster(tmp_path / "c.tif", np.full((9, 8), 2, "f4"), None)
    assert Raster.of(tmp_path / "a.tif", tmp_path / "b.tif").read_all()[:, 0, 0].tolist() == [1, 1, 2]
    with pytest.raises(InputError, match=r"c\.tif: 8 x 9"):
        Raster.of(tmp_path / "a.tif", tmp_path / "c.tif").read_all()


def test_labels_must_be_ids(tmp_path):
    write_raster(tmp_path / "l.tif", np.array([[300, -1]], "i2"), None)
    with pytest.raises(InputError, match=r"l\.tif"):
        read_labels(tmp_path / "l.tif")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    driver = {".tif": "GTiff", ".png": "PNG"}[suffix]
    with rasterio.open(path, "w", driver=driver, count=1, height=200, width=200, dtype="uint8") as dataset:
        dataset.write(np.random.default_rng(0).integers(0, 255, (1, 200, 200)).astype("u1"))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(InputError, match=f"a{suffix}.*cannot be read"):
        read_float(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.tif: does not exist"):
        read_grid(tmp_path / "gone.tif")


@pytest.mark.parametrize("place", ["folder", "zip", "tar"])
@pytest.mark.parametrize("fault", ["missing", "no raster"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_source_that_cannot_be_opened_is_an_error_every_time(tmp_path, place, fault, nested):
    """GDAL returns zeros from the second time on, once it has read nested virtual rasters."""
    for name in ("a.tif", "gone.tif"):
        write_raster(tmp_path / name, np.full((GRID.height, GRID.width), 7, "u2"), GRID)
    for source, target in (("a.tif", "b.vrt"), ("b.vrt", "c.vrt"), ("gone.tif", "d.vrt"), ("d.vrt", "e.vrt")):
        subprocess.run(["gdalbuildvrt", "-q", target, source], cwd=tmp_path, check=True)
    assert (read_float(tmp_path / "c.vrt") == 7).all()
    (tmp_path / "gone.tif").unlink()
    if fault == "no raster":
        (tmp_path / "gone.tif").write_text("hello")
    root = str(tmp_path)
    if place != "folder":
        root = f"/vsi{place}/{shutil.make_archive(tmp_path.with_name('archive'), place, tmp_path)}"
    for _ in range(3):
        with pytest.raises(InputError, match=r"[de]\.vrt: cannot be read .*gone\.tif"):
            read_float(f"{root}/{'e' if nested else 'd'}.vrt")


@pytest.mark.parametrize("form", ["int8", "mask", "scaled"])
def test_a_part_of_a_raster_means_what_the_whole_does(tmp_path, form):
    values = np.random.default_rng(0).integers(-120, 120, (2, 60, 60)).astype("i1" if form == "int8" else "i2")
    write_raster(tmp_path / "a.tif", values, Grid(GRID.crs, GRID.transform, 60, 60), nodata=-20)
    with rasterio.open(tmp_path / "a.tif", "r+") as dataset:
        if form == "mask":
            dataset.write_mask(np.arange(3600).reshape(60, 60) % 7 > 0)
        if form == "scaled":
            dataset.scales, dataset.offsets = (0.1, 1), (0, -5)
    whole = read_float(tmp_path / "a.tif")
    write_part(tmp_path / "a.tif", "srcwin=5,10,40,20", tmp_path / "window.vrt")
    np.testing.assert_array_equal(read_float(tmp_path / "window.vrt"), whole[:, 10:30, 5:45])
    assert read_grid(tmp_path / "window.vrt") == read_grid(tmp_path / "a.tif").window((10, 5, 20, 40))
    write_part(tmp_path / "a.tif", "bands=2", tmp_path / "band.vrt")
    np.testing.assert_array_equal(read_float(tmp_path / "band.vrt"), whole[1:])
