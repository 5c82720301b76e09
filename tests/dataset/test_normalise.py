import json

import numpy as np
import pytest

from tests.splits.tile_indexes import write_hashes
from tmcnet.config import NormaliseConfig, SensorConfig, SensorsConfig
from tmcnet.dataset import normalise
from tmcnet.dataset.normalise import Band, Normalisation, compute_normalisation
from tmcnet.errors import InputError
from tmcnet.raster.io.writer import write_raster

SENSORS = SensorsConfig(
    optical=SensorConfig(bands=["blue", "green"], kind="reflectance"),
    sar=SensorConfig(bands=["vv"], kind="backscatter"),
)


def make_tiles(root, rng, optical=None, sar=None, n=6, size=16):
    arrays = []
    for i in range(n):
        opt = optical(i) if optical else rng.normal([[[100]], [[2000]]], 30, (2, size, size))
        second = sar(i) if sar else rng.normal(-12, 3, (1, size, size))
        second[0, :2] = np.nan
        write_raster(root / "optical" / f"t{i}.tif", opt.astype(np.float32), None, np.nan)
        write_raster(root / "sar" / f"t{i}.tif", second.astype(np.float32), None, np.nan)
        arrays.append((opt.astype(np.float32), second.astype(np.float32)))
    (root / "train_RGB.txt").write_text("".join(f"t{i}\n" for i in range(n - 1)))
    write_hashes(root)
    return arrays


def compute(root, **config):
    compute_normalisation(root, root, SENSORS, NormaliseConfig(**config), root / "n.json")
    return Normalisation.read(root / "n.json")


def test_agrees_with_the_obvious_formula_on_training_tiles_only(tmp_path):
    arrays = make_tiles(tmp_path, np.random.default_rng(0))
    result = compute(tmp_path, low=5, high=90)
    assert result.n_tiles == 5
    for band, values in (
        (result["optical"][1], np.concatenate([a[0][1].ravel() for a in arrays[:5]])),
        (result["sar"][0], np.concatenate([a[1][0].ravel() for a in arrays[:5]])),
    ):
        low, high = np.nanpercentile(values.astype(np.float64), [5, 90])
        clipped = np.clip(values[np.isfinite(values)], low, high)
        expected = [low, high, clipped.mean(), clipped.std()]
        assert [band.low, band.high, band.mean, band.std] == pytest.approx(expected, rel=1e-5)
    assert result["optical"][0].band == "blue"


def test_file_is_fixed_and_reads_back(tmp_path):
    make_tiles(tmp_path, np.random.default_rng(0))
    result = compute(tmp_path)
    before = (tmp_path / "n.json").read_bytes()
    assert compute(tmp_path) == result
    assert (tmp_path / "n.json").read_bytes() == before
    values = json.loads(before)
    assert list(values) == ["optical", "sar", "clip", "n_tiles"]
    assert list(values["sar"][0]) == ["band", "low", "high", "mean", "std"]
    assert Normalisation.from_dict(result.to_dict()) == result


def test_thinning_hardly_moves_the_statistics_and_sees_all_columns(tmp_path, monkeypatch):
    ramp = np.broadcast_to(np.arange(16.0), (2, 16, 16))
    make_tiles(tmp_path, np.random.default_rng(0), optical=lambda i: ramp * 10, n=31)
    full = compute(tmp_path)
    monkeypatch.setattr(normalise, "MAX_BYTES", 4000)
    monkeypatch.setattr(normalise, "MAX_TILES", 20)
    thin = compute(tmp_path)
    assert thin.n_tiles == 15
    assert normalise._step(15 * 2048, 16) == 9  # the next number after 8 that shares no factor with 16
    assert (
        (thin["optical"][0].low, thin["optical"][0].high)
        == (full["optical"][0].low, full["optical"][0].high)
        == (0, 150)
    )
    assert thin["optical"][0].mean == pytest.approx(75, abs=5)


def test_scaling():
    bands = (Band("a", 0, 10, 5, 1), Band("b", -20, -10, -15, 1))
    statistics = Normalisation({"optical": bands, "sar": bands[:1]}, 1.5, 3)
    image = np.array([[[0, 10, 5, 12.5, 99, np.nan]], [[-20, -10, -15, -30, -99, np.nan]]], np.float32)
    scaled = statistics.apply(image, "optical")
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [[[-1, 1, 0, 1.5, 1.5, 0]], [[-1, 1, 0, -1.5, -1.5, 0]]], atol=1e-6)
    with pytest.raises(InputError, match="2 bands"):
        statistics.apply(image, "sar")


def test_constant_and_nearly_constant_bands(tmp_path):
    rng = np.random.default_rng(0)
    rare = np.zeros((16, 16))
    rare[0, 0] = 40
    make_tiles(tmp_path, rng, optical=lambda i: np.stack([np.full((16, 16), 7.0), rare]))
    result = compute(tmp_path)
    scaled = result.apply(np.stack([np.full((2, 2), 7.0), [[0, 40], [20, np.nan]]]).astype(np.float32), "optical")
    np.testing.assert_allclose(scaled[0], 0)
    np.testing.assert_allclose(scaled[1], [[-1, 1], [0, 0]])


def test_errors(tmp_path):
    rng = np.random.default_rng(0)
    make_tiles(tmp_path, rng, optical=lambda i: rng.random((3, 16, 16)))
    with pytest.raises(InputError, match=r"has 3 bands; `sensors.optical.bands` names 2"):
        compute(tmp_path)
    make_tiles(tmp_path, rng, sar=lambda i: np.full((1, 16, 16), np.nan))
    with pytest.raises(InputError, match=r"\['vv'\] have no valid pixel"):
        compute(tmp_path)
    (tmp_path / "train_RGB.txt").write_text("t0\nghost\n")
    write_hashes(tmp_path)
    with pytest.raises(InputError, match="ghost"):
        compute(tmp_path)
    (tmp_path / "train_RGB.txt").write_text("\n")
    write_hashes(tmp_path)
    with pytest.raises(InputError, match="names no tile"):
        compute(tmp_path)
