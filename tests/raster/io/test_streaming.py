import resource

import numpy as np
import pytest
import rasterio
from affine import Affine

from tmcnet.classes import ClassTable
from tmcnet.errors import InputError
from tmcnet.raster.io import streaming
from tmcnet.raster.io.form import Form
from tmcnet.raster.io.rasters import Grid, read_float, read_grid, read_labels
from tmcnet.raster.io.streaming import blocks, float_blocks, is_complete, little_cache, write_blocks, write_draft

GRID = Grid("EPSG:3035", Affine(20, 0, 4e6, 0, -20, 3e6), 600, 530)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(streaming, "VALUES", 2 * 256 * 256)


@pytest.fixture
def image():
    values = np.random.default_rng(0).normal(size=(2, 530, 600)).astype("f4")
    values[0, 100:300, 200:270] = np.nan
    return values


@pytest.mark.parametrize(
    ("height", "width", "bands"), [(20_000, 20_000, 4), (530, 600, 2), (10, 90_000, 13), (3, 5, 1)]
)
def test_blocks_cover_a_raster_once_and_follow_its_tiles(height, width, bands):
    seen = blocks(height, width, bands)
    assert sum(h * w for _, _, h, w in seen) == height * width
    assert len({(row, column) for row, column, _, _ in seen}) == len(seen)
    for row, column, h, w in seen:
        assert row % 256 == column % 256 == 0 and h * w * bands <= max(streaming.VALUES, 256 * 256 * bands)
        assert (h % 256 == 0 or row + h == height) and (w % 256 == 0 or column + w == width)


def test_blocks_with_a_rim_are_windows_of_the_whole(small_blocks, image, tmp_path):
    write_draft(tmp_path / "a.tif", GRID, Form(2, "float32", np.nan), [((0, 0, 530, 600), image)])
    padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), constant_values=np.nan)
    found = list(float_blocks(tmp_path / "a.tif", rim=3))
    assert len(found) > 4
    for (row, column, height, width), values in found:
        np.testing.assert_array_equal(values, padded[:, row : row + height + 6, column : column + width + 6])
    declared = list(float_blocks(tmp_path / "a.tif", nodata=float(image[1, 0, 0])))
    assert np.isnan(declared[0][1][1, 0, 0]) and not np.isnan(found[0][1][1, 3, 3])


def test_what_is_written_by_blocks_is_read_back(small_blocks, image, tmp_path):
    form = Form(2, "float32", np.nan, ["a", "b"])
    parts = [(box, image[:, box[0] : box[0] + box[2], box[1] : box[1] + box[3]]) for box in blocks(530, 600, 2)]
    with little_cache():
        for name in ("a.tif", "b.tif"):
            write_blocks(tmp_path / name, GRID, form, parts, threads=2)
    np.testing.assert_array_equal(read_float(tmp_path / "a.tif"), image)
    assert read_grid(tmp_path / "a.tif") == GRID and not is_complete(tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.descriptions == ("a", "b") and dataset.profile["compress"] == "zstd"
    # the record of a scene holds the hash of the file
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert (tmp_path / "a.tif").stat().st_mode & 0o777 == 0o644


def test_what_no_block_covers_is_no_data(tmp_path):
    table = ClassTable.of([("water", "#0000ff"), ("crop", "#ffcc00")])
    part = ((256, 0, 256, 256), np.ones((1, 256, 256), "u1"))
    write_blocks(tmp_path / "l.tif", GRID, Form(1, "uint8", 255, classes=table), [part])
    ids = read_labels(tmp_path / "l.tif")
    assert (ids[256:512, :256] == 1).all() and (ids == 255).sum() == ids.size - 256 * 256
    with rasterio.open(tmp_path / "l.tif") as dataset:
        assert dataset.colormap(1)[1] == (255, 204, 0, 255) and dataset.tags(1)["CLASS_1"] == "crop"
    write_draft(tmp_path / "d.tif", GRID, Form(3, "float32", np.nan))
    assert np.isnan(read_float(tmp_path / "d.tif")).all() and (tmp_path / "d.tif").stat().st_size < 20_000


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_full_disk_leaves_no_half_file(image, tmp_path, share):
    parts = [((0, 0, 530, 600), image)]
    form = Form(2, "float32", np.nan)
    write_blocks(tmp_path / "a.tif", GRID, form, parts)
    whole = (tmp_path / "a.tif").read_bytes()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(whole)), most))
    try:
        for write, name in ((write_blocks, "a.tif"), (write_draft, "d.tif")):
            with pytest.raises(InputError, match=rf"{name}: cannot be written \(.+\)\. Free some space"):
                write(tmp_path / name, GRID, form, parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))
    assert {p.name for p in tmp_path.iterdir()} - {"d.tif"} == {"a.tif"}
    assert (tmp_path / "a.tif").read_bytes() == whole


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match=r"a\.tif: cannot be written \(No such file"):
        write_blocks(tmp_path / "gone" / "a.tif", GRID, Form(1, "uint8", 255), ())


def test_a_broken_source_is_named_and_not_the_file_written(image, tmp_path):
    write_blocks(tmp_path / "a.tif", GRID, Form(2, "float32", np.nan), [((0, 0, 530, 600), image)])
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:400_000])
    with pytest.raises(InputError, match=r"a\.tif: cannot be read"):
        write_blocks(tmp_path / "b.tif", GRID, Form(2, "float32", np.nan), float_blocks(tmp_path / "a.tif"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
