"""A planted landmark keeps place and value whatever form its file has; odd files that are read right stay right."""

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rasterio.warp import transform

from tests.raster.conftest import UTM
from tmcnet.config import AlignConfig, SensorConfig, SensorsConfig, TilesConfig
from tmcnet.raster.io.files import RasterFile
from tmcnet.raster.io.reader import Raster, read_float
from tmcnet.raster.tiling.grid import align_scene
from tmcnet.store import TileStore

pytestmark = pytest.mark.usefixtures("no_pictures")

SIZE, EMPTY = 64, 12
BACKGROUND, LANDMARK = 40.0, 120.0
HERE = np.s_[..., 20:28, 40:48]
ORIENTATIONS = {
    "north up": UTM[1],
    "south up": UTM[1] @ Affine.scale(1, -1),
    "west": UTM[1] @ Affine.scale(-1, 1),
    "turned": UTM[1] @ Affine.rotation(31),
}


def write(source, name, values, dtype, form, scaling, **place):
    """Write a band, whose first columns are no data in one of several forms."""
    scale, offset = scaling
    stored = np.rint((values - offset) / scale) if np.dtype(dtype).kind in "iu" else (values - offset) / scale
    stored = stored.astype(dtype)
    nodata = {"zero": 0, "high": 121 if dtype == "u1" else 9999, "nan": np.nan}.get(form)
    if nodata is not None:
        stored[:, :EMPTY] = nodata
    path = source.write(name, stored, nodata=nodata, **place)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=form == "mask"), rasterio.open(path, "r+") as dataset:
        if form in ("mask", "msk"):
            kept = np.full((SIZE, SIZE), 255, "u1")
            kept[:, :EMPTY] = 0
            dataset.write_mask(kept)
        dataset.scales, dataset.offsets = (scale,), (offset,)


FORM = st.sampled_from(["none", "zero", "high", "nan", "mask", "msk"])
BAND = st.tuples(
    st.sampled_from(["u1", "u2", "i2", "i4", "f4", "f8"]), FORM, st.sampled_from([(1, 0), (0.5, 0), (1, -20), (2, 6)])
)


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    bands=st.lists(BAND, min_size=1, max_size=3),
    orientation=st.sampled_from(sorted(ORIENTATIONS)),
    stacked=st.booleans(),
)
def test_a_landmark_keeps_place_and_value(source, bands, orientation, stacked):
    bands = [(d, "zero" if f == "nan" and np.dtype(d).kind != "f" else f, s) for d, f, s in bands]
    bands = bands if stacked else bands[:1]
    if any(d == "u1" and s == (0.5, 0) for d, _, s in bands):
        bands = [(d, f, (1, 0) if d == "u1" else s) for d, f, s in bands]  # 240 fits, 0.5 steps do not matter here
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=[f"b{i}" for i in range(len(bands))], kind="reflectance"),
        sar=SensorConfig(bands=["vv"], kind="backscatter"),
    )
    place = {"transform": ORIENTATIONS[orientation]}
    values = np.full((SIZE, SIZE), BACKGROUND)
    values[HERE] = LANDMARK
    for path in source.root.glob("*.tif*"):
        path.unlink()
    for number, (dtype, form, scaling) in enumerate(bands):
        write(source, f"b{number}.tif", values, dtype, form, scaling, **place)
    source.write("s.tif", values.astype("f4"), **place)
    source.sheet(f"a,{';'.join(f'b{i}.tif' for i in range(len(bands)))},s.tif,,train")
    source.take()
    results = source.root / "results"
    align = AlignConfig(enabled=False)
    align_scene(source.json, "a", source.sensors, source.labels, align, results / "scenes" / "a")
    cutting = TilesConfig(size=SIZE, stride=SIZE, min_valid=0)
    source.cut(cutting)
    tile = read_float(TileStore(results / "tiles").path("optical", "a_r0_c0"))
    for band, (_, form, _) in zip(tile, bands, strict=True):
        expected = values.copy()
        if form != "none":
            expected[:, :EMPTY] = np.nan
        np.testing.assert_allclose(band, expected, atol=1e-4)


def around_the_scene(crs, orientation):
    """Grid of 11 m or a little more over the scene and ground beside it, in another CRS; and its size."""
    corners = UTM[1] @ (np.array([-15.3, 80, -15.3, 80]), np.array([-15.3, -15.3, 80, 80]))
    x, y = map(np.asarray, transform(UTM[0], crs, *corners))
    size = {"EPSG:4326": 1.5e-4, "EPSG:3857": 17.0}.get(crs, 11.0)
    width, height = int(np.ptp(x) / size) + 1, int(np.ptp(y) / size) + 1
    north_up = Affine(size, 0, x.min(), 0, -size, y.max())
    middle = Affine.translation(width / 2, height / 2)
    form = {"south up": Affine.scale(1, -1), "west": Affine.scale(-1, 1), "turned": Affine.rotation(31)}
    more = 1.4 if orientation == "turned" else 1  # so that the corners of the scene are inside
    shape = int(height * more), int(width * more)
    return north_up @ middle @ form.get(orientation, Affine.identity()) @ Affine.translation(
        -shape[1] / 2, -shape[0] / 2
    ), shape


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    places=st.lists(st.sampled_from(["EPSG:32633", "EPSG:32634", "EPSG:4326", "EPSG:3857"]), min_size=2, max_size=2),
    dtype=st.sampled_from(["u1", "i2", "f4"]),
    form=st.sampled_from(["zero", "mask", "msk"]),
    scaling=st.sampled_from([(1, 0), (2, 6)]),
    orientations=st.lists(st.sampled_from(sorted(ORIENTATIONS)), min_size=2, max_size=2),
)
def test_a_landmark_keeps_place_and_value_across_coordinate_systems(
    source, places, dtype, form, scaling, orientations
):
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["b0", "b1"], kind="reflectance"),
        sar=SensorConfig(bands=["vv"], kind="backscatter", scale="none"),
    )
    for path in source.root.glob("*.tif*"):
        path.unlink()
    source.write("b0.tif", np.full((SIZE, SIZE), 7, "u1"))
    for name, crs, orientation in zip(("b1", "s"), places, orientations, strict=True):
        grid_there, (height, width) = around_the_scene(crs, orientation)
        column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        east, north = grid_there @ (column.ravel(), row.ravel())
        x, y = ~UTM[1] @ tuple(map(np.asarray, transform(crs, UTM[0], east, north)))
        x, y = x.reshape(height, width), y.reshape(height, width)
        inside = (x >= 36) & (x < 52) & (y >= 20) & (y < 36)
        stored = ((np.where(inside, LANDMARK, BACKGROUND) - scaling[1]) / scaling[0]).astype(dtype)
        stored[x < EMPTY] = 0
        path = source.write(
            f"{name}.tif", stored, crs=crs, transform=grid_there, nodata=0 if form == "zero" else None
        )
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=form == "mask"), rasterio.open(path, "r+") as dataset:
            if form != "zero":
                dataset.write_mask(np.where(x < EMPTY, 0, 255).astype("u1"))
            dataset.scales, dataset.offsets = (scaling[0],), (scaling[1],)
    source.sheet("a,b0.tif;b1.tif,s.tif,,train")
    source.take()
    folder = source.root / "results" / "scenes" / "a"
    align_scene(source.json, "a", source.sensors, source.labels, AlignConfig(enabled=False), folder)
    source.cut(TilesConfig(size=SIZE, stride=SIZE, min_valid=0))
    tiles = TileStore(source.root / "results" / "tiles")
    for kind, number in (("optical", 1), ("sar", 0)):
        band = read_float(tiles.path(kind, "a_r0_c0"))[number]
        assert np.isnan(band[:, : EMPTY - 2]).all() and np.isfinite(band[:, EMPTY + 2 :]).all()
        np.testing.assert_allclose(band[25:31, 41:47], LANDMARK, atol=1e-3)
        around = np.ones(band.shape, bool)
        around[15:41, 31:57], around[:, : EMPTY + 4] = False, False
        np.testing.assert_allclose(band[around], BACKGROUND, atol=1e-3)


def test_jpeg_2000_files_of_two_resolutions_are_stacked(source):
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["b2", "b5"], kind="reflectance"),
        sar=SensorConfig(bands=["vv"], kind="backscatter", scale="none"),
    )
    values = np.random.default_rng(0).integers(1, 4000, (SIZE, SIZE)).astype("u2")
    for name, array, factor in (("b2", values, 1), ("b5", np.full((SIZE // 2, SIZE // 2), 300, "u2"), 2)):
        plain = source.write(f"{name}.tif", array, transform=UTM[1] @ Affine.scale(factor))
        options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
        rasterio.shutil.copy(plain, source.root / f"{name}.jp2", **options)
    source.write("s.tif", np.full((SIZE, SIZE), BACKGROUND, "f4"))
    source.sheet("a,b2.jp2;b5.jp2,s.tif,,train")
    source.take()
    folder = source.root / "results" / "scenes" / "a"
    align_scene(source.json, "a", source.sensors, source.labels, AlignConfig(enabled=False), folder)
    fine, coarse = read_float(folder / "optical.tif")
    np.testing.assert_array_equal(fine, values)
    assert (coarse == 300).all()


def odd(name):
    """Profile, values, and further steps of a file like those in the test suites of GDAL's users."""
    random = np.random.default_rng(0)
    plain = {"crs": UTM[0], "transform": UTM[1]}
    many = random.integers(1, 4000, (2, SIZE, SIZE))
    return {
        "12 bits, big-endian": (plain | {"driver": "GTiff", "NBITS": 12, "ENDIANNESS": "BIG"}, many.astype("u2")),
        "int8": (
            plain | {"driver": "GTiff", "nodata": -128},
            random.integers(-120, 120, (1, SIZE, SIZE)).astype("i1"),
        ),
        "no data outside the type": (plain | {"driver": "GTiff"}, (many[:1] % 200).astype("u1")),
        "BIP float64": (plain | {"driver": "ENVI", "INTERLEAVE": "BIP"}, many.astype("f8") / 7),
        "ERDAS": (plain | {"driver": "HFA"}, many.astype("i2")),
        "NITF": (
            {"driver": "NITF", "crs": "EPSG:4326", "transform": Affine(1e-3, 0, 15, 0, -1e-3, 48)},
            many[:1].astype("u2"),
        ),
        "pixel is point": (plain | {"driver": "GTiff"}, many.astype("u2")),
        "sparse BigTIFF": (
            plain
            | {
                "driver": "GTiff",
                "BIGTIFF": "YES",
                "SPARSE_OK": True,
                "tiled": True,
                "nodata": 0,
                "blockxsize": 16,
                "blockysize": 16,
            },
            np.where(np.arange(SIZE) < 16, many, 0).astype("u2"),
        ),
        "JPEG 2000": (plain | {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}, many.astype("u2")),
    }[name]


NAMES = [
    *("12 bits, big-endian", "int8", "no data outside the type", "BIP float64", "ERDAS", "NITF", "pixel is point"),
    *("sparse BigTIFF", "JPEG 2000"),
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_files_are_read_right(tmp_path, name):
    profile, values = odd(name)
    shape = {"count": len(values), "height": SIZE, "width": SIZE, "dtype": values.dtype.name}
    path = tmp_path / "a.tif"
    if profile["driver"] in ("GTiff", "ENVI", "HFA"):
        with rasterio.open(path, "w", **profile, **shape) as dataset:
            if name == "pixel is point":
                dataset.update_tags(AREA_OR_POINT="Point")
            dataset.write(values)
    else:
        form = {"crs": profile.pop("crs"), "transform": profile.pop("transform")}
        with rasterio.open(tmp_path / "plain.tif", "w", driver="GTiff", **form, **shape) as dataset:
            dataset.write(values)
        rasterio.shutil.copy(tmp_path / "plain.tif", path, **profile)
        profile |= form
    raster = Raster.of(path)
    if name == "no data outside the type":
        raster = Raster((RasterFile((str(path),), nodata=-9999.0),))
    expected = values.astype("f4")
    if "nodata" in profile:
        expected[values == profile["nodata"]] = np.nan
    np.testing.assert_array_equal(raster.read_all(), expected)
    np.testing.assert_array_equal(raster.read(3, 5, 7, 9), expected[:, 3:10, 5:14])
    np.testing.assert_allclose(raster.grid.transform[:6], profile["transform"][:6], rtol=1e-9, atol=1e-4)


def test_a_jpeg_in_a_tiff_keeps_its_mask(tmp_path):
    values = np.full((3, SIZE, SIZE), 100, "u1")
    options = {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel", "tiled": True}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            tmp_path / "a.tif", "w", driver="GTiff", count=3, height=SIZE, width=SIZE, dtype="uint8", **options
        ) as dataset,
    ):
        dataset.write(values)
        dataset.write_mask(np.where(np.arange(SIZE) < EMPTY, 0, 255).astype("u1")[None].repeat(SIZE, 0))
    found = read_float(tmp_path / "a.tif")
    assert np.isnan(found[:, :, :EMPTY]).all() and (np.abs(found[:, :, EMPTY:] - 100) < 3).all()
