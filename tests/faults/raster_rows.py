"""Bad rasters, vector labels and VRTs, and how the message about them begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from tests.raster.conftest import Source
from tmcnet.raster.inventory.sources import check_outside, find_entries

VRT = """<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32633</SRS>
<GeoTransform>500000, 10, 0, 5400000, 0, -10</GeoTransform>
<VRTRasterBand dataType="Float32" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>"""


def inventory(damage: Callable[[Source], object]) -> Callable[[Path], None]:
    """Take the inventory of a good scene after some damage."""

    def act(folder: Path) -> None:
        source = Source(folder)
        source.scene("a")
        damage(source)
        source.take()

    return act


def overwrite(name: str, content: bytes) -> Callable[[Source], object]:
    return lambda source: (source.root / name).write_bytes(content)


def image(name: str, array: np.ndarray, **profile: object) -> Callable[[Source], object]:
    return lambda source: source.write(name, array, **profile)


def cut(source: Source) -> None:
    path = source.root / "a_s.tif"
    path.write_bytes(path.read_bytes()[:-3000])


def flipped(source: Source) -> None:
    """Damage in the middle of compressed pixels."""
    source.write("a_s.tif", np.random.default_rng(0).gamma(2, 0.05, (64, 64)).astype("f4"), compress="deflate")
    path = source.root / "a_s.tif"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = b"\xff" * 400
    path.write_bytes(content)


def virtual(**sources: str) -> Callable[[Source], object]:
    """SAR from a VRT, which names these files: its own by `a`, another VRT by `b`."""

    def damage(source: Source) -> None:
        for name, inner in sources.items():
            (source.root / f"{name}.vrt").write_text(VRT.format(source=inner, side=64))
        source.sheet("a,a_o.tif,a.vrt,a_l.tif,train")
        for entry in find_entries(source.source, source.root):
            assert entry.files

    return damage


def sparse(source: Source) -> None:
    """A file of a few kilobytes with 10^12 pixels."""
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "width": 10**6, "height": 10**6, "tiled": True}
    profile |= {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_400_000), "blockxsize": 16384}
    profile |= {"blockysize": 16384, "compress": "deflate", "sparse_ok": True, "BIGTIFF": "YES"}
    with rasterio.open(source.root / "a_s.tif", "w", **profile):
        pass


def vector(text: str) -> Callable[[Source], object]:
    def damage(source: Source) -> None:
        (source.root / "a_l.geojson").write_text(text)
        source.sheet("a,a_o.tif,a_s.tif,a_l.geojson,train")

    return damage


def inside_results(folder: Path) -> None:
    """Ready-made tiles where the workflow would write its own."""
    source = Source(folder / "out" / "tiles")
    source.scene("a")
    check_outside(find_entries(source.source, source.root), folder / "out")


ONES = np.ones((64, 64), "f4")
INSIDE = "out/tiles/a_o.tif: is in a folder of the results, whose files are overwritten and removed"
ROWS: list[tuple[str, Callable[[Path], None], str]] = [("imagery in the results", inside_results, INSIDE)]
ROWS += [
    (f"raster: {name}", inventory(damage), sentence)
    for name, damage, sentence in [
        (
            "empty file",
            overwrite("a_s.tif", b""),
            "a_s.tif: cannot be read ('a_s.tif' not recognized as being in a supported file format)",
        ),
        (
            "text",
            overwrite("a_s.tif", b"hello"),
            "a_s.tif: cannot be read ('a_s.tif' not recognized as being in a supported file format)",
        ),
        (
            "cut",
            cut,
            "a_s.tif: cannot be read (a_s.tif, band 1: IReadBlock failed at",
        ),
        (
            "damaged pixels",
            flipped,
            "a_s.tif: cannot be read (a_s.tif, band 1: IReadBlock failed at",
        ),
        ("no CRS", image("a_s.tif", ONES, crs=None, transform=None), "a_s.tif: has no CRS and geotransform"),
        (
            "zero pixel size",
            image("a_s.tif", ONES, transform=Affine(0, 0, 500_000, 0, 0, 5_400_000)),
            "a_s.tif: has no usable geotransform: 500000, 0, 0, 5.4e+06, 0, 0",
        ),
        (
            "NaN in place",
            image("a_s.tif", ONES, transform=Affine(float("nan"), 0, 0, 0, -10, 0)),
            "a_s.tif: has no usable geotransform: nan, nan, 0, 0, 0, -10",
        ),
        (
            "elsewhere",
            image("a_s.tif", ONES, transform=Affine(10, 0, 900_000, 0, -10, 5_400_000)),
            "a_s.tif: covers 0% of a_o.tif; at least 50% is needed",
        ),
        (
            "too many bands",
            image("a_s.tif", np.ones((3, 64, 64), "f4")),
            "a_s.tif: has 3 band(s), but `sensors.sar.bands` names 1: vv",
        ),
        ("all NaN", image("a_s.tif", ONES * np.nan), "a_s.tif: has no pixel that is valid in all bands"),
        ("all infinite", image("a_s.tif", ONES * np.inf), "a_s.tif: has no pixel that is valid in all bands"),
        ("all no data", image("a_s.tif", ONES, nodata=1), "a_s.tif: has no pixel that is valid in all bands"),
        (
            "negative power",
            image("a_s.tif", -ONES),
            "a_s.tif: `sensors.sar.scale: linear` cannot be: the smallest value is -1",
        ),
        (
            "unknown code",
            image("a_l.tif", np.full((64, 64), 9, "u1")),
            "a_l.tif: holds 1 codes that no class has: 9 (4096 pixels)",
        ),
        (
            "fractional codes",
            image("a_l.tif", np.full((64, 64), 1.5, "f4")),
            "a_l.tif: holds 4096 pixels whose code is no whole number",
        ),
        ("NaN codes", image("a_l.tif", ONES * np.nan), "a_l.tif: holds 4096 pixels whose code is no whole number"),
        (
            "huge codes",
            image("a_l.tif", np.full((64, 64), 1e30, "f8")),
            "a_l.tif: holds 4096 pixels whose code is no whole number",
        ),
        (
            "negative codes",
            image("a_l.tif", np.full((64, 64), -1, "i2")),
            "a_l.tif: holds 1 codes that no class has: -1 (4096 pixels)",
        ),
        (
            "colours as codes",
            image("a_l.tif", np.ones((3, 64, 64), "u1")),
            "a_l.tif: has 3 bands, but `labels.encoding: ids` means one band of codes",
        ),
        (
            "label elsewhere",
            image("a_l.tif", np.ones((64, 64), "u1"), transform=Affine(10, 0, 9e5, 0, -10, 5e6)),
            "a_l.tif: covers 0% of a_o.tif; some ground must be in both",
        ),
        (
            "complex label",
            image("a_l.tif", np.ones((64, 64), "c8")),
            "a_l.tif: holds 4096 pixels whose code is no whole number",
        ),
        ("VRT of itself", virtual(a="a.vrt"), "a.vrt: cannot be read (it is a source of itself)"),
        ("VRTs of each other", virtual(a="b.vrt", b="a.vrt"), "a.vrt: cannot be read (it is a source of itself)"),
        ("VRT of nothing", virtual(a="gone.tif"), "a.vrt: cannot be read (gone.tif: No such file or directory)"),
        (
            "VRT of a URL",
            virtual(a="/vsicurl/http://127.0.0.1:9/x.tif"),
            "a.vrt: is remote or has a remote source (scene a)",
        ),
        ("10^12 pixels", sparse, "a_s.tif: has 1000000 x 1000000 pixels, more than the limit of 1e+11"),
        (
            "broken GeoJSON",
            vector("{"),
            "ogrinfo -ro -so -al a_l.geojson: GDAL says: FAILURE: Unable to open datasource `a_l.geojson'",
        ),
        (
            "GeoJSON of nothing",
            vector('{"type": "FeatureCollection", "features": []}'),
            "a_l.geojson: has no feature on the scene (0 features near it)",
        ),
    ]
]
