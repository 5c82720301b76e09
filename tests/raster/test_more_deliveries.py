"""Deliveries that combine several forms: each means what its files say, or is refused by name."""

import gzip
import json
import re
import shutil

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.warp import transform

from tests.raster.conftest import UTM
from tests.raster.test_deliveries import EMPTY, SIZE, align, optical, power, rows, use, write_mask
from tmcnet.config import AlignConfig, LabelsConfig, SensorConfig, SensorsConfig, SourceConfig
from tmcnet.errors import InputError
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.reader import read_float, read_labels
from tmcnet.raster.tiling.grid import align_scene

pytestmark = pytest.mark.usefixtures("no_pictures")

FLOAT_MIN = -3.4028234663852886e38


@pytest.fixture
def random():
    return np.random.default_rng(1)


def test_a_png_with_alpha_placed_by_a_world_file(source, random):
    use(source, 3)
    values = random.integers(0, 255, (4, SIZE, SIZE)).astype("u1")
    values[3] = np.where(np.arange(SIZE) < EMPTY, 0, 128 + values[3] // 2)
    source.write("o.png", values, crs=None, transform=None, driver="PNG")
    (source.root / "o.pgw").write_text("10\n0\n0\n-10\n500005\n5399995\n")
    source.write("s.tif", power(random))
    source.sheet("a,o.png,s.tif,,train")
    source.source = source.source.model_copy(update={"crs": UTM[0]})
    found = read_float(align(source) / "optical.tif")
    assert np.isnan(found[:, :, :EMPTY]).all()
    np.testing.assert_array_equal(found[:, :, EMPTY:], values[:3, :, EMPTY:])


@pytest.mark.parametrize("form", ["internal", ".msk"])
def test_a_mosaic_of_south_up_tiles_with_masks_and_scale_tags(source, random, form):
    use(source)
    upward = Affine(10, 0, 5e5, 0, 10, 5.4e6 - 10 * SIZE)
    values = random.integers(-500, 3000, (SIZE, SIZE)).astype("i2")
    for number, left in enumerate((0, SIZE // 2)):
        part = values[:, left : left + SIZE // 2]
        path = source.write(f"t{number}.tif", part, transform=upward @ Affine.translation(left, 0))
        kept = np.full(part.shape, 255, "u1")
        kept[:, :10] = 0
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=form == "internal"), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(kept)
            dataset.scales, dataset.offsets = (1e-4,), (-0.1,)
    source.write("s.tif", power(random), transform=upward)
    source.sheet("a,t*.tif,s.tif,,train")
    found = read_float(align(source) / "optical.tif")[0]
    expected = values * 1e-4 - 0.1
    expected[:, :10] = expected[:, SIZE // 2 : SIZE // 2 + 10] = np.nan
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_packed_netcdf_variable_with_fill_and_rows_from_the_south(source, random):
    use(source)
    ground = random.uniform(0, 0.5, (SIZE, SIZE))
    stored = np.round(ground * 1e4).astype("i2")
    stored[:, :EMPTY] = -999
    path = source.write("plain.tif", stored, nodata=-999)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4,), (0.0,)
    rasterio.shutil.copy(path, source.root / "o.nc", driver="netCDF", WRITE_BOTTOMUP="YES")
    source.write("s.tif", power(random))
    source.sheet("a,NETCDF:o.nc:Band1,s.tif,,train")
    found = read_float(align(source) / "optical.tif")[0]
    assert np.isnan(found[:, :EMPTY]).all()
    np.testing.assert_allclose(found[:, EMPTY:], ground[:, EMPTY:], atol=6e-5)


def test_a_compressed_file_with_the_largest_negative_number_as_no_data(source, random):
    use(source, 2)
    values = random.uniform(0, 1, (2, SIZE, SIZE)).astype("f4")
    values[0, :, :EMPTY] = FLOAT_MIN
    values[1, :5] = np.inf
    path = source.write("o.tif", values, nodata=FLOAT_MIN)
    (source.root / "o.tif.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    source.write("s.tif", power(random))
    source.sheet("a,/vsigzip/o.tif.gz,s.tif,,train")
    expected = np.where(np.isfinite(values) & (values != np.float32(FLOAT_MIN)), values, np.nan)
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), expected)
    source.sheet("a,o.tif.gz,s.tif,,train")
    with pytest.raises(InputError, match=r"inside are /vsigzip/.*o\.tif\.gz\. Name these in its place"):
        source.take()
    with pytest.raises(InputError, match=r"gone\.tif\.gz: does not exist"):
        read_float(source.root / "gone.tif.gz")


@pytest.mark.parametrize("dtype", ["complex_int16", "complex64"])
def test_complex_numbers_placed_by_control_points_with_zero_as_no_data(source, random, dtype):
    use(source, scale="auto", clip_db=(-60, 60))
    source.write("o.tif", optical(random))
    values = np.full((SIZE, SIZE), 300 + 400j, "complex64")
    values[:, :EMPTY] = 0
    values[40, 60] = 3j  # power 9, no zero although its real part is
    path = source.write("s.tif", values, crs=None, transform=None, dtype=dtype, nodata=0)
    at = [(c, r, *(UTM[1] @ (c, r))) for r in (0, 48, 96) for c in (0, 48, 96)]
    lon, lat = transform(UTM[0], "EPSG:4326", [p[2] for p in at], [p[3] for p in at])
    with rasterio.open(path, "r+") as dataset:
        points = [GroundControlPoint(r, c, x, y) for (c, r, *_), x, y in zip(at, lon, lat, strict=True)]
        dataset.gcps = points, rasterio.CRS.from_epsg(4326)
    source.sheet("a,o.tif,s.tif,,train")
    found = read_float(align(source) / "sar.tif")[0]
    assert np.isnan(found[:, : EMPTY - 1]).all() and np.isfinite(found[:, EMPTY + 1 :]).all()
    assert found[20, 80] == pytest.approx(10 * np.log10(250_000), abs=0.01)
    assert np.nanmin(found) < found[20, 80] - 10


def test_a_sar_mask_in_another_crs_holds_for_every_file_of_a_stack(source, random):
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["b0"], kind="reflectance"),
        sar=SensorConfig(bands=["vv", "vh"], kind="backscatter", scale="linear", mask_codes=[0, 255]),
    )
    source.write("o.tif", optical(random))
    source.write("vv.tif", power(random))
    source.write("vh.tif", power(random, SIZE // 2, SIZE // 2), transform=UTM[1] @ Affine.scale(2))
    (west, east), (north, south) = transform(UTM[0], "EPSG:4326", [5e5, 500_960], [5.4e6, 5_399_040])
    codes = np.ones((192, 192), "u1")
    codes[:, :64] = 255
    place = Affine((east - west) / 192, 0, west, 0, (south - north) / 192, north)
    source.write("mask.tif", codes, crs="EPSG:4326", transform=place, nodata=255)
    source.sheet()
    (source.root / "scenes.csv").write_text("scene,optical,sar,sar_mask\na,o.tif,vv.tif;vh.tif,mask.tif\n")
    found = read_float(align(source) / "sar.tif")
    assert np.isnan(found[:, 2:-2, :29]).all() and np.isfinite(found[:, 2:-2, 36:]).all()


def test_bands_with_tags_of_their_own_in_one_file(source, random):
    use(source, 3)
    values = optical(random, 3)
    values[:, :, :EMPTY] = 9
    path = source.write("o.tif", values)
    (source.root / "o.tif.aux.xml").write_text(
        "<PAMDataset>"
        + "".join(
            f'<PAMRasterBand band="{band}"><NoDataValue>{nodata}</NoDataValue>'
            f"<Offset>{offset}</Offset><Scale>{scale}</Scale></PAMRasterBand>"
            for band, nodata, offset, scale in ((1, 9, 0, 1), (2, 9, -5, 0.5), (3, 9, 100, 1))
        )
        + "</PAMDataset>"
    )
    source.write("s.tif", power(random))
    source.sheet(f"a,{path.name},s.tif,,train")
    found = read_float(align(source) / "optical.tif")
    expected = np.where(values == 9, np.nan, values * np.array([1, 0.5, 1])[:, None, None])
    expected += np.array([0, -5, 100])[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    with source.json.with_suffix(".csv").open() as table:
        assert "o.tif: no scale or offset in band 1, which its other bands have" in table.read()


def test_a_virtual_mosaic_beside_its_sources_with_a_mask_band(source, random):
    use(source)
    values = optical(random)
    write_mask(source.write("deep/t.tif", values), ".msk")
    (source.root / "deep" / "o.vrt").write_text(
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 10, 0, 5400000, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">t.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        '</VRTRasterBand><MaskBand><VRTRasterBand dataType="Byte"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">t.tif</SourceFilename><SourceBand>mask,1</SourceBand>'
        "</SimpleSource></VRTRasterBand></MaskBand></VRTDataset>"
    )
    source.write("s.tif", power(random))
    source.sheet("a,deep/o.vrt,s.tif,,train")
    found = read_float(align(source) / "optical.tif")
    assert np.isnan(found[:, :, :EMPTY]).all()
    np.testing.assert_array_equal(found[:, :, EMPTY:], values[:, :, EMPTY:])


@pytest.mark.parametrize("dtype", ["u4", "i8", "u8", "f8"])
def test_wide_types_with_their_values_of_no_data(source, random, dtype):
    use(source)
    values = random.integers(1, 10_000_000, (SIZE, SIZE)).astype(dtype)
    nodata = {"u4": 2**32 - 1, "i8": -9999, "u8": 2**53, "f8": -1.7976931348623157e308}[dtype]
    values[:, :EMPTY] = nodata
    source.write("o.tif", values, nodata=nodata)
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    found = read_float(align(source) / "optical.tif")[0]
    assert np.isnan(found[:, :EMPTY]).all()
    np.testing.assert_allclose(found[:, EMPTY:], values[:, EMPTY:].astype("f8"), rtol=1e-7)


def test_labels_of_real_numbers_in_another_crs_with_a_mask(source, random):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    corners = transform(UTM[0], "EPSG:4326", [500_200, 500_800], [5_399_800, 5_399_300])
    (west, east), (north, south) = corners
    codes = np.full((100, 100), 2.0, "f4")
    codes[:30], codes[30:50] = 1.0, 0.0
    path = source.write(
        "l.tif", codes, "EPSG:4326", Affine((east - west) / 100, 0, west, 0, (south - north) / 100, north)
    )
    kept = np.full(codes.shape, 255, "u1")
    kept[:, :50] = 0
    with rasterio.open(path, "r+") as dataset:
        dataset.write_mask(kept)
    source.sheet("a,o.tif,s.tif,l.tif,train")
    label = read_labels(align(source) / "label.tif")
    assert (label[:, :48] == 255).all() and (label[:, 82:] == 255).all() and (label[:18] == 255).all()
    assert (label[22:33, 53:77] == 0).all() and (label[37:43, 53:77] == 255).all()
    assert (label[47:67, 53:77] == 1).all()


def test_vector_labels_in_degrees_on_a_turned_grid_with_buffered_lines(source, random):
    turned = UTM[1] @ Affine.rotation(25)
    use(source)
    source.write("o.tif", optical(random), transform=turned)
    source.write("s.tif", power(random), transform=turned)
    ends = [turned @ (20, 48.5), turned @ (76, 48.5)]
    lon, lat = transform(UTM[0], "EPSG:4326", *zip(*ends, strict=True))
    line = ", ".join(f"[{x}, {y}]" for x, y in zip(lon, lat, strict=True))
    (source.root / "l.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"class": "land"},'
        f'"geometry": {{"type": "MultiLineString", "coordinates": [[{line}]]}}}}]}}'
    )
    source.labels = LabelsConfig(**source.labels.model_dump() | {"attribute": "class", "buffer": 25.0})
    source.sheet("a,o.tif,s.tif,l.geojson,train")
    label = read_labels(align(source) / "label.tif")
    assert (label[46:51, 20:77] == 1).all()
    assert (label[:44] == 255).all() and (label[53:] == 255).all() and (label[:, :16] == 255).all()


def test_a_pair_in_degrees_on_either_side_of_the_180th_meridian(source, random):
    use(source)
    values = optical(random)
    source.write("o.tif", values, "EPSG:4326", Affine(1e-4, 0, 179.995, 0, -1e-4, 10))
    source.write("s.tif", values.astype("f4"), "EPSG:4326", Affine(1e-4, 0, 179.995 - 360, 0, -1e-4, 10))
    source.sheet("a,o.tif,s.tif,,train")
    folder = align(source)
    np.testing.assert_allclose(read_float(folder / "sar.tif"), read_float(folder / "optical.tif"), atol=0.5)


def test_a_variable_without_place_is_refused_by_name(source, random):
    use(source, 1)
    plain = source.write("plain.tif", optical(random), crs=None, transform=None)
    rasterio.shutil.copy(plain, source.root / "o.nc", driver="netCDF")
    source.write("s.tif", power(random))
    source.sheet("a,NETCDF:o.nc:Band1,s.tif,,train")
    with pytest.raises(InputError, match=r"o\.nc:Band1: has no CRS and geotransform"):
        source.take()


def test_half_transparent_pixels_and_masks_of_16_bits(source, random):
    use(source, 3)
    values = optical(random, 4)
    values[3] = np.where(np.arange(SIZE) < EMPTY, 0, 65_535)
    values[3, :, EMPTY : EMPTY + 4] = 30_000
    source.write("o.tif", values, photometric="rgb", alpha="yes")
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    found = read_float(align(source) / "optical.tif")
    assert np.isnan(found[:, :, :EMPTY]).all() and float(rows(source)[0]["optical_valid_share"]) == 1 - EMPTY / SIZE
    np.testing.assert_array_equal(found[:, :, EMPTY:], values[:3, :, EMPTY:])


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_each_band_may_have_a_mask(source, random, dtype):
    use(source, 2)
    values = random.integers(1, 250, (2, SIZE, SIZE)).astype(dtype)
    source.write("v.tif", values)
    source.write("m.tif", np.where(np.arange(SIZE) < EMPTY, 0, 255).astype("u1")[None].repeat(SIZE, 0))
    band = (
        '<SimpleSource><SourceFilename relativeToVRT="1">{}.tif</SourceFilename><SourceBand>{}</SourceBand>'
        "</SimpleSource>"
    )
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{band.format("m", 1)}</VRTRasterBand></MaskBand>'
    name = {"u1": "Byte", "u2": "UInt16"}[dtype]
    (source.root / "o.vrt").write_text(
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 10, 0, 5400000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="{name}" band="1">{band.format("v", 1)}</VRTRasterBand>'
        f'<VRTRasterBand dataType="{name}" band="2">{band.format("v", 2)}{mask}</VRTRasterBand></VRTDataset>'
    )
    source.write("s.tif", power(random))
    source.sheet("a,o.vrt,s.tif,,train")
    expected = values.astype("f4")
    expected[1, :, :EMPTY] = np.nan
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), expected)


@pytest.mark.parametrize("tags", [(0.0, 7.0), (np.nan, 0.0), (1.0, np.inf)])
def test_tags_that_leave_no_numbers_are_refused(source, random, tags):
    use(source)
    path = source.write("o.tif", optical(random))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = tags[:1], tags[1:]
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    with pytest.raises(InputError, match=r"o\.tif: has tags that turn all numbers into one"):
        source.take()


@pytest.mark.parametrize("tiles", [1, 2])
def test_an_unmarked_extra_band_that_is_opaque_or_in_tiles_is_a_mask(source, random, tiles):
    use(source, 3)
    values = random.integers(1, 250, (4, SIZE, SIZE)).astype("u1")
    values[3] = 255 if tiles == 1 else np.where(np.arange(SIZE) < EMPTY, 0, 255)
    for number in range(tiles):  # the first of two tiles is opaque throughout
        part = values if tiles == 1 else np.split(values, 2, axis=2)[1 - number]
        left = 0 if tiles == 1 else SIZE // 2 * (1 - number)
        options = {"photometric": "rgb", "alpha": "unspecified"}
        source.write(f"t{number}.tif", part, transform=UTM[1] @ Affine.translation(left, 0), **options)
    source.write("s.tif", power(random))
    source.sheet("a,t*.tif,s.tif,,train")
    expected = np.where(values[3] == 0, np.nan, values[:3])
    np.testing.assert_array_equal(read_float(align(source) / "optical.tif"), expected)


def test_a_mask_beside_an_image_with_alpha_counts_too(source, random):
    use(source, 3)
    values = random.integers(1, 250, (4, SIZE, SIZE)).astype("u1")
    values[3] = np.where(np.arange(SIZE)[:, None] < 9, 0, 255)
    write_mask(source.write("o.tif", values, photometric="rgb", alpha="yes"), ".msk")
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    empty = np.isnan(read_float(align(source) / "optical.tif"))
    assert empty[:, :9].all() and empty[:, :, :EMPTY].all() and not empty[:, 9:, EMPTY:].any()


@pytest.mark.parametrize("step", [0.1, float(np.float32(0.1))])
def test_tags_for_scale_and_offset_of_labels_are_applied(source, random, step):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    with rasterio.open(source.write("l.tif", np.full((SIZE, SIZE), 30, "u1")), "r+") as dataset:
        dataset.scales, dataset.offsets = (step,), (-1.0,)
    source.sheet("a,o.tif,s.tif,l.tif,train")
    assert (read_labels(align(source) / "label.tif") == 1).all()  # code 2: land


def test_control_points_on_both_sides_of_the_180th_meridian(source, random):
    use(source)
    crs = "EPSG:32660"
    (x,), (y,) = transform("EPSG:4326", crs, [180], [10])
    place = Affine(10, 0, x - 5 * SIZE, 0, -10, y + 5 * SIZE)
    values = optical(random)
    values[:, 30:50, 40:60] = 20_000
    source.write("o.tif", values, crs, place)
    path = source.write("s.tif", values.astype("f4"), crs=None, transform=None)
    at = [(c, r, *(place @ (c, r))) for r in (0, 48, 96) for c in (0, 48, 96)]
    lon, lat = transform(crs, "EPSG:4326", [p[2] for p in at], [p[3] for p in at])
    with rasterio.open(path, "r+") as dataset:
        points = [GroundControlPoint(r, c, a, b) for (c, r, *_), a, b in zip(at, lon, lat, strict=True)]
        dataset.gcps = points, rasterio.CRS.from_epsg(4326)
    source.sheet("a,o.tif,s.tif,,train")
    found = read_float(align(source) / "sar.tif")[0]
    assert (found[32:48, 42:58] > 19_000).all() and (found[:28] < 5_000).all() and (found[:, :38] < 5_000).all()


def test_further_images_of_a_file_are_named(source, random):
    use(source)
    path = source.write("o.tif", optical(random))
    run_tool("gdal_translate", "-q", "-co", "APPEND_SUBDATASET=YES", source.write("more.tif", optical(random)), path)
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    assert "o.tif: holds 2 images, of which the first is read" in rows(source)[0]["warnings"]


def test_places_in_arrays_get_the_advice_to_warp_by_them(source, random):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random), crs=None, transform=None)
    domain = '<Metadata domain="GEOLOCATION"><MDI key="X_DATASET">lon.tif</MDI><MDI key="X_BAND">1</MDI></Metadata>'
    (source.root / "s.vrt").write_text(
        f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}">{domain}<VRTRasterBand dataType="Float32" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">s.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    source.sheet("a,o.tif,s.vrt,,train")
    with pytest.raises(InputError, match=r"has no CRS and geotransform but geolocation arrays.*gdalwarp -geoloc"):
        source.take()


def test_labels_placed_by_control_points_bend_as_these_do(source, random):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    codes = np.ones((SIZE, SIZE), "u1")
    codes[:, 40:] = 2
    path = source.write("l.tif", codes, crs=None, transform=None)
    at = [(c, r) for r in np.linspace(0, SIZE, 7) for c in np.linspace(0, SIZE, 7)]
    with rasterio.open(path, "r+") as dataset:
        bent = [(c, r, *(UTM[1] @ (c + 8 * np.sin(np.pi * r / SIZE), r))) for c, r in at]
        dataset.gcps = [GroundControlPoint(r, c, x, y) for c, r, x, y in bent], rasterio.CRS.from_epsg(32633)
    source.sheet("a,o.tif,s.tif,l.tif,train")
    shift = 8 * np.sin(np.pi * (np.arange(SIZE)[:, None] + 0.5) / SIZE)
    column = np.arange(SIZE)[None] + 0.5 - shift
    expected = np.where(column < 0, 255, np.where(column < 40, 0, 1))
    np.testing.assert_array_equal(read_labels(align(source) / "label.tif"), expected)


@pytest.mark.parametrize("role", ["extra band", "quality mask"])
def test_values_of_a_mask_are_those_of_its_pixels_not_of_its_overviews(source, random, role):
    use(source)
    side = 1100
    mask = np.zeros((side, side), "u2")
    mask[::2], mask[:, :500] = 4, 4
    values = random.integers(200, 3000, (side, side)).astype("u2")
    source.write("s.tif", random.random((side, side)).astype("f4"))
    source.write("o.tif", values)
    path = source.write("m.tif", mask)
    if role == "extra band":
        path = source.write("o.tif", np.stack([values, mask]))
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2], rasterio.enums.Resampling.average)
    source.sheet()
    columns = ",optical_mask,optical_mask_codes" if role == "quality mask" else ""
    cells = ",m.tif,0" if columns else ""
    (source.root / "scenes.csv").write_text(f"scene,optical,sar{columns}\na,o.tif,s.tif{cells}\n")
    found = read_float(align(source) / "optical.tif")[0]
    np.testing.assert_array_equal(found, np.where(mask == 0, np.nan, values.astype("f4")))
    assert "none of which" not in rows(source)[0]["warnings"]


@pytest.mark.parametrize(("form", "noted"), [("band", True), ("ENVI", True), ("one", False), ("tag", False)])
def test_a_scale_that_only_metadata_state_is_noted(source, random, form, noted):
    use(source)
    path = source.write("o.img", optical(random), driver="ENVI" if form == "ENVI" else "GTiff")
    if form == "ENVI":
        header = path.with_suffix(".hdr")
        header.write_text(header.read_text() + "reflectance scale factor = 10000\n")
    else:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(1, scale_factor="1.0" if form == "one" else "0.0001", add_offset="0")
            if form == "tag":
                dataset.scales = (1e-4,)
    source.write("s.tif", power(random))
    source.sheet("a,o.img,s.tif,,train")
    source.take()
    stated = "reflectance_scale_factor = 10000" if form == "ENVI" else "scale_factor = 0.0001"
    assert (f"o.img: its metadata state {stated}, which no tag applies" in rows(source)[0]["warnings"]) == noted


def test_one_file_in_two_places_of_a_scene_is_noted(source, random):
    use(source, 2)
    for name in ("b2.tif", "b3.tif"):
        source.write(name, optical(np.random.default_rng(3)))
    source.write("s.tif", power(random))
    source.sheet("a,b2.tif;b3.tif,s.tif,,train")
    source.take()
    assert "b3.tif holds the same numbers as b2.tif" in rows(source)[0]["warnings"]


@pytest.mark.parametrize("form", ["/vsizip/l.zip/l.shp", "l.shp.zip", "l.gml", "l.zip"])
def test_vector_labels_in_archives_are_read_or_listed(source, random, form):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    (x, y), (right, bottom) = UTM[1] @ (5, 5), UTM[1] @ (20, 20)
    ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"class": 2}}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    plain = source.root / "plain.geojson"
    plain.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    folder = source.root / "shape"
    folder.mkdir()
    run_tool("ogr2ogr", source.root / "l.gml" if form == "l.gml" else folder / "l.shp", plain)
    archive = shutil.make_archive(str(source.root / "l"), "zip", folder)
    shutil.copy(archive, source.root / "l.shp.zip")
    source.sheet(f"a,o.tif,s.tif,{form},train")
    if form == "l.zip":
        with pytest.raises(InputError, match=r"inside are /vsizip/.*l\.zip/l\.shp"):
            source.take()
        return
    codes = read_labels(align(source) / "label.tif")
    assert (codes[5:20, 5:20] == 1).all() and (codes == 1).sum() == 15 * 15


@pytest.mark.parametrize(("ending", "driver"), [("img", "ENVI"), ("nc", "netCDF"), ("png", "PNG")])
@pytest.mark.parametrize("form", ["as it is", "in a virtual raster"])
def test_files_that_break_off_are_refused_where_gdal_reads_zeros(source, random, ending, driver, form):
    use(source)
    plain = source.write("plain.tif", random.integers(1, 255, (SIZE, SIZE)).astype("u1"))
    path = source.root / f"o.{ending}"
    rasterio.shutil.copy(plain, path, driver=driver)
    run_tool("gdal_translate", "-q", "-of", "VRT", path, source.root / "o.vrt")
    source.write("s.tif", power(random))
    source.sheet(f"a,{path.name if form == 'as it is' else 'o.vrt'},s.tif,,train")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=r"o\.\w+: cannot be read \(.*it breaks off before its end\)"):
        source.take()


def test_a_damaged_png_is_refused(source, random):
    use(source)
    plain = source.write("plain.tif", random.integers(1, 255, (SIZE, SIZE)).astype("u1"))
    path = source.root / "o.png"
    rasterio.shutil.copy(plain, path, driver="PNG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + content[len(content) // 2 + 100 :])
    source.write("s.tif", power(random))
    source.sheet("a,o.png,s.tif,,train")
    with pytest.raises(InputError, match=r"o\.png: cannot be read \(it breaks off before its end\)"):
        source.take()


@pytest.mark.parametrize("nodata", [None, 0])
def test_a_mask_beside_an_image_of_another_size_is_refused(source, random, nodata):
    use(source)
    source.write("o.tif", optical(random), nodata=nodata)
    source.write("m.tif", np.zeros((SIZE // 2, SIZE // 2), "u1")).rename(source.root / "o.tif.msk")
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    with pytest.raises(InputError, match=r"o\.tif\.msk: is the mask of an image of another size"):
        source.take()


@pytest.mark.parametrize(
    ("dtype", "value"), [("i4", -2147483647), ("u4", 2**32 - 1), ("f4", FLOAT_MIN), ("f4", -999.9)]
)
def test_fill_is_named_by_the_digits_that_declare_it(source, random, dtype, value):
    use(source)
    values = random.integers(200, 3000, (1, SIZE, SIZE)).astype(dtype)
    values[:, :, :EMPTY] = value
    source.write("o.tif", values)
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    named = re.search("of the optical pixels are (.*?) in all bands", rows(source)[0]["warnings"])[1]
    (source.root / "scenes.csv").write_text(f"scene,optical,sar,optical_nodata\na,o.tif,s.tif,{named}\n")
    found = read_float(align(source) / "optical.tif")
    assert np.isnan(found[:, :, :EMPTY]).all() and np.isfinite(found[:, :, EMPTY:]).all()
    assert float(rows(source)[0]["optical_nodata"]) == float(named)


@pytest.mark.parametrize("linked", [False, True])
def test_a_link_without_the_files_beside_its_target_is_refused(source, random, linked):
    use(source)
    path = source.write("archive/o.tif", optical(random))
    write_mask(path, ".msk")
    (source.root / "o.tif").symlink_to(path)
    if linked:
        (source.root / "o.tif.msk").symlink_to(f"{path}.msk")
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    if linked:
        assert np.isnan(read_float(align(source) / "optical.tif")[:, :, :EMPTY]).all()
        return
    with pytest.raises(InputError, match=r"o\.tif: is a link, beside which GDAL does not find .*archive/o\.tif\.msk"):
        source.take()


def test_masks_beside_some_png_tiles_and_beside_the_target_of_a_link_are_found(source, random):
    """Without files beside them, PNG files are opened without a look for such files."""
    use(source, 1)
    for number in range(6):
        for kind in "osl":
            values = random.integers(1, 4, (SIZE, SIZE)).astype("u1")
            path = source.write(f"{kind}_{number}.png", values, crs=None, transform=None, driver="PNG")
            if kind == "o" and number % 2:
                write_mask(path, ".msk")
    source.source = SourceConfig(layout="tiles", optical="o_{t}.png", sar="s_{t}.png", label="l_{t}.png")
    source.take()
    shares = [float(row["optical_valid_share"]) for row in rows(source)]
    assert shares == pytest.approx([1, 1 - EMPTY / SIZE] * 3, abs=1e-6)
    path = source.root / "s_4.png"
    path.rename(source.root / "archive.png")
    path.symlink_to("archive.png")
    write_mask(source.root / "archive.png", ".msk")
    with pytest.raises(InputError, match=r"s_4\.png: is a link, beside which GDAL does not find .*archive\.png\.msk"):
        source.take()


@pytest.mark.parametrize("shape", [(1, SIZE, SIZE // 2), (2, SIZE, SIZE)])
def test_files_of_another_form_than_in_the_inventory_are_not_aligned(source, random, shape):
    use(source)
    source.write("o.tif", optical(random))
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    source.write("o.tif", np.ones(shape, "u2"))
    with pytest.raises(InputError, match="another size, place or number of bands than in the inventory"):
        align_scene(
            source.json, "a", source.sensors, source.labels, AlignConfig(enabled=False), source.root / "results"
        )


@pytest.mark.parametrize("scale", ["auto", "db"])
@pytest.mark.parametrize("stacked", [False, True])
def test_linear_power_beside_decibels_is_refused(source, random, scale, stacked):
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["b0"], kind="reflectance"),
        sar=SensorConfig(bands=["vv", "vh"], kind="backscatter", scale=scale),
    )
    source.write("o.tif", optical(random))
    values = np.stack([10 * np.log10(power(random)), power(random)])
    values[1, :, :EMPTY] = 0
    for name, part in (("s.tif", values), ("vv.tif", values[0]), ("vh.tif", values[1])):
        source.write(name, part)
    source.sheet(f"a,o.tif,{'vv.tif;vh.tif' if stacked else 's.tif'},,train")
    with pytest.raises(InputError, match=r"\.tif: has linear power in band vh by its values"):
        source.take()


def test_tags_for_scale_on_real_numbers_are_noted(source, random):
    use(source)
    path = source.write("o.tif", random.uniform(0, 1, (SIZE, SIZE)).astype("f4"))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (1e-4,)
    source.write("s.tif", power(random))
    source.sheet("a,o.tif,s.tif,,train")
    source.take()
    assert "tags for scale and offset turn its real numbers into " in rows(source)[0]["warnings"]


def test_latitudes_beyond_the_poles_are_refused(source, random):
    use(source)
    for name, values in (("o.tif", optical(random)), ("s.tif", power(random))):
        source.write(name, values, "EPSG:4326", Affine(1e-4, 0, 35, 0, -1e-4, 139.7))
    source.sheet("a,o.tif,s.tif,,train")
    with pytest.raises(InputError, match=r"o\.tif, .*s\.tif\): is at latitudes from 139\.69 to 139\.7"):
        source.take()
