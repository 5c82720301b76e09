import csv

import numpy as np
import pytest

from tmcnet.config import SensorConfig, SensorsConfig, TilesConfig
from tmcnet.errors import InputError
from tmcnet.raster.io.reader import read_float
from tmcnet.raster.io.windowed import ArrayImage, sample_windows
from tmcnet.raster.tiling import speckle
from tmcnet.raster.tiling.speckle import SpeckleFilter, estimate_looks

LOOKS = 4.0
SIDE = 96
"""Side of the ready-made tiles."""
FILTERS = ("lee", "refined_lee")


def speckled(ground, seed=0, looks=LOOKS):
    return (ground * np.random.default_rng(seed).gamma(looks, 1 / looks, np.shape(ground))).astype("f4")


def filtered(power, which, window=7, looks=LOOKS):
    return SpeckleFilter(which, window, looks).apply_to_edges(power)


def slow_lee(power, row, column, window=7):
    half = window // 2
    near = power[0, max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
    near = near[np.isfinite(near)].astype(float)
    ground = max((near.var() - near.mean() ** 2 / LOOKS) / (1 + 1 / LOOKS), 0)
    return near.mean() + ground / near.var() * (power[0, row, column] - near.mean())


@pytest.mark.parametrize(("which", "window", "at_least"), [("lee", 5, 12), ("lee", 7, 24), ("refined_lee", 7, 11)])
def test_homogeneous_ground_gets_smooth_and_keeps_its_mean(which, window, at_least):
    power = speckled(np.full((1, 300, 300), 0.05))
    smooth = filtered(power, which, window)
    # independent pixels: at most by the pixels that a mean is over, 25 and 49, or 28 of half a window
    pixels = window**2 if which == "lee" else window * (window + 1) // 2
    assert at_least < power.var() / smooth.var() < 1.05 * pixels
    assert smooth.mean() == pytest.approx(power.mean(), rel=0.006)


def test_lee_follows_its_formula_at_edges_of_the_image_and_holes_too():
    power = speckled(np.where(np.arange(40) < 18, 0.02, 0.3)[None, None] * np.ones((1, 30, 1)))
    power[0, 9:12, 15:20] = np.nan
    found = filtered(power, "lee")
    for row, column in [(0, 0), (29, 17), (15, 18), (12, 17), (8, 20), (20, 39)]:
        assert found[0, row, column] == pytest.approx(slow_lee(power, row, column), rel=1e-5)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(power))


@pytest.mark.parametrize("turn", ["upright", "lying", "diagonal"])
def test_an_edge_stays_sharp_and_sharper_by_the_refined_filter(turn):
    y, x = np.mgrid[:200, :200]
    distance = {"upright": x - 100, "lying": y - 100, "diagonal": (x + y - 200) / np.sqrt(2)}[turn]
    # weak enough for the plain filter to smooth across
    ground = np.where(distance < 0, 0.04, 0.16)[None]
    power = speckled(ground)
    near = np.abs(distance + 0.5) < 3
    error = {f: np.sqrt(np.mean((filtered(power, f) / ground - 1)[0, near] ** 2)) for f in FILTERS}
    untouched = np.sqrt(np.mean((power / ground - 1)[0, near] ** 2))
    assert error["refined_lee"] < 0.85 * error["lee"] and error["refined_lee"] < 0.7 * untouched


@pytest.mark.parametrize("which", FILTERS)
def test_blocks_and_threads_make_no_difference(which, monkeypatch):
    power = speckled(np.random.default_rng(1).gamma(2, 0.05, (2, 90, 130)))
    power[:, 30:37, 60:75] = np.nan
    whole = filtered(power, which)
    monkeypatch.setattr(speckle, "BLOCK_SIDE_PX", 32)
    np.testing.assert_array_equal(filtered(power, which), whole)
    rim = 3
    part = SpeckleFilter(which, 7, LOOKS).apply(power[:, 20 - rim : 70 + rim, 40 - rim : 101 + rim], threads=3)
    np.testing.assert_array_equal(part, whole[:, 20:70, 40:101])


@pytest.mark.parametrize("which", FILTERS)
def test_ground_without_speckle_stays_as_it_is(which):
    flat = np.full((1, 20, 20), 0.3, "f4")
    np.testing.assert_allclose(filtered(flat, which, window=3), flat, rtol=1e-6)
    assert np.isnan(filtered(np.full_like(flat, np.nan), which)).all()


@pytest.mark.parametrize("looks", [1.0, 4.4, 15.0])
def test_looks_are_estimated_from_parcels_of_different_brightness(looks):
    parcels = np.kron(np.random.default_rng(0).gamma(2, 0.05, (14, 14)), np.ones((30, 30)))[None]
    power = speckled(parcels, looks=looks)
    power[:, :50, :50] = np.nan
    assert estimate_looks(sample_windows(ArrayImage(power), 12, 126)) == pytest.approx(looks, rel=0.1)
    assert estimate_looks(map(np.square, sample_windows(ArrayImage(np.sqrt(power)), 12, 126))) == pytest.approx(
        looks, rel=0.1
    )


def test_looks_of_nothing_are_one():
    assert estimate_looks([np.full((1, 60, 60), np.nan, "f4")]) == 1.0
    assert estimate_looks([np.ones((1, 60, 60), "f4")]) == 1.0


@pytest.fixture
def speckled_tiles(tile_source, write_png_tile):
    """Three ready-made tiles of even ground, each as bright as its number, with speckle, in linear power."""
    source = tile_source
    source.source = source.source.model_copy(update={"sar": "{part}/p_{tile:d}.tif"})
    rng = np.random.default_rng(4)
    source.power = {n: (0.1 * n * rng.gamma(LOOKS, 1 / LOOKS, (1, SIDE, SIDE))).astype("f4") for n in (1, 2, 3)}
    source.power[3][0, :20, :20] = np.nan
    for number, power in source.power.items():
        write_png_tile(source, "train", str(number), size=SIDE, seed=number)
        source.write(f"train/p_{number}.tif", power, crs=None, transform=None)
    return source


def cut(source, **sar):
    sensor = SensorConfig(bands=["vv"], kind="backscatter", **{"scale": "linear", **sar})
    source.sensors = SensorsConfig(optical=source.sensors["optical"], sar=sensor)
    source.take()
    root = source.cut(TilesConfig(size=SIDE, stride=SIDE, min_valid=0.5))
    with (root / "index.csv").open() as file:
        names = [row["tile"] for row in csv.DictReader(file)]
    return {name: read_float(root / "sar" / f"{name}.tif") for name in names}


def test_ready_made_tiles_are_filtered_to_their_edges(speckled_tiles):
    plain, filtered = cut(speckled_tiles), cut(speckled_tiles, speckle="lee", looks=LOOKS)
    assert list(plain) == list(filtered) == ["train_1", "train_2", "train_3"]
    for number, power in speckled_tiles.power.items():
        name = f"train_{number}"
        np.testing.assert_allclose(plain[name], 10 * np.log10(power), atol=1e-4)
        np.testing.assert_array_equal(np.isnan(filtered[name]), np.isnan(power))
        linear = 10 ** (filtered[name] / 10)
        assert np.nanvar(linear) < np.nanvar(power) / 20
        assert np.nanmean(linear) == pytest.approx(np.nanmean(power), rel=0.01)
    corner = 10 ** (filtered["train_2"][0, 0, 0] / 10)
    near = speckled_tiles.power[2][0, :4, :4].astype(float)
    ground = max((near.var() - near.mean() ** 2 / LOOKS) / (1 + 1 / LOOKS), 0)
    assert corner == pytest.approx(near.mean() + ground / near.var() * (near[0, 0] - near.mean()), rel=1e-4)


def test_one_number_of_looks_is_estimated_from_all_tiles(speckled_tiles, monkeypatch):
    used = []
    apply = SpeckleFilter.apply
    monkeypatch.setattr(SpeckleFilter, "apply", lambda self, *rest: used.append(self.looks) or apply(self, *rest))
    cut(speckled_tiles, speckle="refined_lee")
    assert len(set(used)) == 1 and used[0] == pytest.approx(LOOKS, rel=0.15)


def test_values_on_no_scale_of_backscatter_are_refused(tile_source, write_png_tile):
    write_png_tile(tile_source, "train", "1", size=SIDE)
    with pytest.raises(InputError, match=r"sensors.sar.speckle.*is `lee`, but the values of scene train_1"):
        cut(tile_source, scale="auto", speckle="lee")
