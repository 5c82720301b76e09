import csv
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine

from tmcnet.config import LabelsConfig, SensorConfig, SensorsConfig, SourceConfig
from tmcnet.errors import InputError
from tmcnet.hashing import file_digest
from tmcnet.raster.inventory.records import ImageRecord
from tmcnet.raster.io.geometry import reproject_points
from tmcnet.raster.io.reader import Raster

WRONG_UTM = ("EPSG:32612", Affine(10, 0, 500_000, 0, -10, 5_400_000))


def rows(source) -> list[dict[str, str]]:
    with source.json.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fault(source) -> str:
    with pytest.raises(InputError) as caught:
        source.take()
    assert not source.json.exists()
    return str(caught.value)


def test_good_scenes_are_described(source):
    source.scene("b", seed=1, transform=Affine(10, 0, 500_640, 0, -10, 5_400_000))
    source.scene("a")
    found = source.take()
    assert [r.scene for r in found.records] == ["a", "b"]
    a = found.records[0]
    assert (a.height, a.width, a.crs, a.gsd) == (64, 64, "EPSG:32633", 10.0)
    optical, sar = a.images["optical"], a.images["sar"]
    assert (optical.nodata, sar.nodata, sar.overlap, sar.scale) == (0.0, None, 1.0, "linear")
    assert list(a.bounds) == [500_000, 5_399_360, 500_640, 5_400_000]
    assert found.classes.names == ["water", "land"]
    assert rows(source)[0]["optical_nodata"] == "0" and rows(source)[0]["warnings"] == ""
    assert math.isclose(float(rows(source)[0]["label_share"]), 0.75, abs_tol=0.05)


def test_other_pixels_give_another_inventory(source):
    source.scene("a")
    first = source.take()
    assert first.records[0].digests == [file_digest(source.root / f"a_{kind}.tif") for kind in "osl"]
    with rasterio.open(source.root / "a_o.tif", "r+") as dataset:
        pixels = dataset.read()
        # neither range nor no data nor place change
        dataset.write(pixels[:, ::-1])
    second = source.take()
    assert second != first
    assert second.records[0] == replace(first.records[0], digests=second.records[0].digests)
    assert [a == b for a, b in zip(first.records[0].digests, second.records[0].digests, strict=True)] == [0, 1, 1]


def test_a_wrong_number_of_bands_names_file_and_key(source):
    source.scene("a")
    source.write("a_o.tif", np.ones((3, 64, 64), "u2"))
    assert "a_o.tif: has 3 band(s), but `sensors.optical.bands` names 2: red, nir" in fault(source)


def test_a_missing_crs_is_reported(source):
    source.scene("a")
    source.write("a_s.tif", np.ones((64, 64), "f4"), crs=None, transform=None)
    assert "a_s.tif: has no CRS and geotransform" in fault(source)


def test_scenes_that_do_not_overlap_are_reported(source):
    source.scene("a")
    source.write("a_s.tif", np.ones((64, 64), "f4"), *WRONG_UTM)
    assert "a_s.tif: covers 0% of a_o.tif; at least 50% is needed" in fault(source)


def test_partial_overlap_is_stated_and_may_be_too_little(source):
    source.scene("a")
    source.write("a_s.tif", np.ones((64, 64), "f4"), transform=Affine(10, 0, 500_160, 0, -10, 5_400_000))
    assert abs(source.take().records[0].images["sar"].overlap - 0.75) < 0.03
    assert "sar covers 7" in rows(source)[0]["warnings"]
    source.json.unlink()
    source.write("a_s.tif", np.ones((64, 64), "f4"), transform=Affine(10, 0, 500_400, 0, -10, 5_400_000))
    assert "covers 36%" in fault(source) or "covers 39%" in fault(source)


def test_overlap_is_found_across_crs(source):
    source.scene("a")
    geographic = Affine(0.0002, 0, 14.99, 0, -0.0002, 48.76)
    source.write("a_s.tif", np.ones((200, 200), "f4"), "EPSG:4326", geographic)
    assert source.take().records[0].images["sar"].overlap == 1.0


def test_a_file_that_breaks_off_is_reported_with_all_other_faults(source):
    source.scene("a")
    source.scene("b", seed=1)
    path = source.root / "a_o.tif"
    path.write_bytes(path.read_bytes()[:-3000])
    source.write("b_l.tif", np.full((64, 64), 9, "u1"))
    message = fault(source)
    assert "a_o.tif: cannot be read" in message
    assert "b_l.tif: holds 1 codes that no class has: 9 (4096 pixels)" in message


def test_the_same_fault_of_many_files_is_one_line(source):
    for i in range(12):
        source.scene(f"s{i:02}", seed=i)
        source.write(f"s{i:02}_l.tif", np.full((64, 64), 9, "u1"))
    with pytest.raises(InputError) as caught:
        source.take()
    assert len(caught.value.problems) == 1
    assert "12 files (" in str(caught.value) and "and 2 more" in str(caught.value)


def test_a_file_without_any_data_is_reported(source):
    source.scene("a")
    source.write("a_s.tif", np.full((64, 64), np.nan, "f4"))
    assert "a_s.tif: has no pixel that is valid in all bands" in fault(source)


def test_negative_power_is_reported(source):
    source.scene("a")
    source.write("a_s.tif", np.full((64, 64), -12.0, "f4"))
    assert "`sensors.sar.scale: linear` cannot be: the smallest value is -12" in fault(source)


def test_stacked_files_must_show_the_same_ground(source):
    source.scene("a")
    source.write("second.tif", np.ones((64, 64), "f4"), *WRONG_UTM)
    source.write("first.tif", np.ones((64, 64), "u2"))
    (source.root / "scenes.csv").write_text("scene,optical,sar\na,first.tif;second.tif,a_s.tif\n")
    source.source = SourceConfig(layout="scenes", sheet=str(source.root / "scenes.csv"))
    assert "second.tif: covers 0% of first.tif" in fault(source)


def test_doubled_scenes_are_noted(source):
    source.scene("a")
    source.scene("b")
    source.take()
    assert rows(source)[1]["warnings"] == "same footprint as a; optical identical with a; sar identical with a"


def test_scenes_that_share_ground_are_noted_with_the_share(source):
    source.scene("a")
    source.scene("b", seed=1, transform=Affine(10, 0, 500_320, 0, -10, 5_400_000))
    source.scene("c", seed=2, transform=Affine(10, 0, 500_900, 0, -10, 5_400_000))
    # a small part of a in another CRS
    (east,), (north,) = reproject_points("EPSG:32633", "EPSG:32632", [500_150], [5_399_850])
    place = "EPSG:32632", Affine(3, 0, east - 60, 0, -3, north + 60)
    source.write("d_o.tif", np.random.default_rng(0).integers(2, 9, (2, 40, 40)).astype("u2"), *place)
    source.write("d_s.tif", np.linspace(0.9, 1, 1600, dtype="f4").reshape(40, 40), *place)
    source.take()
    a, b, c, d = (row["warnings"] for row in rows(source))
    assert a == "" and c == ""
    assert re.fullmatch(r"(48|51)\.\d% of it is on the ground of a", b)
    assert re.fullmatch(r"100\.0% of it is on the ground of a(; .*)?", d), d


def test_values_of_one_scene_take_the_place_of_the_config(source):
    for seed, name in enumerate("ab"):
        source.scene(name, seed=seed, label=False)
    source.write("b_o.tif", np.where(np.eye(64, dtype=bool), 9, 5).astype("u2")[None].repeat(2, 0), nodata=0)
    decibels = np.full((64, 64), -12, "f4")
    decibels[:, :32] = -99
    source.write("b_s.tif", decibels)
    (source.root / "scenes.csv").write_text(
        "scene,optical,sar,optical_nodata,sar_nodata,sar_scale\na,a_o.tif,a_s.tif,,,\nb,b_o.tif,b_s.tif,9,-99,db\n"
    )
    source.source = SourceConfig(layout="scenes", sheet=str(source.root / "scenes.csv"))
    a, b = source.take().records
    assert [image.nodata for image in a.images.values()] == [0, None] and a.images["sar"].scale == "linear"
    assert [image.raster.files[0].nodata for image in a.images.values()] == [None, None]
    assert [image.nodata for image in b.images.values()] == [9, -99] and b.images["sar"].scale == "db"
    assert [image.raster.files[0].nodata for image in b.images.values()] == [9, -99]
    _, row = rows(source)
    assert (row["optical_nodata"], row["sar_nodata"], row["sar_valid_share"]) == ("9", "-99", "0.500000")
    assert float(row["optical_valid_share"]) == pytest.approx(63 / 64, abs=1e-6)
    assert (row["sar_min"], row["sar_max"], row["optical_max"]) == ("-12", "-12", "5")


def test_pictures_beside_decibels_are_reported(source):
    for seed, name in enumerate("ab"):
        source.scene(name, seed=seed, label=False)
    (source.root / "scenes.csv").write_text(
        "scene,optical,sar,sar_scale\na,a_o.tif,a_s.tif,none\nb,b_o.tif,b_s.tif,\n"
    )
    source.source = SourceConfig(layout="scenes", sheet=str(source.root / "scenes.csv"))
    assert "leaves some scenes as they are while others become decibels (linear: b; none: a)" in fault(source)


def test_a_scale_that_the_sheet_declares_wrongly_is_reported(source):
    source.scene("a", label=False)
    source.write("a_s.tif", np.full((64, 64), -12, "f4"))
    (source.root / "scenes.csv").write_text("scene,optical,sar,sar_scale\na,a_o.tif,a_s.tif,amplitude\n")
    source.source = SourceConfig(layout="scenes", sheet=str(source.root / "scenes.csv"))
    assert "a_s.tif: `sar_scale: amplitude` cannot be: the smallest value is -12" in fault(source)


def test_values_that_are_no_numbers_are_counted(source):
    source.scene("a")
    values = np.ones((64, 64), "f4")
    values[0, :3] = np.inf
    values[1, :5] = np.nan
    source.write("a_s.tif", values)
    source.take()
    (row,) = rows(source)
    assert "a_s.tif: 3 infinite values" in row["warnings"]
    assert (row["sar_infinite"], row["sar_nan"], row["optical_nan"]) == ("3", "5", "0")


def test_codes_of_a_label_file_are_listed_with_their_pixels(source):
    source.scene("a")
    codes = np.zeros((64, 64), "u1")
    codes[:2], codes[2, :5] = 3, 1
    source.write("a_l.tif", codes, transform=Affine(10, 0, 500_160, 0, -10, 5_400_000))
    source.take()
    (row,) = rows(source)
    assert row["label_codes"] == "0: 3963; 1: 5; 3: 128"
    assert float(row["label_overlap"]) == pytest.approx(0.75, abs=0.03)


def test_a_label_may_cover_a_part_of_its_scene(source):
    source.scene("a")
    # a quarter of the scene; its other three quarters are beside the label
    source.write("a_l.tif", np.repeat([0, 2], 16)[None].repeat(32, 0).astype("u1"))
    assert source.take().records[0].label is not None
    (row,) = rows(source)
    assert "label covers 2" in row["warnings"] and "the rest is void" in row["warnings"]
    assert float(row["label_share"]) == 0.5
    assert float(row["label_scene_share"]) == pytest.approx(0.125, abs=0.01)


def test_the_labelled_share_is_that_of_the_scene_where_the_label_is_larger(source):
    source.scene("a")
    codes = np.zeros((256, 256), "u1")
    codes[:32, :64] = 1
    source.write("a_l.tif", codes)
    source.take()
    assert float(rows(source)[0]["label_scene_share"]) == pytest.approx(0.5, abs=0.02)


LEARNT = "a,a_o.tif,a_s.tif,a_l.tif,train"


def test_scenes_with_one_sensor_are_described_by_it(source):
    source.sensors = SensorsConfig(
        optical=source.sensors["optical"], sar=SensorConfig(bands=["vv"], kind="backscatter", scale="auto")
    )
    for seed, name in enumerate("abc"):
        source.scene(name, seed=seed)
    corner = Affine(20, 0, 700_000, 0, -20, 5_300_000)
    source.write("c_s.tif", np.random.default_rng(9).gamma(2, 0.05, (40, 30)).astype("f4"), transform=corner)
    source.sheet(LEARNT, "b,b_o.tif,,,predict", "c,,c_s.tif,,predict")
    a, b, c = source.take().records
    assert [record.images["sar"].scale for record in (a, b, c)] == ["linear", "", "linear"]
    assert b.images["sar"] == ImageRecord(Raster(()), "", None, 0.0) and b.images["optical"].nodata == 0.0
    assert (c.images["optical"].files, c.height, c.width, c.gsd, c.bounds[0]) == ([], 40, 30, 20.0, 700_000)
    _, b, c = rows(source)
    assert b["sar_files"] == b["sar_valid_share"] == c["optical_files"] == c["optical_gsd"] == ""
    assert b["warnings"] == "no sar image: mapped with one sensor; same footprint as a"
    assert c["warnings"].startswith("no optical image: mapped with one sensor; pixels of 20 m; in the training")


def test_pixel_sizes_are_compared_in_metres(source):
    source.scene("a")
    source.write(
        "b_s.tif",
        np.linspace(0.9, 1.1, 64 * 64, dtype="f4").reshape(64, 64),
        "EPSG:4326",
        Affine(1e-4, 0, 15, 0, -1e-4, 48),
    )
    source.sheet(LEARNT, "b,,b_s.tif,,predict")
    source.take()
    assert rows(source)[1]["warnings"] == "no optical image: mapped with one sensor"


def test_faults_of_the_only_sensor_are_reported(source):
    source.scene("a")
    source.sheet(LEARNT, "b,,two.tif,,predict", "c,,nowhere.tif,,predict")
    source.write("two.tif", np.ones((2, 64, 64), "f4"))
    source.write("nowhere.tif", np.ones((64, 64), "f4"), crs=None, transform=None)
    message = fault(source)
    assert "two.tif: has 2 band(s), but `sensors.sar.bands` names 1" in message
    assert "nowhere.tif: has no CRS and geotransform" in message and "optical" not in message


def test_a_label_must_lie_on_the_only_sensor(source):
    source.scene("a")
    source.scene("b", transform=Affine(10, 0, 800_000, 0, -10, 5_400_000))
    source.sheet(LEARNT, "b,,b_s.tif,a_l.tif,predict")
    assert "a_l.tif: covers 0% of b_s.tif" in fault(source)


def test_labels_without_classes_are_reported(source):
    source.scene("a")
    source.labels = LabelsConfig()
    assert "config key `labels.classes`: is empty, but there are labels" in fault(source)


def test_scenes_without_labels_need_no_classes(source):
    source.scene("a", label=False)
    source.labels = LabelsConfig()
    source.source = SourceConfig(layout="scenes", optical="{scene}_o.tif", sar="{scene}_s.tif")
    assert source.take().records[0].label is None


def test_tiles_need_no_crs_but_one_size(tile_source, write_png_tile):
    write_png_tile(tile_source, "train", "01")
    write_png_tile(tile_source, "test", "1", seed=1)
    found = tile_source.take()
    assert [(r.scene, r.crs, r.images["sar"].scale) for r in found.records] == [
        ("test_1", "", "none"),
        ("train_1", "", "none"),
    ]
    tile_source.json.unlink()
    png = {"driver": "PNG", "crs": None, "transform": None}
    tile_source.write("train/s_01.png", np.ones((32, 33), "u1"), **png)
    assert "differs in size from the other files: o_01.png 32 x 32, s_01.png 33 x 32, l_01.png 32 x 32" in fault(
        tile_source
    )


def test_an_empty_tile_is_only_noted(tile_source, write_png_tile):
    write_png_tile(tile_source, "train", "1")
    png = {"driver": "PNG", "crs": None, "transform": None}
    tile_source.write("train/o_1.png", np.zeros((3, 32, 32), "u1"), **png)
    tile_source.take()
    assert rows(tile_source)[0]["warnings"] == "o_1.png: no data everywhere"


@pytest.mark.parametrize("coded", ["ids", "rgb"])
def test_the_seed_layout_brings_its_classes(source, coded):
    source.source = SourceConfig(layout="seed")
    source.labels = LabelsConfig()
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["r", "g", "b"], kind="reflectance"),
        sar=SensorConfig(bands=["vv"], kind="backscatter"),
    )
    (source.root / "class_dict.txt").write_text("name,r,g,b\nwater,0,0,255\nland,0,255,0\n")
    bare = {"crs": None, "transform": None}
    ids = np.random.default_rng(0).integers(0, 2, (16, 16))
    label = ids.astype("u1") if coded == "ids" else np.stack([ids * 0, ids * 255, 255 - ids * 255]).astype("u1")
    source.write("train_RGB/t.tif", np.ones((3, 16, 16), "u1"), **bare)
    source.write("train_SAR/t.tif", np.ones((16, 16), "u1"), **bare)
    source.write("train_lbl/t.tif", label, **bare)
    found = source.take()
    assert found.label_encoding == coded and found.classes.names == ["water", "land"]
    assert found.classes.classes[0].color == "#0000ff"


def test_different_scales_in_one_source_are_reported(source):
    source.sensors = SensorsConfig(
        optical=source.sensors["optical"], sar=SensorConfig(bands=["vv"], kind="backscatter", scale="auto")
    )
    source.scene("a")
    source.scene("b")
    source.write("b_s.tif", np.linspace(-20, 1, 64 * 64, dtype="f4").reshape(64, 64))
    assert "finds different scales of backscatter (db: b; linear: a)" in fault(source)
