"""A planted landmark keeps place and value whatever form its file has; odd files that are read right stay right."""

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.raster.conftest import UTM
from tmcnet.config import AlignConfig, SensorConfig, SensorsConfig, TilesConfig
from tmcnet.raster.io.files import RasterFile
from tmcnet.raster.io.reader import Raster, read_float
from tmcnet.raster.tiling import grid
from tmcnet.raster.tiling.grid import align_scene
from tmcnet.store import TileStore

SIZE, EMPTY = 64, 12
BACKGROUND, LANDMARK = 40.0, 120.0
HERE = np.s_[..., 20:28, 40:48]
ORIENTATIONS = {
    "north up": UTM[1],
    "south up": UTM[1] @ Affine.scale(1, -1),
    "west": UTM[1] @ Affine.scale(-1, 1),
    "turned": UTM[1] @ Affine.rotation(31),
}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(grid.picture, "draw", lambda *_: None)


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
    max_examples=14,
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
