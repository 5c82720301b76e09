"""Tiles of three modalities as tensors, and views of them."""

import numpy as np
import pytest
import torch

from tests.splits.tile_indexes import write_hashes
from tmcnet.config import NormaliseConfig, PretrainConfig, SensorConfig, SensorsConfig
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.dataset.normalise import Normalisation, compute_normalisation
from tmcnet.dataset.views import ViewMaker
from tmcnet.errors import InputError
from tmcnet.raster.io.writer import write_raster
from tmcnet.store import TileStore

OPTICAL = SensorConfig(bands=["r", "g"], kind="reflectance")
SAR = SensorConfig(bands=["vv"], kind="backscatter", scale="db")
DEM = SensorConfig(bands=["elevation"], kind="elevation")
THREE = SensorsConfig(optical=OPTICAL, sar=SAR, dem=DEM)
CONFIG = PretrainConfig(crop_size=32, patch_size=8, patches=2)


@pytest.fixture
def store(tmp_path):
    """Two tiles whose DEM rises from 400 to 500 m, with no data in a corner."""
    heights = np.linspace(400, 500, 48 * 48, dtype=np.float32).reshape(1, 48, 48)
    heights[:, :5, :5] = np.nan
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for kind, values in (
            ("optical", rng.random((2, 48, 48))),
            ("sar", rng.random((1, 48, 48))),
            ("dem", heights),
        ):
            write_raster(tmp_path / kind / f"{name}.tif", values.astype(np.float32), None, nodata=np.nan)
    (tmp_path / "train_RGB.txt").write_text("a\nb\n")
    write_hashes(tmp_path)
    return TileStore(tmp_path)


def statistics(store, sensors):
    out = store.root / "normalisation.json"
    compute_normalisation(store.root, store.root, sensors, NormaliseConfig(low=0, high=100), out)
    return Normalisation.read(out)


def test_statistics_and_tiles_hold_all_modalities(store):
    scaling = statistics(store, THREE)
    assert list(scaling) == ["optical", "sar", "dem"]
    (band,) = scaling["dem"]
    assert (band.band, band.high) == ("elevation", 500)
    tile = TileDataset(store, ["a"], scaling, with_labels=False, cache_gib=0)[0]
    assert {name: len(image) for name, image in tile.images.items()} == {"optical": 2, "sar": 1, "dem": 1}
    heights = tile.images["dem"]
    assert (heights[:, :5, :5] == 0).all() and float(heights.max()) == pytest.approx(1)
    assert tile.nbytes == 4 * 4 * 48 * 48
    (store.root / "dem" / "b.tif").unlink()
    with pytest.raises(InputError, match=r"dem/b\.tif: the file does not exist"):
        TileDataset(store, ["a", "b"], scaling, with_labels=False, cache_gib=0)


def test_statistics_of_two_modalities_have_their_keys_only(store):
    two = statistics(store, SensorsConfig(optical=OPTICAL, sar=SAR))
    assert list(two.to_dict()) == ["optical", "sar", "clip", "n_tiles"]


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_views_of_all_modalities_show_the_same_places(variant):
    """Equal images stay equal up to the offset that their kind allows, for any crop, flip and turn."""
    flat = SensorConfig(bands=["b"], kind="elevation")
    sensors = SensorsConfig(optical=flat, sar=flat, dem=flat, dsm=flat)
    image = torch.rand(1, 64, 64)
    batch = ViewMaker(CONFIG, sensors, variant, 1.5)([Tile("t", dict.fromkeys(sensors, image), None)], 0)
    assert list(batch.views) == ["optical", "sar", "dem", "dsm"]
    for pair in batch.views.values():
        for view, optical in zip(pair, batch.views["optical"], strict=True):
            apart = view - optical
            torch.testing.assert_close(apart, apart.mean().expand(apart.shape), atol=1e-5, rtol=0)


def test_another_modality_leaves_the_views_of_the_others_as_they_are():
    """Geometry and published changes are drawn before; by sensor, optical and SAR draw first."""
    optical, sar, dem = torch.rand(2, 64, 64), torch.rand(1, 64, 64), torch.rand(1, 64, 64)
    two = SensorsConfig(optical=OPTICAL, sar=SAR)
    images = {"optical": optical, "sar": sar}
    with_dem = ViewMaker(CONFIG, THREE, "corrected", 1.5)([Tile("t", {**images, "dem": dem}, None)], 3)
    without = ViewMaker(CONFIG, two, "corrected", 1.5)([Tile("t", images, None)], 3)
    for name, pair in without.views.items():
        assert all(torch.equal(x, y) for x, y in zip(pair, with_dem.views[name], strict=True))
