"""What agencies and archives deliver means from raw file to aligned raster what the files say."""

import csv
import json
import shutil

import numpy as np
import pytest
import rasterio
import rasterio.rpc
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.warp import transform

from tests.conftest import put
from tests.raster.conftest import UTM
from tmcnet.config import AlignConfig, SensorConfig, SensorsConfig, SourceConfig
from tmcnet.errors import InputError
from tmcnet.raster import names
from tmcnet.raster.inventory.sources import find_entries
from tmcnet.raster.io.reader import read_float
from tmcnet.raster.names import local_files, remote_stamps
from tmcnet.raster.register.alignment import Alignment
from tmcnet.raster.tiling import grid
from tmcnet.raster.tiling.grid import align_scene

pytestmark = pytest.mark.usefixtures("no_pictures")

SIZE = 96
EMPTY = 30
"""Columns without data, from the left."""


@pytest.fixture
def random():
    return np.random.default_rng(0)


def use(source, bands=1, **sar):
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=[f"b{i}" for i in range(bands)], kind="reflectance"),
        sar=SensorConfig(bands=["vv"], kind="backscatter", **{"scale": "none"} | sar),
    )


def power(random, *shape):
    return random.gamma(4, 0.02, shape or (SIZE, SIZE)).astype("f4")


def optical(random, bands=1):
    return random.integers(200, 3000, (bands, SIZE, SIZE)).astype("u2")


def align(source, scene="a", **config):
    source.take()
    folder = source.root / "results" / "scenes" / scene
    align_scene(source.json, scene, source.sensors, source.labels, AlignConfig(enabled=False, **config), folder)
    return folder


def rows(source):
    with source.json.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_mask(path, form):
    kept = np.full((SIZE, SIZE), 255, "u1")
    kept[:, :EMPTY] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=form == "internal"), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(kept)


@pytest.mark.parametrize("form", ["internal", ".msk"])
@pytest.mark.parametrize("resolution", [None, 20.0])
def test_masks_of_stacked_files_count(source, random, form, resolution):
    use(source, 3)
    for name in "123":
        write_mask(source.write(f"b{name}.tif", optical(random)), form)
    source.write("sar.tif", power(random))
    source.sheet("a,b1.tif;b2.tif;b3.tif,sar.tif,,train")
    empty = np.isnan(read_float(align(source, resolution=resolution) / "optical.tif"))
    edge = EMPTY if resolution is None else EMPTY // 2
    assert empty[:, :, :edge].all() and not empty[:, :, edge:].any()
    assert float(rows(source)[0]["optical_valid_share"]) == pytest.approx(1 - EMPTY / SIZE, abs=1e-6)


def test_a_mask_and_a_nodata_tag_count_together(source, random):
    use(source)
    values = optical(random)
    values[:, :5] = 0
    write_mask(source.write("o.tif", values, nodata=0), "internal")
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    empty = np.isnan(read_float(align(source) / "optical.tif")[0])
    assert empty[:5].all() and empty[:, :EMPTY].all() and not empty[5:, EMPTY:].any()


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("untagged", [0, 2])
def test_the_place_in_a_stack_of_the_file_without_tag_does_not_matter(source, random, dtype, untagged):
    use(source, 3)
    stored = []
    for number in range(3):
        values = random.integers(2, 200, (SIZE, SIZE)).astype(dtype)
        values[:, :EMPTY] = 0
        source.write(f"b{number}.tif", values, nodata=None if number == untagged else 0)
        stored.append(values)
    source.write("s.tif", power(random))
    source.sheet("a,b0.tif;b1.tif;b2.tif,s.tif,,train")
    found = read_float(align(source) / "optical.tif")
    for number in range(3):
        expected = stored[number].astype("f4")
        if number != untagged:
            expected[:, :EMPTY] = np.nan
        np.testing.assert_array_equal(found[number], expected)


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
@pytest.mark.parametrize("scale", ["auto", "linear", "amplitude"])
def test_complex_numbers_are_read_as_power(source, random, dtype, scale):
    use(source, scale=scale, clip_db=(-60, 60))
    source.write("o.tif", optical(random))
    squared = power(random).astype("f8") * (1 if dtype == "complex64" else 1e6)
    values = np.sqrt(squared) * np.exp(2j * np.pi * random.random(squared.shape))
    source.write("s.tif", values.astype("complex64"), dtype=dtype)
    source.sheet("a,o.tif,s.tif,,train")
    found = read_float(align(source) / "sar.tif")[0]
    np.testing.assert_allclose(found, 10 * np.log10(squared), atol=0.001 if dtype == "complex64" else 0.5)
    assert "sar is complex: read as power |z|^2" in rows(source)[0]["warnings"]


def test_tags_for_scale_and_offset_make_two_deliveries_of_one_ground_equal(source, random):
    use(source)
    ground = random.uniform(0.02, 0.3, (SIZE, SIZE))
    for name, more in (("a", 0), ("b", 1000)):
        path = source.write(f"{name}.tif", np.round(ground * 1e4 + more).astype("u2"))
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (1e-4,), (-more / 1e4,)
        source.write(f"s{name}.tif", power(random))
    source.sheet("a,a.tif,sa.tif,,train", "b,b.tif,sb.tif,,train")
    one, two = (read_float(align(source, name) / "optical.tif")[0] for name in "ab")
    np.testing.assert_allclose(one, ground, atol=1e-4)
    np.testing.assert_allclose(two, one, atol=1e-6)
    assert "optical has other tags for scale and offset than a" in rows(source)[1]["warnings"]


@pytest.mark.parametrize("where", ["config", "sheet"])
def test_scale_and_offset_can_be_declared(source, random, where):
    use(source)
    stored = optical(random)
    source.write("o.tif", stored, nodata=777)
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    if where == "sheet":
        sheet = source.root / "scenes.csv"
        sheet.write_text("scene,optical,sar,optical_scale_factor,optical_add_offset\na,o.tif,s.tif,0.0001,-0.1\n")
    else:
        update = {"scale_factor": 1e-4, "add_offset": -0.1}
        source.sensors = SensorsConfig(
            optical=source.sensors["optical"].model_copy(update=update), sar=source.sensors["sar"]
        )
    expected = np.where(stored == 777, np.nan, stored * 1e-4 - 0.1)
    np.testing.assert_allclose(read_float(align(source) / "optical.tif"), expected, atol=1e-6)


@pytest.mark.parametrize(("factor", "offset"), [("", "0"), ("1", ""), ("1", "0")])
def test_numbers_that_the_sheet_leaves_as_they_are_count_in_place_of_the_config(source, random, factor, offset):
    use(source)
    sensor = source.sensors["optical"].model_copy(update={"scale_factor": 1e-4, "add_offset": -0.1})
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    source.write("o.tif", stored := optical(random))
    source.write("s.tif", power(random))
    source.sheet()
    columns = "scene,optical,sar,optical_scale_factor,optical_add_offset"
    (source.root / "scenes.csv").write_text(f"{columns}\na,o.tif,s.tif,{factor},{offset}\n")
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), stored)


def test_scenes_on_one_ground_whose_values_differ_are_named(source, random):
    use(source)
    for name, factor in (("a", 1), ("b", 10)):
        source.write(f"{name}.tif", optical(random) * factor)
        source.write(f"s{name}.tif", power(random))
    source.sheet("a,a.tif,sa.tif,,train", "b,b.tif,sb.tif,,train")
    source.take()
    first, second = (row["warnings"] for row in rows(source))
    assert "the median of optical is" not in first and "the median of optical is" in second


def test_decibels_stored_as_whole_numbers_are_scaled_by_their_tag(source, random):
    use(source, scale="db")
    source.write("o.tif", optical(random))
    decibels = 10 * np.log10(power(random))
    path = source.write("s.tif", np.round(decibels * 100).astype("i2"))
    source.sheet("a,o.tif,s.tif,,train")
    with pytest.raises(InputError, match=r"`sensors\.sar\.scale: db` cannot be: the values are from -"):
        source.take()
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (0.01,)
    np.testing.assert_allclose(read_float(align(source) / "sar.tif")[0], decibels.clip(-35, 10), atol=0.006)
    use(source, scale="auto")
    np.testing.assert_allclose(read_float(align(source) / "sar.tif")[0], decibels.clip(-35, 10), atol=0.006)


@pytest.mark.parametrize(
    ("scale", "factor", "shift", "message"),
    [
        ("linear", 1e4, 20.0, "band 1 is 10 dB everywhere after conversion from `linear`"),
        ("amplitude", 1e4, 20.0, "band 1 is 10 dB everywhere after conversion from `amplitude`"),
        ("db", 1.0, 0.0, "most backscatter is below 0 dB"),
        ("linear", -1.0, 0.0, "the smallest value is -"),
    ],
)
def test_a_declared_scale_that_the_values_contradict_stops(source, random, scale, factor, shift, message):
    use(source, scale=scale)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random) * factor + shift)
    source.sheet("a,o.tif,s.tif,,train")
    with pytest.raises(InputError, match=message):
        source.take()


def test_undeclared_fill_at_the_edge_is_named_with_its_share_and_key(source, random):
    use(source, scale="linear")
    values, backscatter = optical(random), power(random)
    values[:, :, :EMPTY], backscatter[:, :EMPTY] = 0, 0
    source.write("o.tif", values)
    source.write("s.tif", backscatter)
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    found = rows(source)[0]["warnings"]
    share = f"{EMPTY / SIZE:.1%}"
    what = "of the optical pixels are 0 in all bands, connected to the edge: declare `sensors.optical.nodata`"
    assert f"{share} {what}" in found
    assert f"{share} of the sar pixels are 0 in all bands" in found
    assert f"{share} of the pixels are 0 in both the optical and the SAR image" in found
    source.write("o.tif", values, nodata=0)
    source.write("s.tif", backscatter, nodata=0)
    source.take()
    assert rows(source)[0]["warnings"] == ""


@pytest.mark.parametrize(
    "transform",
    [Affine(10, 0, 5e5, 0, 10, 5_399_040), UTM[1] @ Affine.rotation(20), UTM[1] @ Affine.scale(1, -1)],
)
def test_south_up_and_turned_stacks_are_those_of_one_file(source, random, transform):
    use(source, 3)
    values = optical(random, 3)
    values[:, :EMPTY] = 0
    for number in range(3):
        source.write(f"b{number}.tif", values[number], transform=transform, nodata=0)
    source.write("all.tif", values, transform=transform, nodata=0)
    source.write("s.tif", power(random), transform=transform)
    source.sheet("a,b0.tif;b1.tif;b2.tif,s.tif,,train", "b,all.tif,s.tif,,train")
    stacked, whole = (align(source, name) / "optical.tif" for name in "ab")
    assert stacked.read_bytes() == whole.read_bytes()
    np.testing.assert_array_equal(np.nan_to_num(read_float(stacked)), values)


def test_files_of_a_stack_may_differ_in_resolution_type_and_crs(source, random):
    use(source, 3)
    fine = np.full((SIZE, SIZE), 7, "u1")
    fine[:, :EMPTY] = 0
    coarse = np.full((SIZE // 2, SIZE // 2), 300, "u2")
    source.write("coarse.tif", coarse, transform=UTM[1] @ Affine.scale(2))
    source.write("fine.tif", fine, nodata=0)
    degrees = Affine(2e-4, 0, 14.99, 0, -2e-4, 48.76)
    source.write("other.tif", np.full((100, 150), -1.5, "f4"), "EPSG:4326", degrees)
    source.write("s.tif", power(random))
    source.sheet("a,coarse.tif;fine.tif;other.tif,s.tif,,train")
    one, two, three = read_float(align(source) / "optical.tif")
    assert (one == 300).all() and (three == -1.5).all()
    assert np.isnan(two[:, :EMPTY]).all() and (two[:, EMPTY:] == 7).all()
    (row,) = rows(source)
    assert row["optical_gsd"] == "10"
    assert "optical files have pixels of 0.0002, 10, 20: stacked at 10" in row["warnings"]


def test_no_fringe_between_no_data_and_values(source, random):
    use(source)
    values = np.full((SIZE, SIZE), 1000, "u2")
    values[:, :EMPTY] = 0
    source.write("o.tif", optical(random))
    source.write("s.tif", values, transform=UTM[1] @ Affine.translation(0.37, 0.41), nodata=0)
    source.sheet("a,o.tif,s.tif,,train")
    found = read_float(align(source) / "sar.tif")
    assert set(np.unique(found[np.isfinite(found)])) == {1000}


def test_valid_pixels_that_contradict_the_inventory_stop_the_scene(source, random):
    use(source)
    values = optical(random)
    values[:, :EMPTY] = 0
    source.write("o.tif", values, nodata=0)
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    source.write("o.tif", values)
    for resolution in (None, 20.0):
        with pytest.raises(InputError, match=r"scene a: optical band b0: .*% of the pixels .* 100\.00% on the same"):
            align_scene(
                source.json,
                "a",
                source.sensors,
                source.labels,
                AlignConfig(enabled=False, resolution=resolution),
                source.root / "results" / "a",
            )


@pytest.mark.parametrize(("marked", "alpha"), [(True, [0, 255]), (False, [0, 255]), (False, [0, 1])])
def test_an_extra_band_is_a_mask(source, random, marked, alpha):
    use(source, 3)
    values = random.integers(1, 255, (4, SIZE, SIZE)).astype("u1")
    values[3] = alpha[1]
    values[3, :, :EMPTY] = alpha[0]
    options = {"photometric": "rgb", "alpha": "yes" if marked else "unspecified"}
    source.write("o.tif", values, **options)
    source.write("s.tif", power(random))
    label = np.stack([random.integers(0, 4, (SIZE, SIZE)), values[3]]).astype("u1")
    source.write("l.tif", label)
    source.sheet("a,o.tif,s.tif,l.tif,train")
    folder = align(source)
    empty = np.isnan(read_float(folder / "optical.tif"))
    assert empty[:, :, :EMPTY].all() and not empty[:, :, EMPTY:].any()
    with rasterio.open(folder / "label.tif") as dataset:
        ids = dataset.read(1)
    assert (ids[:, :EMPTY] == 255).all()
    np.testing.assert_array_equal(ids[:, EMPTY:], np.array([255, 0, 1, 1])[label[0, :, EMPTY:]])
    use(source, 4)
    assert not np.isnan(read_float(align(source) / "optical.tif")).any()


def test_a_reversed_range_of_decibels_is_refused():
    with pytest.raises(ValueError, match=r"`clip_db` \(5, -30\) must be \[lower, upper\]"):
        SensorConfig(bands=["vv"], kind="backscatter", clip_db=(5, -30))


def test_a_sidecar_that_changes_or_appears_belongs_to_the_scene(source, random):
    use(source)
    values = optical(random)
    values[:, :, :EMPTY] = 0
    source.write("o.img", values, driver="ENVI")
    source.write("s.tif", power(random))
    source.sheet("a,o.img,s.tif,,train")

    def inputs():
        return [path.name for path in find_entries(source.source, source.root, source.sensors)[0].files]

    first = source.take().records[0]
    assert inputs()[:2] == ["o.img", "o.hdr"] and float(rows(source)[0]["optical_valid_share"]) == 1
    with (source.root / "o.hdr").open("a") as file:
        file.write("data ignore value = 0\n")
    second = source.take().records[0]
    assert second.digests[1] != first.digests[1] and len(second.digests) == len(first.digests)
    assert float(rows(source)[0]["optical_valid_share"]) == pytest.approx(1 - EMPTY / SIZE, abs=1e-6)
    write_mask(source.root / "s.tif", ".msk")
    assert "s.tif.msk" in inputs() and len(source.take().records[0].digests) == len(first.digests) + 1


WORLD_FILE = "10\n0\n0\n-10\n500005\n5399995\n"


@pytest.mark.parametrize(
    ("name", "driver", "listed", "others"),
    [
        ("a.TIF", "GTiff", {"a.TFW": WORLD_FILE, "a.TIF.aux.xml": "<PAMDataset/>"}, ("a.txt", "a.png", "a.TIF.ovr")),
        ("a.rst", "RST", {"a.rdc": "", "a.rst.aux.xml": ""}, ("a.csv",)),
        ("a.sdat", "SAGA", {"a.sgrd": "", "a.prj": ""}, ("a.aux.tif",)),
    ],
)
def test_gdal_says_which_files_beside_a_raster_belong_to_it(source, random, name, driver, listed, others):
    place = {"crs": None, "transform": None} if driver == "GTiff" else {}
    path = source.write(name, optical(random).astype("f4"), driver=driver, **place)
    for file, text in {**listed, **dict.fromkeys(others, "x")}.items():
        if not path.with_name(file).exists():
            path.with_name(file).write_text(text)
    assert {file.name for file in local_files(path)} == {name, *listed}


def test_subdatasets_are_listed_and_can_be_named(source, random):
    use(source, 2)
    values = optical(random, 2)
    rasterio.shutil.copy(source.write("two.tif", values), source.root / "o.nc", driver="netCDF")
    source.write("s.tif", power(random))
    source.sheet("a,o.nc,s.tif,,train")
    with pytest.raises(InputError, match=r"o\.nc: holds 2 images under names of their own: netcdf:.*o\.nc:Band1"):
        source.take()
    source.sheet("a,NETCDF:o.nc:Band1;NETCDF:o.nc:Band2,s.tif,,train")
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values)
    assert find_entries(source.source, source.root, source.sensors)[0].files[0] == source.root / "o.nc"
    source.sheet("a,NETCDF:gone.nc:Band1,s.tif,,train")
    with pytest.raises(InputError, match="does not exist"):
        source.take()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_files_in_archives_and_folders_are_read_or_listed(source, random, kind):
    use(source)
    values = optical(random)
    path = source.write("in/o.tif", values)
    shutil.make_archive(str(source.root / "o"), kind, source.root, "in/o.tif")
    source.write("s.tif", power(random))
    source.sheet(f"a,/vsi{kind}/o.{kind}/in/o.tif,s.tif,,train")
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values)
    assert find_entries(source.source, source.root, source.sensors)[0].files[0] == source.root / f"o.{kind}"
    source.sheet(f"a,o.{kind},s.tif,,train")
    with pytest.raises(InputError, match=rf"inside are /vsi{kind}/.*o\.{kind}/in/o\.tif"):
        source.take()
    (source.root / "o.SAFE" / "IMG").mkdir(parents=True)
    path.rename(source.root / "o.SAFE" / "IMG" / "B02.tif")
    source.sheet("a,o.SAFE,s.tif,,train")
    with pytest.raises(InputError, match=r"inside are .*o\.SAFE/IMG/B02\.tif"):
        source.take()


def test_remote_files_are_read_only_if_the_config_says_so(source, random, served, monkeypatch):
    url, asked = served
    monkeypatch.setenv("CPL_VSIL_CURL_ALLOWED_FILENAME", "none")
    use(source)
    values = optical(random)
    source.write("served/o.tif", values)
    source.write("s.tif", power(random))
    hidden = source.root / "hidden.vrt"
    hidden.write_text(
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 10, 0, 5400000, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">/vsicurl/{url}/o.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for name in (f"/vsicurl/{url}/o.tif", f"{url}/o.tif", "hidden.vrt"):
        source.sheet(f"a,{name},s.tif,,train")
        with pytest.raises(InputError, match=r"is remote or .* Set `source\.remote: true`"):
            source.take()
        with pytest.raises(InputError):
            read_float(source.root / name if name == "hidden.vrt" else name)
    assert not asked.exists()
    for name in (f"/vsicurl/{url}/o.tif", f"{url}/o.tif", "hidden.vrt"):
        source.sheet(f"a,{name},s.tif,,train")
        source.source = source.source.model_copy(update={"remote": True})
        np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values)
    assert "/o.tif" in asked.read_text()


def digests(source):
    (record,) = source.take().records
    return record.digests


def test_a_remote_file_that_changed_is_noticed(source, random, served):
    url, _ = served
    use(source)
    source.write("served/o.tif", optical(random))
    source.write("s.tif", power(random))
    source.sheet(f"a,{url}/o.tif,s.tif,,train")
    source.source = source.source.model_copy(update={"remote": True})
    (stamp,) = remote_stamps([f"{url}/o.tif", "s.tif"])
    before = digests(source)
    assert len(before) == 2 and digests(source) == before
    source.write("served/o.tif", optical(random) + 1)
    names.stamp.cache_clear()
    assert remote_stamps([f"/vsicurl/{url}/o.tif"]) != [f"/vsicurl/{stamp}"]
    assert digests(source)[0] == before[0] and digests(source)[1] != before[1]
    with pytest.raises(InputError, match=r"missing\.tif: cannot be reached"):
        remote_stamps([f"{url}/missing.tif"])
    assert remote_stamps(["WMS:http://localhost/", source.root / "s.tif"]) == []


def test_scenes_in_object_storage_are_read_and_their_changes_noticed(source, random, bucket, monkeypatch):
    monkeypatch.setenv("CPL_VSIL_CURL_ALLOWED_FILENAME", "none")
    place, url = bucket
    use(source)
    values = optical(random)
    put(f"{url}/o.tif", source.write("o.tif", values).read_bytes())
    source.write("s.tif", power(random))
    source.sheet(f"a,{place}/o.tif,s.tif,,train")
    source.source = source.source.model_copy(update={"remote": True})
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values)
    before = digests(source)
    put(f"{url}/o.tif", source.write("o.tif", values + 1).read_bytes())
    names.stamp.cache_clear()
    after = digests(source)
    assert after[0] == before[0] and after[1] != before[1]


@pytest.mark.parametrize("form", ["gcps", "rpcs", "rpcs and corners"])
@pytest.mark.parametrize("nodes", [False, True])
def test_a_file_with_control_points_shows_a_landmark_in_its_place(source, monkeypatch, form, nodes):
    use(source)
    place = np.array([520_000 - 19_480.0, 5_399_600.0])
    column, row = ~UTM[1] @ place
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    source.write("o.tif", np.full((SIZE, SIZE), 500, "u2"))
    turn = np.deg2rad(12)
    swath = Affine(10 * np.cos(turn), 10 * np.sin(turn), 499_950, 10 * np.sin(turn), -10 * np.cos(turn), 5_399_900)
    if form != "gcps":
        swath = Affine(1e-4, 0, 14.999, 0, -1e-4, 48.755)
        (lon,), (lat,) = transform(UTM[0], "EPSG:4326", [place[0]], [place[1]])
        there = ~swath @ (lon, lat)
    else:
        there = ~swath @ place
    values = (100 + 1000 * np.exp(-((x - there[0]) ** 2 + (y - there[1]) ** 2) / 18)).astype("f4")
    path = source.write("s.tif", values, crs=None, transform=None)
    with rasterio.open(path, "r+") as dataset:
        if form == "gcps":
            at = [(c, r, *(swath @ (c, r))) for r in (0, 48, 96) for c in (0, 48, 96)]
            lon, lat = transform(UTM[0], "EPSG:4326", [p[2] for p in at], [p[3] for p in at])
            points = [GroundControlPoint(r, c, a, b) for (c, r, *_), a, b in zip(at, lon, lat, strict=True)]
            dataset.gcps = points, rasterio.CRS.from_epsg(4326)
        else:
            # pixel centres: sample = (lon - lon_off) / scale, line = -(lat - lat_off) / scale
            lines = {"line_num_coeff": [0, 0, -1] + [0] * 17, "samp_num_coeff": [0, 1] + [0] * 18}
            ones = [1] + [0] * 19
            dataset.rpcs = rasterio.rpc.RPC(
                height_off=100,
                height_scale=100,
                lat_off=48.75,
                lat_scale=0.005,
                line_off=49.5,
                line_scale=50,
                long_off=15.004,
                long_scale=0.005,
                samp_off=49.5,
                samp_scale=50,
                line_den_coeff=ones,
                samp_den_coeff=ones,
                **lines,
            )
            if form == "rpcs and corners":  # rough ones, as in a NITF
                corners = ((0, 0, 14.99, 48.76), (0, 96, 15.02, 48.76), (96, 96, 15.02, 48.74), (96, 0, 14.99, 48.74))
                dataset.gcps = [GroundControlPoint(*corner) for corner in corners], rasterio.CRS.from_epsg(4326)
    source.sheet("a,o.tif,s.tif,,train")
    config = {}
    if nodes:
        grid_nodes = [[float(c), float(r), 2.0, -1.0] for r in range(0, 97, 24) for c in range(0, 97, 24)]
        found = Alignment("aligned", "planted", [], 0.4, "thin_plate", None, grid_nodes)
        monkeypatch.setattr(grid, "estimate", lambda *_: found)
        config = {"enabled": True}
    source.take()
    folder = source.root / "results" / "a"
    align_scene(source.json, "a", source.sensors, source.labels, AlignConfig(**({"enabled": False} | config)), folder)
    found = np.nan_to_num(read_float(folder / "sar.tif")[0] - 150).clip(min=0)
    centre = np.array([(x * found).sum(), (y * found).sum()]) / found.sum()
    expected = np.array([column, row]) - ([2, -1] if nodes else [0, 0])
    assert np.abs(centre - expected).max() < 0.2
    (record,) = json.loads((folder / "alignment.json").read_text())["control_points"]["sar"]
    assert record["rmse_px"] < 0.05 and record["n_points"] >= 9
    assert "control points" in rows(source)[0]["warnings"]


def test_codes_of_a_quality_mask_are_no_data(source, random):
    use(source)
    values = optical(random)
    source.write("o.tif", values)
    source.write("s.tif", power(random))
    codes = np.full((SIZE // 2, SIZE // 2), 4, "u1")
    codes[:, : EMPTY // 2], codes[:3] = 9, 5
    source.write("scl.tif", codes, transform=UTM[1] @ Affine.scale(2))
    source.sheet()
    (source.root / "scenes.csv").write_text("scene,optical,sar,optical_mask\na,o.tif,s.tif,scl.tif\n")
    with pytest.raises(InputError, match=r"scl\.tif: is a quality mask, .* `sensors\.optical\.mask_codes`"):
        source.take()
    optical_config = source.sensors["optical"].model_copy(update={"mask_codes": [3, 8, 9, 10]})
    source.sensors = SensorsConfig(optical=optical_config, sar=source.sensors["sar"])
    found = read_float(align(source) / "optical.tif")
    expected = values.astype("f4")
    expected[np.kron(codes, np.ones((2, 2)))[None] == 9] = np.nan
    np.testing.assert_array_equal(found, expected)
    assert source.root / "scl.tif" in find_entries(source.source, source.root, source.sensors)[0].files


def masked(source, codes=(9,)):
    """Add the mask `scl.tif` to the only scene."""
    source.sheet()
    (source.root / "scenes.csv").write_text("scene,optical,sar,optical_mask\na,o.tif,s.tif,scl.tif\n")
    optical_config = source.sensors["optical"].model_copy(update={"mask_codes": list(codes)})
    source.sensors = SensorsConfig(optical=optical_config, sar=source.sensors["sar"])


def test_a_quality_mask_elsewhere_or_of_a_part_is_named(source, random):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    masked(source)
    codes = np.full((SIZE, SIZE), 4, "u1")
    source.write("scl.tif", codes, transform=UTM[1] @ Affine.translation(SIZE / 2, 0))
    source.take()
    assert "the quality mask covers 5" in rows(source)[0]["warnings"]
    assert "has the codes 4, none of which is in `sensors.optical.mask_codes`" in rows(source)[0]["warnings"]
    source.write("scl.tif", codes, transform=UTM[1] @ Affine.translation(5 * SIZE, 0))
    with pytest.raises(InputError, match=r"scl\.tif: is the quality mask of o\.tif, but covers 0% of it"):
        source.take()


@pytest.mark.parametrize("placed", ["by a transform", "by the same points"])
def test_a_quality_mask_lies_over_an_image_placed_by_control_points(source, random, placed):
    use(source)
    values, codes = optical(random), np.full((SIZE, SIZE), 4, "u1")
    codes[20:40, 50:80] = 9
    turned = UTM[1] @ Affine.rotation(-12) @ Affine.translation(-8, -12)
    points = [GroundControlPoint(r, c, *(turned @ (c, r))) for r in (0, 48, 96) for c in (0, 48, 96)]
    image, mask = (source.write(name, v, crs=None, transform=None) for name, v in (("s", values), ("scl.tif", codes)))
    for path in (image, mask)[: 2 if placed == "by the same points" else 1]:
        with rasterio.open(path, "r+") as dataset:
            dataset.gcps = points, rasterio.CRS.from_epsg(32633)
    if placed == "by a transform":
        source.write("scl.tif", codes)
    source.write("o.tif", values)
    image.rename(source.root / "s.tif")
    source.sheet()
    (source.root / "scenes.csv").write_text("scene,optical,sar,sar_mask\na,o.tif,s.tif,scl.tif\n")
    source.sensors = SensorsConfig(
        optical=source.sensors["optical"], sar=source.sensors["sar"].model_copy(update={"mask_codes": [9]})
    )
    empty = np.isnan(read_float(align(source) / "sar.tif")[0])
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    x, y = (column, row) if placed == "by a transform" else ~turned @ (UTM[1] @ (column, row))
    inside = (x > 50) & (x < 80) & (y > 20) & (y < 40)
    depth = np.minimum.reduce([np.abs(x - 50), np.abs(x - 80), np.abs(y - 20), np.abs(y - 40)])
    there = ~turned @ (UTM[1] @ (column, row))
    imaged = np.minimum.reduce([there[0], there[1], SIZE - there[0], SIZE - there[1]]) > 2
    sure = imaged & (depth > 1.5)
    np.testing.assert_array_equal(empty[sure], inside[sure])


def test_quality_masks_are_named_by_pattern_too(source, random):
    use(source)
    values, codes = optical(random), np.full((SIZE, SIZE), 4, "u1")
    codes[:, :EMPTY] = 9
    source.write("a_o.tif", values)
    source.write("a_s.tif", power(random))
    source.write("scl/a.tif", codes)
    patterns = {"optical": "{scene}_o.tif", "sar": "{scene}_s.tif", "masks": {"optical": "scl/{scene}.tif"}}
    source.source = SourceConfig(layout="scenes", **patterns)
    sensor = source.sensors["optical"].model_copy(update={"mask_codes": [9]})
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    empty = np.isnan(read_float(align(source) / "optical.tif"))
    assert empty[:, :, :EMPTY].all() and not empty[:, :, EMPTY:].any()
    (source.root / "scl" / "a.tif").rename(source.root / "scl" / "b.tif")
    with pytest.raises(InputError, match=r"`scl/\{scene\}\.tif` finds no masks\.optical file for 1 of 2: a "):
        source.take()
    with pytest.raises(ValueError, match="`masks` names dem, of which there is no pattern beside it"):
        SourceConfig(layout="scenes", **patterns | {"masks": {"dem": "{scene}.tif"}})


@pytest.mark.parametrize("stacked", [False, True])
def test_bands_described_in_another_order_than_the_config_are_refused(source, random, stacked):
    use(source, 2)
    for name, described in {"o": ("B1", "b0"), "one": ("b1",), "two": ("b0",)}.items():
        path = source.write(f"{name}.tif", optical(random, len(described)))
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = described
    source.write("s.tif", power(random))
    source.sheet(f"a,{'one.tif;two.tif' if stacked else 'o.tif'},s.tif,,train")
    with pytest.raises(InputError, match=r"describes its bands as .*, but `sensors\.optical\.bands` is b0, b1"):
        source.take()
    source.sheet("a,two.tif;one.tif,s.tif,,train")
    source.take()


def test_colours_marked_in_another_order_than_the_config_are_refused(source, random):
    use(source, 3)
    path = source.write("o.tif", optical(random, 3))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    for bands in (["red", "green", "blue"], ["blue", "green", "red"], ["nir", "red", "green"]):
        sensor = SensorConfig(bands=bands, kind="reflectance")
        source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
        if bands[0] != "red":  # the marks of a composite of other bands say how it is shown
            source.take()
            continue
        with pytest.raises(InputError, match="describes its bands as blue, green, red"):
            source.take()


def test_a_palette_image_is_no_measurement_unless_its_colours_are_its_values(source, random):
    use(source)
    path = source.write("o.tif", random.integers(0, 255, (SIZE, SIZE)).astype("u1"))
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {index: (index, 255 - index, 0, 255) for index in range(256)})
    with pytest.raises(InputError, match=r"o\.tif: is a palette image"):
        source.take()
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {index: (index, index, index, 255) for index in range(256)})
    source.take()
