"""A landmark keeps its place from the raw files to the tile, on any grids."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rasterio.warp import transform

from tmcnet.config import AlignConfig, SensorConfig, SensorsConfig, TilesConfig
from tmcnet.raster.io.reader import read_float, read_grid, read_labels
from tmcnet.raster.tiling import grid
from tmcnet.raster.tiling.grid import align_scene
from tmcnet.raster.tiling.tiles import windows
from tmcnet.store import TileStore

pytestmark = pytest.mark.usefixtures("no_pictures")

UNITS = {"EPSG:32633": 10.0, "EPSG:3035": 10.0, "EPSG:4326": 0.0001, "EPSG:3857": 15.0}
"""Size of a pixel of about 10 m."""
PLACE = 500_600.0, 5_399_400.0
"""Where the landmark is, in EPSG:32633."""
SPREAD = 20.0
"""Metres from the middle of the landmark to where it has faded to 0.6."""
WIDE = 1_000
"""Sides of the rasters in metres, about."""


def lies_in(crs: str) -> np.ndarray:
    (x,), (y,) = transform("EPSG:32633", crs, [PLACE[0]], [PLACE[1]])
    return np.array([x, y])


def turned_grid(crs: str, factor: float, turn: float, odd: tuple[int, int], beside: tuple[float, float]):
    """A grid of an odd size around the landmark, whose corner falls between the pixels of any other grid."""
    unit = UNITS[crs] * factor
    height, width = (round(WIDE / 10 / factor) + more for more in odd)
    middle = Affine.translation(width / 2 + beside[0], height / 2 + beside[1])
    return Affine.translation(*lies_in(crs)) @ Affine.rotation(turn) @ Affine.scale(unit, -unit) @ ~middle, (
        height,
        width,
    )


def landmark(at: Affine, shape: tuple[int, int], crs: str) -> np.ndarray:
    """Its brightness on a grid: round on the ground of EPSG:32633."""
    row, column = np.mgrid[: shape[0], : shape[1]] + 0.5
    x, y = at @ (column.ravel(), row.ravel())
    east, north = transform(crs, "EPSG:32633", x, y)
    away = np.hypot(np.subtract(east, PLACE[0]), np.subtract(north, PLACE[1]))
    return np.exp(-((away / SPREAD) ** 2) / 2).reshape(shape)


def plant(source, name, crs, at, shape, nodata, label=False):
    image = landmark(at, shape, crs)
    if label:
        codes = np.where(image > 0.3, 1, 2).astype("u1")
        codes[:4] = 0 if nodata is None else nodata
        source.write(name, codes, crs, at, nodata=nodata)
        return
    values = (100 + 10_000 * image).astype("u2" if nodata is None or nodata >= 0 else "f4")
    if nodata is not None:
        values[:, :3] = nodata
    source.write(name, values, crs, at, nodata=nodata)


def centre(weights: np.ndarray) -> np.ndarray:
    row, column = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return np.array([(column * weights).sum(), (row * weights).sum()]) / weights.sum()


GRID = st.tuples(
    st.sampled_from(sorted(UNITS)),
    st.sampled_from([0.6, 1.0, 1.7]),
    st.sampled_from([0.0, 0.4, 7.0, -31.0, 90.0, 180.0]),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
)
"""CRS, factor of the pixel size, degrees by which it is turned, surplus of rows and columns, place of the middle."""


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # looking for a simpler failing case takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    optical=GRID,
    sar=GRID,
    label=GRID,
    nodata=st.tuples(*(st.sampled_from(values) for values in ([None, 0, 7], [None, -1, 0], [None, 0, 99]))),
    resolution=st.sampled_from([None, 1.3, 2.1]),
    tile=st.tuples(st.sampled_from([64, 81]), st.sampled_from(["pad", "shift"])),
    store=st.sampled_from(["files", "virtual"]),
)
def test_a_landmark_keeps_its_place(source, optical, sar, label, nodata, resolution, tile, store):
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["b"], kind="reflectance"), sar=SensorConfig(bands=["h"], kind="elevation")
    )
    for name, (crs, *form), empty in zip("osl", (optical, sar, label), nodata, strict=True):
        plant(source, f"a_{name}.tif", crs, *turned_grid(crs, *form), empty, label=name == "l")
    source.take()
    results = source.json.parent
    pixel = None if resolution is None else UNITS[optical[0]] * resolution
    align = AlignConfig(enabled=False, resolution=pixel)
    align_scene(source.json, "a", source.sensors, source.labels, align, results / "scenes" / "a")
    size, edge = tile
    cutting = TilesConfig(size=size, stride=24, edge=edge, min_valid=0, store=store)
    source.cut(cutting)
    check_tiles(TileStore(results / "tiles"), optical[0], size)


def check_tiles(store: TileStore, crs: str, size: int) -> None:
    """Check that every tile with the whole landmark shows it where its georeference says."""
    with store.index.open(newline="") as file:
        rows = list(csv.DictReader(file))
    seen = 0
    for row in rows:
        tile = row["tile"]
        window = store.window(tile)
        at = read_grid(store.path("optical", tile))
        place = np.array(~(at.window(window) if window else at).transform @ lies_in(crs))
        if np.abs(place - size / 2).max() > size / 2 - 5 * SPREAD / float(row["pixel_metres"]):
            continue  # parts of it are outside
        seen += 1
        for kind in ("optical", "sar"):
            values = read_float(store.path(kind, tile), window)[0]
            assert values.shape == (size, size)
            found = centre(np.nan_to_num(values - 150, nan=0.0).clip(min=0))
            assert np.abs(found - place).max() < 0.5, (kind, tile)
        label = read_labels(store.path("label", tile), window) == 0
        # the nearest label may be half a pixel off
        assert np.abs(centre(label) - place).max() < 0.6, tile
    assert seen > 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    side=st.integers(60, 530),
    size=st.sampled_from([32, 64, 256, 512]),
    off=st.floats(-1e-4, 1e-4),
    edge=st.sampled_from(["shift", "pad", "drop"]),
)
def test_grids_that_almost_align_give_no_extra_pixel(side, size, off, edge):
    """Corners and pixel sizes that are off by rounding must not turn 512 pixels into 513."""
    unit = 10.0 * (1 + off / side / 10)
    native = grid.Grid("EPSG:32633", Affine(unit, 0, 5e5 + off, 0, -unit, 5.4e6 - off), side, side)
    common = grid.rescaled_grid(native, 10.0)
    assert (common.width, common.height) == (side, side)
    boxes = windows(common.height, common.width, TilesConfig(size=size, stride=size, edge=edge))
    assert {box[2:] for box in boxes} == {(size, size)}
    assert len(boxes) == (max(side // size, 1) if edge == "drop" else max(-(-side // size), 1)) ** 2
    assert all(isinstance(number, int) for box in boxes for number in box)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_pair_across_the_180th_meridian_is_brought_to_one_grid(source, swapped):
    """In UTM on one side, in degrees beyond 180 on the other; landmarks on both sides of the meridian."""
    source.sensors = SensorsConfig(
        optical=SensorConfig(bands=["b"], kind="reflectance"), sar=SensorConfig(bands=["h"], kind="elevation")
    )
    (x,), (y,) = transform("EPSG:4326", "EPSG:32660", [180.0], [52.0])
    utm = "EPSG:32660", Affine(10, 0, x - 600, 0, -10, y + 600)
    degrees = "EPSG:4326", Affine(1.5e-4, 0, 179.991, 0, -1e-4, 52.0055)
    shapes = {"EPSG:32660": (120, 120), "EPSG:4326": (110, 120)}

    def spots(crs, at):
        row, column = np.mgrid[: shapes[crs][0], : shapes[crs][1]] + 0.5
        east, north = transform(crs, "EPSG:32660", *(at @ (column.ravel(), row.ravel())))
        away = [np.hypot(np.subtract(east, x + off), np.subtract(north, y)) for off in (-300, 300)]
        return sum(np.exp(-((a / SPREAD) ** 2) / 2) for a in away).reshape(shapes[crs])

    for name, (crs, at) in zip("os", (degrees, utm) if swapped else (utm, degrees), strict=True):
        source.write(f"a_{name}.tif", (100 + 10_000 * spots(crs, at)).astype("f4"), crs, at)
    crs, at = utm if swapped else degrees
    source.write("a_l.tif", np.where(spots(crs, at) > 0.3, 1, 2).astype("u1"), crs, at)
    (record,) = source.take().records
    out = source.json.parent / "scenes" / "a"
    align_scene(source.json, "a", source.sensors, source.labels, AlignConfig(enabled=False), out)
    optical, sar, label = (read_float(out / f"{kind}.tif")[0] for kind in ("optical", "sar", "label"))
    expected = spots(*(degrees if swapped else utm))
    both = np.isfinite(sar)
    assert both[expected > 0.05].all()
    assert np.abs(sar - optical)[both].max() < 600 and sar[both].max() > 9_000
    assert ((label == 0) == (expected > 0.3))[both].mean() > 0.995
    assert record.images["sar"].overlap > 0.9
