"""Files that are no images of measurements are refused by name, and masks of quality masks count."""

import os

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from affine import Affine
from scipy.io import netcdf_file

from tests.raster.conftest import UTM
from tests.raster.test_deliveries import EMPTY, SIZE, align, optical, power, rows, use, write_mask
from tmcnet.config import SensorConfig, SensorsConfig, SourceConfig, TilesConfig
from tmcnet.errors import InputError
from tmcnet.raster.inventory.sources import find_entries
from tmcnet.raster.io.opening import write_part
from tmcnet.raster.io.reader import read_float
from tmcnet.raster.io.vector import read_attributes
from tmcnet.readers import read_rows

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def random():
    return np.random.default_rng(4)


@pytest.mark.parametrize("column", ["optical", "sar", "label", "optical_mask"])
@pytest.mark.parametrize("kind", ["pipe", "link to nothing", "folder"])
def test_what_is_no_file_is_refused_by_name(source, random, column, kind):
    use(source)
    names = {name: source.write(f"{name}.tif", power(random)).name for name in ("optical", "sar")}
    odd = source.root / "odd.tif"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    else:
        odd.symlink_to("gone.tif")
    names[column] = odd.name
    source.sheet()
    sheet = source.root / "scenes.csv"
    sheet.write_text(f"scene,{','.join(names)}\na,{','.join(names.values())}\n")
    if "mask" in column:
        sensor = source.sensors["optical"].model_copy(update={"mask_codes": [1]})
        source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    what = {"pipe": "a pipe, device or socket", "link to nothing": "does not exist", "folder": "cannot be read"}
    with pytest.raises(InputError, match=rf"odd\.tif:? .*{what[kind]}"):
        source.take()
    if kind == "pipe":
        with pytest.raises(InputError, match="a pipe"):
            _ = find_entries(source.source, source.root, source.sensors)[0].files
        with pytest.raises(InputError, match="a pipe"):
            read_attributes(odd)


@pytest.mark.parametrize("driver", ["EHdr", "ERS", "ISCE", "LAN", "PAux", "PCIDSK"])
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_raw_files_that_break_off_are_refused(source, random, driver, dtype):
    use(source)
    values = random.integers(1, 255, (1, SIZE, SIZE)).astype(dtype)
    plain = source.write("plain.tif", values)
    path = source.root / {"EHdr": "o.bil", "ERS": "o.ers"}.get(driver, "o.img")
    try:
        rasterio.shutil.copy(plain, path, driver=driver)
    except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError):
        pytest.skip("not a type of this format")
    source.write("s.tif", power(random))
    source.sheet(f"a,{path.name},s.tif,,train")
    source.source = source.source.model_copy(update={"crs": UTM[0]})
    np.testing.assert_array_equal(read_float(path), values)
    largest = max(source.root.glob("o*"), key=lambda file: file.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=r"cannot be read \(it breaks off before its end\)"):
        source.take()


@pytest.mark.parametrize("bottom_up", [False, True])
def test_a_raw_virtual_raster_that_breaks_off_is_refused(source, random, bottom_up):
    use(source)
    values = random.integers(200, 3000, (SIZE, SIZE)).astype("<i2")
    data = source.root / "o.raw"
    data.write_bytes(b"head" + (values[::-1] if bottom_up else values).tobytes())
    first, line = (4 + 2 * SIZE * (SIZE - 1), -2 * SIZE) if bottom_up else (4, 2 * SIZE)
    (source.root / "o.vrt").write_text(
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><SRS>{UTM[0]}</SRS>'
        f"<GeoTransform>{', '.join(map(str, UTM[1].to_gdal()))}</GeoTransform>"
        '<VRTRasterBand dataType="Int16" band="1" subClass="VRTRawRasterBand">'
        f'<SourceFilename relativeToVRT="1">o.raw</SourceFilename><ImageOffset>{first}</ImageOffset>'
        f"<PixelOffset>2</PixelOffset><LineOffset>{line}</LineOffset><ByteOrder>LSB</ByteOrder>"
        "</VRTRasterBand></VRTDataset>"
    )
    source.write("s.tif", power(random))
    source.sheet("a,o.vrt,s.tif,,train")
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif")[0], values)
    data.write_bytes(data.read_bytes()[: -SIZE * 20])
    with pytest.raises(InputError, match=r"o\.raw: breaks off: .*o\.vrt reads it to byte \d+, but it has \d+"):
        source.take()


@pytest.mark.parametrize("bands", [3, 4])
def test_inks_that_gdal_converts_to_colours_are_refused_and_can_be_read_raw(source, random, bands):
    use(source, bands)
    values = random.integers(1, 255, (4, SIZE, SIZE)).astype("u1")
    source.write("o.tif", values, photometric="CMYK")
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    with pytest.raises(InputError, match=r"o\.tif: is a CMYK image, whose numbers GDAL converts"):
        source.take()
    if bands == 4:
        source.sheet("a,GTIFF_RAW:o.tif,s.tif,,train")
        np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values)


@pytest.mark.parametrize("form", ["internal", ".msk", "nan"])
@pytest.mark.parametrize("keys", [{"mask_codes": [9]}, {"mask_bits": [3]}])
def test_where_a_quality_mask_has_no_data_the_image_has_none(source, random, form, keys):
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["b0"], kind="reflectance", **keys),
        sar=SensorConfig(bands=["vv"], kind="backscatter", scale="none"),
    )
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    codes = np.full((SIZE, SIZE), 4, "f4" if form == "nan" else "u1")
    codes[:8] = 9
    if form == "nan":
        codes[:, :EMPTY] = np.nan
    path = source.write("m.tif", codes)
    if form != "nan":
        write_mask(path, form)
    source.sheet()
    (source.root / "scenes.csv").write_text("scene,optical,sar,optical_mask\na,o.tif,s.tif,m.tif\n")
    empty = np.isnan(read_float(align(source) / "optical.tif")[0])
    assert empty[:8].all() and empty[:, :EMPTY].all() and not empty[8:, EMPTY:].any()
    what = f"{EMPTY / SIZE:.1%} of the quality mask m.tif is masked itself or NaN: no data in optical"
    assert what in rows(source)[0]["warnings"]


def test_a_projection_file_that_gdal_does_not_read_is_named(source, random):
    use(source)
    source.write("o.tif", optical(random), crs=None, transform=None)
    (source.root / "o.tfw").write_text("10\n0\n0\n-10\n500005\n5399995\n")
    (source.root / "o.prj").write_text(rasterio.CRS.from_string(UTM[0]).to_wkt(version="WKT1_ESRI"))
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    with pytest.raises(InputError, match=r"o\.tif: has no CRS\. GDAL does not read o\.prj .* -a_srs o\.prj o\.tif"):
        source.take()


@pytest.mark.parametrize("tag", [0.5, 1.7])
@pytest.mark.parametrize("dtype", ["u1", "i2"])
@pytest.mark.parametrize("declared", [False, True])
def test_a_fraction_as_no_data_of_whole_numbers_masks_nothing_and_is_named(source, random, tag, dtype, declared):
    use(source)
    values = random.integers(0, 4, (1, SIZE, SIZE)).astype(dtype)
    source.write("o.tif", values, nodata=None if declared else tag)
    if declared:
        sensor = source.sensors["optical"].model_copy(update={"nodata": tag})
        source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values)
    what = f"o.tif: its value of no data, {tag:g}, is no whole number, as its numbers are: it masks nothing"
    assert what in rows(source)[0]["warnings"]


@pytest.mark.parametrize(("tag", "dtype"), [(-9999, "u2"), (256, "u1"), (65535, "i2"), (-1, "u1")])
def test_a_declared_value_of_no_data_beyond_the_type_masks_nothing_and_is_named(source, random, tag, dtype):
    use(source)
    values = random.integers(0, 200, (1, SIZE, SIZE)).astype(dtype)
    source.write("o.tif", values)
    sensor = source.sensors["optical"].model_copy(update={"nodata": float(tag)})
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), values)
    assert f"o.tif: its value of no data, {tag}, is beyond the range of " in rows(source)[0]["warnings"]


@pytest.mark.parametrize("largest", [2**53 + 1, 2**53 + 2])
def test_long_numbers_that_a_value_of_no_data_does_not_distinguish_are_refused(source, random, largest):
    use(source)
    values = optical(random).astype("i8")
    values[0, :5], values[0, 5:7] = 2**53, largest
    source.write("o.tif", values)
    sensor = source.sensors["optical"].model_copy(update={"nodata": 2.0**53})
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    if largest == 2**53 + 2:  # a number of double precision of its own
        assert source.take().records[0].images["optical"].valid_shares == [1 - 5 / SIZE]
        return
    with pytest.raises(
        InputError, match=r"o\.tif: holds 9007199254740992 and 9007199254740993, which its value of no"
    ):
        source.take()


@pytest.mark.parametrize(("highest", "named"), [(100, True), (254, False)])
@pytest.mark.parametrize("declared", [False, True])
def test_values_of_no_data_in_some_bands_of_8_bits_are_named(source, random, highest, named, declared):
    use(source, 2)
    for band, rows_without in enumerate((10, 30)):
        cover = random.integers(0, highest + 1, (SIZE, SIZE)).astype("u1")
        cover[:rows_without] = 255
        source.write(f"o{band}.tif", cover, nodata=None if declared else 255)
    sensor = source.sensors["optical"].model_copy(update={"nodata": 255.0 if declared else None})
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    source.write("s.tif", power(random))
    source.sheet("a,o0.tif;o1.tif,s.tif,,train")
    source.take()
    what = (
        "of optical band b1 are 255, its value of no data, which in 8-bit images means no data only where all bands"
    )
    assert (what in rows(source)[0]["warnings"]) == named


@pytest.mark.parametrize("encoding", ["ids", "rgb"])
def test_rasters_in_a_geopackage_are_no_label_and_the_way_out_is_named(source, random, encoding):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    source.write("l.gpkg", np.ones((SIZE, SIZE), "u1"), driver="GPKG")
    source.sheet("a,o.tif,s.tif,l.gpkg,train")
    source.labels = source.labels.model_copy(update={"encoding": encoding})
    with pytest.raises(InputError, match=r"l\.gpkg: holds rasters, no features\. Write a GeoTIFF and name that"):
        source.take()


def write_netcdf(path, values, step_at_gap=10.0, units="", **attributes):
    """Columns of 10 m, but for one step; with `units` of the first axis of three."""
    *further, height, width = values.shape
    with netcdf_file(path, "w") as file:
        for length in further:
            file.createDimension("t", length)
            axis = file.createVariable("t", "i", ("t",))
            axis[:], axis.units = np.arange(length), units
        axes = {"x": UTM[1].c + np.cumsum([5] + [10.0] * (width - 1)), "y": UTM[1].f - 5 - 10.0 * np.arange(height)}
        axes["x"][width // 3 :] += step_at_gap - 10
        for name, places in axes.items():
            file.createDimension(name, len(places))
            axis = file.createVariable(name, "d", (name,))
            axis[:], axis.units, axis.standard_name = places, "m", f"projection_{name}_coordinate"
        variable = file.createVariable("band", values.dtype, (*["t"] * len(further), "y", "x"))
        variable[:] = values
        for name, value in attributes.items():
            setattr(variable, name, value)
    return path


def test_a_netcdf_with_a_gap_in_its_columns_is_refused(source, random):
    use(source)
    source.write("s.tif", power(random))
    source.sheet("a,o.nc,s.tif,,train")
    source.source = source.source.model_copy(update={"crs": UTM[0]})
    for step in (10.0, 11.0):  # rounded places are no gap
        write_netcdf(source.root / "o.nc", power(random), step_at_gap=step)
        source.take()
    write_netcdf(source.root / "o.nc", power(random), step_at_gap=60.0)
    with pytest.raises(InputError, match=r"o\.nc: its axis x is not evenly spaced: pixels are up to "):
        source.take()


@pytest.mark.parametrize(("units", "steps"), [("days since 2021-05-01", 3), ("days since 2021-05-01", 1), ("nm", 3)])
def test_bands_of_a_netcdf_that_are_steps_of_time_are_named(source, random, units, steps):
    use(source, steps)
    write_netcdf(source.root / "o.nc", power(random, steps, SIZE, SIZE), units=units)
    source.write("s.tif", power(random))
    source.sheet("a,o.nc,s.tif,,train")
    source.source = source.source.model_copy(update={"crs": UTM[0]})
    source.take()
    is_time = steps > 1 and units != "nm"
    assert ("o.nc: its bands are 3 steps of `t` (days since 2021-05-01)" in rows(source)[0]["warnings"]) == is_time


def test_a_second_value_of_no_data_in_a_netcdf_is_named(source, random):
    use(source)
    source.write("s.tif", power(random))
    source.sheet("a,o.nc,s.tif,,train")
    source.source = source.source.model_copy(update={"crs": UTM[0]})
    for missing, noted in ((np.float32(-1), True), (np.float32(-9999), False)):
        write_netcdf(source.root / "o.nc", power(random), _FillValue=np.float32(-9999), missing_value=missing)
        source.take()
        what = "its metadata state missing_value = -1 beside its value of no data, -9999: it masks nothing"
        assert (what in rows(source)[0]["warnings"]) == noted


def test_a_table_in_the_place_of_labels_is_refused_with_the_command_that_converts_it(source, random):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    (source.root / "l.csv").write_text('class,WKT\n1,"POINT(500000 5600000)"\n')
    source.sheet("a,o.tif,s.tif,l.csv,train")
    with pytest.raises(InputError, match=r"l\.csv: is a table, not a raster .*GEOM_POSSIBLE_NAMES=WKT"):
        source.take()


def georeferenced_tile(source, random, **transforms):
    """A ready-made tile of an optical, a SAR and a label file with a CRS, each at its own place."""
    source.source = SourceConfig(layout="tiles", optical="o_{t}.tif", sar="s_{t}.tif", label="l_{t}.tif")
    use(source)
    values = {"o": optical(random), "s": power(random), "l": random.integers(0, 4, (SIZE, SIZE)).astype("u1")}
    for kind, array in values.items():
        crs, transform = transforms.get(kind, UTM)
        source.write(f"{kind}_1.tif", array, crs=crs, transform=transform)
    source.take()
    return rows(source)[0]["warnings"]


SOUTH_UP = UTM[1] @ Affine.translation(0, SIZE) @ Affine.scale(1, -1)


@pytest.mark.parametrize("kind", ["s", "l"])
@pytest.mark.parametrize(
    "place",
    [("EPSG:32634", UTM[1]), (UTM[0], UTM[1] @ Affine.translation(5000, 0)), (UTM[0], SOUTH_UP)],
    ids=["zone", "ground", "rows"],
)
def test_files_of_a_ready_made_tile_are_on_one_ground(source, random, kind, place):
    with pytest.raises(InputError, match=rf"{kind}_1\.tif: is on other ground than the first file of its tile"):
        georeferenced_tile(source, random, **{kind: place})


def test_places_of_files_of_a_ready_made_tile_are_compared_to_a_pixel(source, random):
    near = UTM[0], UTM[1] @ Affine.translation(0.5, 0.5)
    assert "georeference" not in georeferenced_tile(source, random, s=near)
    shifted = UTM[0], UTM[1] @ Affine.translation(3, 0)
    assert "l_1.tif: by its georeference up to 3 pixels from o_1.tif" in georeferenced_tile(source, random, l=shifted)
    turned = dict.fromkeys("osl", (UTM[0], SOUTH_UP))
    assert "georeference" not in georeferenced_tile(source, random, **turned)


@pytest.mark.parametrize("lost", [["o"], ["o", "s"], ["o", "s", "l"]])
@pytest.mark.parametrize("crs", [None, UTM[0]])
def test_a_ready_made_tile_has_its_place_from_any_of_its_files(source, random, lost, crs):
    georeferenced_tile(source, random)
    nowhere = dict.fromkeys(lost, (crs, Affine.identity()))
    for kind, array in {"o": optical(random), "s": power(random), "l": np.ones((SIZE, SIZE), "u1")}.items():
        crs, transform = nowhere.get(kind, UTM)
        source.write(f"{kind}_2.tif", array, crs=crs, transform=transform)
    source.take()
    one, other = read_rows(source.cut(TilesConfig(min_valid=0)) / "index.csv", ["crs", "x", "y"])
    is_lost = len(lost) == 3
    assert [other["crs"], other["x"], other["y"]] == (["", "", ""] if is_lost else [one["crs"], one["x"], one["y"]])
    assert ("no file has CRS and transform, as those of other tiles" in rows(source)[1]["warnings"]) == is_lost


def test_ready_made_tiles_with_transforms_but_no_crs_are_named(source, random):
    warnings = georeferenced_tile(source, random, **dict.fromkeys("osl", (None, UTM[1])))
    assert "images have transforms but no CRS, so that tiles that share ground are not known" in warnings


@pytest.mark.parametrize(
    ("profile", "lossy"),
    [
        ({"compress": "jpeg"}, True),
        ({"driver": "JPEG"}, True),
        ({"driver": "JP2OpenJPEG"}, True),
        ({"driver": "JP2OpenJPEG", "reversible": "YES", "quality": 100}, False),
        ({"compress": "lerc", "max_z_error": 1}, True),
        ({"compress": "lerc"}, False),
        ({"compress": "deflate"}, False),
    ],
)
def test_labels_whose_compression_changes_codes_are_named(source, random, profile, lossy):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    source.write(
        "l", np.kron(random.integers(0, 2, (SIZE // 16, SIZE // 16)), np.ones((16, 16))).astype("u1"), **profile
    )
    source.labels = source.labels.model_copy(update={"void": [0, *range(4, 256)]})
    source.sheet("a,o.tif,s.tif,l,train")
    source.source = source.source.model_copy(update={"crs": UTM[0]})
    source.take()
    assert ("l: its compression changes numbers" in rows(source)[0]["warnings"]) == lossy


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_a_picture_that_is_to_be_turned_is_named(source, random, ending):
    georeferenced_tile(source, random)
    image = optical(random).astype("u1")
    if ending == "tif":
        tifffile.imwrite(source.root / "o_1.tif", image[0], extratags=[(274, "H", 1, 3, True)])
    else:
        path = source.write("o_1.jpg", image, driver="JPEG", crs=None, transform=None)
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"
        content = path.read_bytes()
        path.write_bytes(content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif + content[2:])
    source.source = source.source.model_copy(update={"optical": f"o_{{t}}.{ending}"})
    source.take()
    what = f"o_1.{ending}: by its metadata the picture is to be turned (EXIF orientation 3)"
    assert what in rows(source)[0]["warnings"]


def test_pictures_whose_smallest_number_is_white_are_refused_and_such_labels_named(source, random):
    georeferenced_tile(source, random)
    tifffile.imwrite(source.root / "l_1.tif", random.integers(0, 2, (SIZE, SIZE)) > 0, photometric="miniswhite")
    source.take()
    assert "l_1.tif: its smallest number is white in pictures (MINISWHITE)" in rows(source)[0]["warnings"]
    for dtype in ("u1", "u2"):
        tifffile.imwrite(source.root / "o_1.tif", optical(random)[0].astype(dtype), photometric="miniswhite")
        with pytest.raises(InputError, match=r"o_1\.tif: is a picture whose smallest number is white"):
            source.take()


SNAP = "<Spectral_Band_Info><BAND_NAME>B2</BAND_NAME><PHYSICAL_UNIT>{}</PHYSICAL_UNIT>"
SNAP += "<SCALING_FACTOR>{}</SCALING_FACTOR><SCALING_OFFSET>0.0</SCALING_OFFSET></Spectral_Band_Info>"


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("bigtiff", [False, True])
def test_what_snap_says_in_its_own_tag_of_a_tiff_counts(source, random, byteorder, bigtiff):
    georeferenced_tile(source, random)
    use(source, scale="auto")
    for name, array, words in (
        ("o", optical(random)[0], ("dl", "1.0E-4")),
        ("s", power(random), ("amplitude", "1.0")),
    ):
        tag = (65000, "s", 0, SNAP.format(*words), True)
        form = {"byteorder": byteorder, "bigtiff": bigtiff, "photometric": "minisblack"}
        tifffile.imwrite(source.root / f"{name}_1.tif", array, extratags=[tag], **form)
    assert source.take().records[0].images["sar"].scale == "amplitude"
    source.source = source.source.model_copy(update={"sar": "s_{t}.vrt"})
    write_part(source.root / "s_1.tif", "bands=1", source.root / "s_1.vrt")  # as for a part of a scene
    assert source.take().records[0].images["sar"].scale == "amplitude"
    warnings = rows(source)[0]["warnings"]
    assert "o_1.tif: its metadata state SCALING_FACTOR = 1.0E-4, which no tag applies" in warnings
    assert "s_1.tif: its metadata" not in warnings


@pytest.mark.parametrize("differ", [False, True])
def test_bands_with_the_same_numbers_are_named(source, random, differ):
    use(source, 3)
    (grey,) = optical(random)
    bands = np.stack([grey, grey, grey])
    bands[2] += differ
    source.write("o.tif", bands)
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    warnings = rows(source)[0]["warnings"]
    assert "optical bands b0 and b1 have the same numbers" in warnings
    assert ("optical bands b1 and b2 have the same numbers" in warnings) != differ


@pytest.mark.parametrize(
    ("dtype", "values", "warning"),
    [
        (
            "u2",
            lambda a: (a // 16).astype("u1"),
            "optical has numbers of 8 bits up to 187, most tiles have whole numbers",
        ),
        ("u2", lambda a: (a / 1e4).astype("f4"), "optical has real numbers up to 0.29"),
        ("u2", lambda a: (a / 1e3).astype("u2"), "optical has whole numbers up to 2, most tiles have whole numbers"),
        ("f4", lambda a: a / 3000, "optical has real numbers up to 0.99"),
        ("f4", lambda a: a / 20, ""),
        ("u2", lambda a: (a / 20).astype("i2"), ""),
    ],
)
def test_ready_made_tiles_in_other_units_than_most_are_named(source, random, dtype, values, warning):
    use(source)
    source.source = SourceConfig(layout="tiles", optical="o_{t}.tif", sar="s_{t}.tif", label="l_{t}.tif")
    for number in range(4):
        image = optical(random).astype(dtype)
        place = UTM[1] @ Affine.translation(number * SIZE, 0) @ Affine.scale(3 if number == 3 else 1)
        source.write(f"o_{number}.tif", values(image) if number == 1 else image, transform=place)
        source.write(f"s_{number}.tif", power(random), transform=place)
        source.write(f"l_{number}.tif", random.integers(0, 4, (SIZE, SIZE)).astype("u1"), transform=place)
    source.take()
    first, second, third, fourth = (row["warnings"] for row in rows(source))
    assert first == third == "" and (warning in second if warning else second == "")
    assert fourth == "pixels of 30 units of the CRS; those of most tiles have 10"


def test_constant_bands_and_other_orders_of_bands_in_ready_made_tiles_are_named(source, random):
    georeferenced_tile(source, random)
    use(source, 3)
    for number, order in enumerate((["b", "g", "alpha"], ["g", "b", "alpha"]), 1):
        image = np.concatenate([optical(random, 2), np.full((1, SIZE, SIZE), 255)]).astype("u2")
        with rasterio.open(source.write(f"o_{number}.tif", image), "r+") as dataset:
            dataset.descriptions = order
    for kind in "sl":
        (source.root / f"{kind}_2.tif").write_bytes((source.root / f"{kind}_1.tif").read_bytes())
    source.take()
    first, second = (row["warnings"] for row in rows(source))
    assert "optical band b2 is 255 in all tiles" in first
    assert "the bands of optical are g, b, alpha, those of 1 b, g, alpha" in second


@pytest.mark.parametrize("value", [-9999, -3.4e38, 1e31])
def test_a_single_pixel_of_a_common_value_of_no_data_is_named(source, random, value):
    use(source)
    image = random.uniform(0, 1, (SIZE, SIZE)).astype("f4")
    image[7, 9] = value
    source.write("o.tif", image)
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    assert "in all bands, far from all other values: declare `sensors.optical.nodata`" in rows(source)[0]["warnings"]


@pytest.mark.parametrize(
    ("crs", "size", "left", "refused"),
    [
        (None, SIZE, 0, ""),
        (None, SIZE // 2, 0, r"differs in size from the other files: .*m_1\.tif 48 x 48"),
        (UTM[0], SIZE // 2, 0, ""),
        (UTM[0], SIZE, 5000, r"m_1\.tif: is the quality mask of o_1\.tif, but covers 0% of it"),
    ],
)
def test_quality_masks_of_ready_made_tiles_are_on_their_ground(source, random, crs, size, left, refused):
    patterns = {name: f"{name[0]}_{{t}}.tif" for name in ("optical", "sar", "label")}
    source.source = SourceConfig(layout="tiles", **patterns, masks={"optical": "m_{t}.tif"})
    use(source)
    sensor = source.sensors["optical"].model_copy(update={"mask_codes": [3]})
    source.sensors = SensorsConfig(optical=sensor, sar=source.sensors["sar"])
    codes = np.where(np.arange(size) < size // 2, 3, 0).astype("u1")[None].repeat(size, axis=0)
    for kind, array in {"o": optical(random), "s": power(random), "l": codes[:0], "m": codes}.items():
        values = random.integers(0, 4, (SIZE, SIZE)).astype("u1") if kind == "l" else array
        place = UTM[1] @ Affine.translation(left if kind == "m" else 0, 0) @ Affine.scale(SIZE / values.shape[-1])
        source.write(f"{kind}_1.tif", values, crs=crs, transform=place if crs else None)
    if refused:
        with pytest.raises(InputError, match=refused):
            source.take()
    else:
        assert source.take().records[0].images["optical"].valid_shares == [0.5]
        assert "quality mask" not in rows(source)[0]["warnings"]
        source.sensors = SensorsConfig(
            optical=sensor.model_copy(update={"mask_codes": [5]}), sar=source.sensors["sar"]
        )
        source.take()
        assert "no quality mask takes a pixel out of any optical tile" in rows(source)[0]["warnings"]
