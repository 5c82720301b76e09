"""Scenes come in the formats that agencies deliver."""

import subprocess

import numpy as np
import pytest
import rasterio

from tmcnet.config import SensorConfig, SensorsConfig, SourceConfig
from tmcnet.errors import InputError
from tmcnet.hashing import file_digest
from tmcnet.raster.inventory.records import SceneRecord

COPY = {
    "JPEG2000": ("JP2OpenJPEG", "a.jp2", ("QUALITY=100", "REVERSIBLE=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=64")),
    "COG": ("COG", "a.tif", ("COMPRESS=DEFLATE", "BLOCKSIZE=128")),
    "VRT": ("VRT", "a.vrt", ()),
    "PNG": ("PNG", "a.png", ("WORLDFILE=YES",)),
}
"""Driver, file and creation options."""


@pytest.fixture
def scene(source):
    """A scene whose optical image can be held by any format: 8 bit, three bands."""
    source.image = np.random.default_rng(5).integers(1, 255, (3, 300, 280)).astype("u1")
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["r", "g", "b"], kind="reflectance"), sar=source.sensors["sar"]
    )
    source.write("plain.tif", source.image)
    for name, kind in (("s", "f4"), ("l", "u1")):
        source.write(f"a_{name}.tif", np.ones((300, 280), kind))
    return source


def translate(source, name: str) -> str:
    driver, file, options = COPY[name]
    with rasterio.Env() as gdal:
        if driver not in gdal.drivers():
            pytest.skip(f"this GDAL has no driver {driver}")
    (source.root / "raw").mkdir(exist_ok=True)
    chosen = [part for option in options for part in ("-co", option)]
    command = ["gdal_translate", "-q", "-of", driver, *chosen, source.root / "plain.tif", source.root / "raw" / file]
    subprocess.run(command, check=True)
    return f"raw/{file}"


def take(source, file: str, **config) -> SceneRecord:
    source.sheet(f"a,{file},a_s.tif,a_l.tif,train")
    source.source = SourceConfig(layout="scenes", sheet=source.source.sheet, **config)
    return source.take().records[0]


@pytest.mark.parametrize("name", ["JPEG2000", "COG", "VRT"])
def test_the_format_is_read_as_geotiff_is(scene, name):
    record = take(scene, translate(scene, name))
    assert (record.crs, record.gsd, record.images["sar"].overlap, record.height) == ("EPSG:32633", 10, 1, 300)
    np.testing.assert_array_equal(record.images["optical"].raster.read_all(), scene.image)


def test_a_png_has_its_place_from_the_world_file_and_its_crs_from_the_config(scene):
    file = translate(scene, "PNG")
    (scene.root / "raw" / "a.png.aux.xml").unlink(missing_ok=True)
    assert (scene.root / "raw" / "a.wld").is_file()
    with pytest.raises(InputError, match=r"a\.png: has no CRS\. .* or set `source\.crs`"):
        take(scene, file)
    record = take(scene, file, crs="EPSG:32633")
    assert (record.crs, record.gsd, record.images["sar"].overlap) == ("EPSG:32633", 10, 1)
    np.testing.assert_array_equal(record.images["optical"].raster.read_all(), scene.image)


@pytest.mark.parametrize("name", ["JPEG2000", "COG", "PNG"])
def test_a_file_that_breaks_off_is_reported_in_every_format(scene, name):
    path = scene.root / translate(scene, name)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    with pytest.raises(InputError, match=rf"{path.name}.* cannot be read"):
        take(scene, f"raw/{path.name}", crs="EPSG:32633")


def test_a_virtual_raster_whose_file_is_gone_is_reported(scene):
    file = translate(scene, "VRT")
    (scene.root / "plain.tif").unlink()
    with pytest.raises(InputError, match=r"a\.vrt: cannot be read .*plain\.tif"):
        take(scene, file)


def test_other_pixels_behind_a_virtual_raster_give_another_inventory(scene):
    file = translate(scene, "VRT")
    first = take(scene, file)
    assert first.digests[:2] == [file_digest(scene.root / name) for name in (file, "plain.tif")]
    scene.write("plain.tif", scene.image[:, ::-1])
    second = take(scene, file)
    assert [a == b for a, b in zip(first.digests, second.digests, strict=True)] == [True, False, True, True]
