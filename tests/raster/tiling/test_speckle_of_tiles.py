import csv

import numpy as np
import pytest

from tmcnet.config import SensorConfig, SensorsConfig, TilesConfig
from tmcnet.errors import InputError
from tmcnet.raster.io.rasters import read_float
from tmcnet.raster.tiling.speckle import Speckle
from tmcnet.raster.tiling.tiles import make_tiles

LOOKS, SIDE = 4.0, 96


@pytest.fixture
def speckled(tile_source, write_png_tile):
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
    root = source.root / "tiles"
    tiles = TilesConfig(size=SIDE, stride=SIDE, min_valid=0.5)
    make_tiles(source.json, source.root / "scenes", source.sensors, source.labels, tiles, root, 2)
    with (root / "index.csv").open() as file:
        names = [row["tile"] for row in csv.DictReader(file)]
    return {name: read_float(root / "sar" / f"{name}.tif") for name in names}


def test_ready_made_tiles_are_filtered_to_their_edges(speckled):
    plain, filtered = cut(speckled), cut(speckled, speckle="lee", looks=LOOKS)
    assert list(plain) == list(filtered) == ["train_1", "train_2", "train_3"]
    for number, power in speckled.power.items():
        name = f"train_{number}"
        np.testing.assert_allclose(plain[name], 10 * np.log10(power), atol=1e-4)
        np.testing.assert_array_equal(np.isnan(filtered[name]), np.isnan(power))
        linear = 10 ** (filtered[name] / 10)
        assert np.nanvar(linear) < np.nanvar(power) / 20
        assert np.nanmean(linear) == pytest.approx(np.nanmean(power), rel=0.01)
    corner = 10 ** (filtered["train_2"][0, 0, 0] / 10)
    near = speckled.power[2][0, :4, :4].astype(float)
    ground = max((near.var() - near.mean() ** 2 / LOOKS) / (1 + 1 / LOOKS), 0)
    assert corner == pytest.approx(near.mean() + ground / near.var() * (near[0, 0] - near.mean()), rel=1e-4)


def test_the_looks_of_all_tiles_together_are_told(speckled, monkeypatch):
    asked = []
    apply = Speckle.apply
    monkeypatch.setattr(Speckle, "apply", lambda self, *rest: asked.append(self.looks) or apply(self, *rest))
    cut(speckled, speckle="refined_lee")
    assert len(set(asked)) == 1 and asked[0] == pytest.approx(LOOKS, rel=0.15)


def test_values_on_no_scale_of_backscatter_are_refused(tile_source, write_png_tile):
    write_png_tile(tile_source, "train", "1", size=SIDE)
    with pytest.raises(InputError, match=r"sensors.sar.speckle.*is `lee`, but the values of scene train_1"):
        cut(tile_source, scale="auto", speckle="lee")
