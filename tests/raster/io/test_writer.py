import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tmcnet.classes import ClassTable
from tmcnet.errors import InputError
from tmcnet.raster.io import blocks
from tmcnet.raster.io.blocks import block_windows, limited_cache
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import Raster, read_float, read_grid, read_labels
from tmcnet.raster.io.writer import RasterProfile, write_blocks, write_draft, write_raster

GRID = Grid("EPSG:3035", Affine(20, 0, 4e6, 0, -20, 3e6), 300, 280)
LARGE = Grid("EPSG:3035", Affine(20, 0, 4e6, 0, -20, 3e6), 600, 530)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "MAX_BLOCK_VALUES", 2 * 256 * 256)


@pytest.fixture
def image():
    values = np.random.default_rng(0).normal(size=(2, 530, 600)).astype("f4")
    values[0, 100:300, 200:270] = np.nan
    return values


def test_what_is_written_is_read_back(tmp_path):
    image = np.random.default_rng(0).normal(size=(4, 280, 300)).astype("f4")
    image[0, 3, 4] = np.nan
    path = tmp_path / "new" / "a.tif"
    write_raster(path, image, GRID, nodata=np.nan, descriptions=["a", "b", "c", "d"])
    np.testing.assert_array_equal(read_float(path), image)
    assert read_grid(path) == GRID
    with rasterio.open(path) as dataset:
        assert dataset.descriptions == ("a", "b", "c", "d")
        assert dataset.profile["compress"] == "zstd" and dataset.profile["tiled"]


def test_the_same_array_gives_the_same_bytes(tmp_path):
    image = np.random.default_rng(0).integers(0, 9, (3, 64, 64)).astype("u2")
    for name in ("a.tif", "b.tif"):
        write_raster(tmp_path / name, image, GRID, nodata=0)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_labels_carry_their_classes_and_are_void_outside(tmp_path):
    ids = np.array([[0, 1], [2, 255]], "u1")
    table = ClassTable.of([("water", "#0000ff"), ("crop", "#ffcc00"), ("town", "#ff0000")])
    write_raster(tmp_path / "l.tif", ids, GRID, nodata=255, classes=table)
    assert read_labels(tmp_path / "l.tif", (1, 0, 2, 3)).tolist() == [[2, 255, 255], [255, 255, 255]]
    with rasterio.open(tmp_path / "l.tif") as dataset:
        assert dataset.colormap(1)[1] == (255, 204, 0, 255)
        assert dataset.tags(1)["CLASS_2"] == "town"


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    class Full:
        def __init__(self, handle, mode):
            self.handle = handle

        def __enter__(self):
            return self

        def __exit__(self, *_):
            os.close(self.handle)

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.tif").write_bytes(b"old")
    monkeypatch.setattr("tmcnet.raster.io.writer.os.fdopen", Full)
    with pytest.raises(InputError, match=r"a\.tif: cannot be written \(No space left on device\)\. Free some space"):
        write_raster(tmp_path / "a.tif", np.zeros((4, 4), "u1"), None)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"] and (tmp_path / "a.tif").read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="results_dir"):
        write_raster(Path(tmp_path / "file" / "a.tif"), np.zeros((4, 4), "u1"), None)


def test_what_is_written_by_blocks_is_read_back(small_blocks, image, tmp_path):
    profile = RasterProfile(2, "float32", np.nan, ["a", "b"])
    parts = [
        (box, image[:, box[0] : box[0] + box[2], box[1] : box[1] + box[3]]) for box in block_windows(530, 600, 2)
    ]
    with limited_cache():
        for name in ("a.tif", "b.tif"):
            write_blocks(tmp_path / name, LARGE, profile, parts, threads=2)
    np.testing.assert_array_equal(read_float(tmp_path / "a.tif"), image)
    assert read_grid(tmp_path / "a.tif") == LARGE and np.isnan(read_float(tmp_path / "a.tif")).any()
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.descriptions == ("a", "b") and dataset.profile["compress"] == "zstd"
    # the record of a scene holds the hash of the file
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert (tmp_path / "a.tif").stat().st_mode & 0o777 == 0o644


def test_what_no_block_covers_is_no_data(tmp_path):
    table = ClassTable.of([("water", "#0000ff"), ("crop", "#ffcc00")])
    part = ((256, 0, 256, 256), np.ones((1, 256, 256), "u1"))
    write_blocks(tmp_path / "l.tif", LARGE, RasterProfile(1, "uint8", 255, classes=table), [part])
    ids = read_labels(tmp_path / "l.tif")
    assert (ids[256:512, :256] == 1).all() and (ids == 255).sum() == ids.size - 256 * 256
    with rasterio.open(tmp_path / "l.tif") as dataset:
        assert dataset.colormap(1)[1] == (255, 204, 0, 255) and dataset.tags(1)["CLASS_1"] == "crop"
    write_draft(tmp_path / "d.tif", LARGE, RasterProfile(3, "float32", np.nan))
    assert np.isnan(read_float(tmp_path / "d.tif")).all() and (tmp_path / "d.tif").stat().st_size < 20_000


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_disk_that_gets_full_leaves_no_half_file(image, tmp_path, share):
    parts = [((0, 0, 530, 600), image)]
    profile = RasterProfile(2, "float32", np.nan)
    write_blocks(tmp_path / "a.tif", LARGE, profile, parts)
    whole = (tmp_path / "a.tif").read_bytes()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(whole)), most))
    try:
        for write, name in ((write_blocks, "a.tif"), (write_draft, "d.tif")):
            with pytest.raises(InputError, match=rf"{name}: cannot be written \(.+\)\. Free some space"):
                write(tmp_path / name, LARGE, profile, parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))
    assert {p.name for p in tmp_path.iterdir()} - {"d.tif"} == {"a.tif"}
    assert (tmp_path / "a.tif").read_bytes() == whole


def test_a_folder_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"a\.tif: cannot be written \(No such file"):
        write_blocks(tmp_path / "gone" / "a.tif", LARGE, RasterProfile(1, "uint8", 255), ())


def test_a_broken_source_is_named_and_not_the_file_written(image, tmp_path):
    write_blocks(tmp_path / "a.tif", LARGE, RasterProfile(2, "float32", np.nan), [((0, 0, 530, 600), image)])
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:400_000])
    with pytest.raises(InputError, match=r"a\.tif: cannot be read"):
        write_blocks(
            tmp_path / "b.tif", LARGE, RasterProfile(2, "float32", np.nan), Raster.of(tmp_path / "a.tif").blocks()
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
