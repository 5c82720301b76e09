import csv
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine

from tmcnet.config import ClassConfig, LabelsConfig, SensorsConfig, SourceConfig
from tmcnet.errors import InputError
from tmcnet.hashing import file_digest
from tmcnet.raster.io.labels import LabelCoder

EAST, NORTH = 500_000, 5_400_000


def at(column: int, row: int, size: float = 10) -> Affine:
    return Affine(size, 0, EAST + 10 * column, 0, -size, NORTH - 10 * row)


def fault(source) -> str:
    with pytest.raises(InputError) as caught:
        source.take()
    return str(caught.value)


def rows(source) -> list[dict[str, str]]:
    with source.json.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def tiled(source):
    """Scene a, whose optical image, SAR image and label come as four tiles each."""
    rng = np.random.default_rng(3)
    source.whole = {
        "o": rng.integers(1, 4000, (2, 64, 64)).astype("u2"),
        "s": rng.gamma(2, 0.05, (1, 64, 64)).astype("f4"),
        "l": rng.integers(0, 4, (1, 64, 64)).astype("u1"),
    }
    for kind, array in source.whole.items():
        for name, row, column in (("NW", 0, 0), ("NE", 0, 40), ("SW", 24, 0), ("SE", 24, 40)):
            height, width = (24, 64 - 24)[row > 0], (40, 64 - 40)[column > 0]
            part = array[:, row : row + height, column : column + width]
            options = {"nodata": 0} if kind == "o" else {}
            source.write(f"raw/T_{name}_{kind}.tif", part, transform=at(column, row), **options)
    source.sheet("a,raw/T_*_o.tif,raw/T_*_s.tif,raw/T_??_l.tif,train")
    return source


def test_tiles_that_a_pattern_finds_become_one_raster(tiled):
    (record,) = tiled.take().records
    rasters = {"o": record.images["optical"].raster, "s": record.images["sar"].raster, "l": record.label}
    for kind, raster in rasters.items():
        np.testing.assert_array_equal(raster.read_all(), tiled.whole[kind])
        np.testing.assert_array_equal(raster.read(20, 30, 9, 17), tiled.whole[kind][:, 20:29, 30:47])
        assert raster.grid.transform == at(0, 0)
    assert (record.height, record.width, record.images["sar"].overlap) == (64, 64, 1.0)
    raw = [tiled.root / "raw" / f"T_{name}_{kind}.tif" for kind in "osl" for name in ("NE", "NW", "SE", "SW")]
    assert record.digests == [file_digest(path) for path in raw]
    (row,) = rows(tiled)
    assert (row["optical_tiles"], row["sar_tiles"], row["warnings"]) == ("4", "4", "")


def test_other_pixels_of_a_tile_give_another_inventory(tiled):
    first = tiled.take().records[0]
    tiled.write("raw/T_SE_o.tif", np.ones((2, 40, 24), "u2"), transform=at(40, 24), nodata=0)
    second = tiled.take().records[0]
    assert second == replace(first, digests=second.digests) and second.digests != first.digests


def test_several_patterns_are_stacked(tiled):
    for band in (0, 1):
        for name, column in (("W", 0), ("E", 40)):
            part = tiled.whole["o"][band, :, column : column + (40 if column == 0 else 24)]
            tiled.write(f"raw/{name}_B0{band}.tif", part, transform=at(column, 0), nodata=0)
    tiled.sheet("a,raw/[EW]_B00.tif;raw/[EW]_B01.tif,raw/T_*_s.tif,,train")
    (record,) = tiled.take().records
    np.testing.assert_array_equal(record.images["optical"].raster.read_all(), tiled.whole["o"])


def test_the_last_by_name_is_on_top_except_for_no_data(source):
    source.scene("a")
    source.write("t/1.tif", np.full((2, 64, 40), 1, "u2"), nodata=0)
    top = np.full((2, 64, 40), 2, "u2")
    top[:, :32, :10] = 0
    source.write("t/2.tif", top, transform=at(24, 0), nodata=0)
    source.sheet("a,t/*.tif,a_s.tif,,train")
    found = source.take().records[0].images["optical"].raster.read_all()[0]
    assert (found[:32, :34] == 1).all() and (found[32:, 24:] == 2).all() and (found[32:, :24] == 1).all()


def test_what_no_tile_covers_is_no_data(tiled):
    (tiled.root / "raw" / "T_SE_o.tif").unlink()
    (tiled.root / "raw" / "T_SE_s.tif").unlink()
    (tiled.root / "raw" / "T_SE_l.tif").unlink()
    (record,) = tiled.take().records
    hole = np.s_[24:, 40:]
    for name, shape in (("optical", 2), ("sar", 1)):
        found = np.isnan(record.images[name].raster.read_all())
        assert found.shape[0] == shape and found[:, *hole].all() and found.sum() == shape * 40 * 24
    label = LabelCoder(tiled.labels, tiled.take().classes).read(record.label)
    assert (label[hole] == 255).all()
    codes = tiled.whole["l"][0]
    np.testing.assert_array_equal(label[:24], np.array([255, 0, 1, 1])[codes[:24]])


def test_gaps_need_no_value_of_no_data(tiled):
    for name in ("NW", "NE", "SW"):
        with rasterio.open(tiled.root / "raw" / f"T_{name}_o.tif", "r+") as dataset:
            dataset.nodata = None
    (tiled.root / "raw" / "T_SE_o.tif").unlink()
    (record,) = tiled.take().records
    assert np.isnan(record.images["optical"].raster.read_all()).sum() == 2 * 40 * 24
    assert record.images["optical"].valid_shares == pytest.approx([1 - 40 * 24 / 64**2] * 2)


def test_a_declared_value_of_no_data_replaces_different_tags_of_the_tiles(source):
    source.scene("a")
    whole = np.random.default_rng(0).choice(np.array([0, 9, 50], "u2"), (2, 64, 64))
    source.write("t/1.tif", whole[:, :40], nodata=9)
    source.write("t/2.tif", whole[:, 40:], transform=at(0, 40))
    source.sheet("a,t/*.tif,a_s.tif,,train")
    assert "has another value of no data" in fault(source)
    optical = source.sensors["optical"].model_copy(update={"nodata": 0})
    source.sensors = SensorsConfig({**dict(source.sensors.items()), "optical": optical})
    found = source.take().records[0].images["optical"].raster.read_all()
    np.testing.assert_array_equal(found, np.where(whole == 0, np.nan, whole))


def test_codes_of_classes_never_become_void_in_a_mosaic(source):
    """The tiles call 0 no data, yet 0 is a class here."""
    source.labels = LabelsConfig(
        void=[7],
        classes=[
            ClassConfig(name="water", codes=[0], color="#0000ff"),
            ClassConfig(name="land", codes=[1], color="#00ff00"),
        ],
    )
    source.scene("a", label=False)
    whole = np.random.default_rng(0).integers(0, 2, (64, 64)).astype("u1")
    source.write("l/1.tif", whole[:40], nodata=0)
    source.write("l/2.tif", whole[40:, :50], transform=at(0, 40), nodata=0)
    source.sheet("a,a_o.tif,a_s.tif,l/*.tif,train")
    found = source.take()
    label = LabelCoder(source.labels, found.classes).read(found.records[0].label)
    np.testing.assert_array_equal(label[:40], whole[:40])
    np.testing.assert_array_equal(label[40:, :50], whole[40:, :50])
    assert (label[40:, 50:] == 255).all()


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"crs": "EPSG:32612"}, "another CRS"),
        ({"array": np.ones((3, 24, 24), "u2")}, r"another number of bands \(3, not 2\)"),
        ({"array": np.ones((2, 24, 24), "f4")}, r"another type of numbers \(float32, not uint16\)"),
        ({"transform": at(40, 0, size=20)}, "another pixel size"),
        ({"transform": at(40, 0) @ Affine.translation(0.4, 0)}, "another pixel grid"),
        ({"nodata": 7}, "another value of no data"),
    ],
)
def test_tiles_that_do_not_fit_are_named(tiled, change, difference):
    part = {"array": np.ones((2, 24, 24), "u2"), "transform": at(40, 0), "nodata": 0} | change
    tiled.write("raw/T_NX_o.tif", part.pop("array"), **part)
    with pytest.raises(InputError, match=rf"T_NX_o\.tif: is mosaicked with T_NE_o\.tif but has {difference}"):
        tiled.take()


def test_turned_tiles_and_broken_ones_are_reported_at_once(tiled):
    turned = at(0, 0) @ Affine.rotation(3)
    tiled.write("raw/T_NW_s.tif", np.ones((24, 40), "f4"), transform=turned)
    whole = np.random.default_rng(0).integers(1, 4000, (2, 40, 24)).astype("u2")
    path = tiled.write("raw/T_SE_l.tif", whole[:1].astype("u1"), transform=at(40, 24))
    path.write_bytes(path.read_bytes()[:-500])
    message = fault(tiled)
    assert "T_NW_s.tif: is mosaicked with T_NE_s.tif but has another direction of rows and columns" in message
    tiled.write("raw/T_NW_s.tif", np.ones((24, 40), "f4"), transform=at(0, 0))
    assert "cannot be read (" in (message := fault(tiled)) and "T_SE_l.tif" in message


def test_a_pattern_without_files_is_reported(source):
    source.scene("a")
    source.sheet("a,nowhere/T*_o.tif,a_s.tif,,train")
    assert "nowhere/T*_o.tif matches no file" in fault(source)


def test_a_pattern_of_one_file_is_that_file(source):
    source.scene("a")
    source.sheet("a,?_o.tif,a_s.tif,,train")
    assert source.take().records[0].images["optical"].files == [str(source.root / "a_o.tif")]


def test_files_without_crs_get_the_one_of_the_config(source):
    source.scene("a")
    image = np.random.default_rng(0).integers(0, 255, (2, 64, 64)).astype("u2")
    source.write("plain.tif", image, crs=None)
    source.write("l/1.tif", np.ones((32, 64), "u1"), crs=None)
    source.write("l/2.tif", np.ones((32, 64), "u1"), crs=None, transform=at(0, 32))
    source.sheet("a,plain.tif,a_s.tif,l/*.tif,train")
    message = fault(source)
    assert "plain.tif" in message and "has no CRS." in message and "or set `source.crs`" in message
    source.source = SourceConfig(layout="scenes", sheet=source.source.sheet, crs="EPSG:32633")
    (record,) = source.take().records
    assert (record.crs, record.images["sar"].overlap) == ("EPSG:32633", 1.0)
    np.testing.assert_array_equal(record.images["optical"].raster.read_all(), image)
    assert record.images["sar"].files == [str(source.root / "a_s.tif")]
    source.source = SourceConfig(layout="scenes", sheet=source.source.sheet, crs="UTM 33")
    assert "config key `source.crs`: is `UTM 33`" in fault(source)
