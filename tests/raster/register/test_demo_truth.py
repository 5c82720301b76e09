"""The matcher against the true displacement of demo scenes, with and without the effects of radar geometry."""

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, reproject
from scipy import ndimage

from tmcnet.config import DemoConfig
from tmcnet.raster.io.windowed import ArrayImage, Warped
from tmcnet.raster.register.matching import Window, correlation_surfaces, find_peaks
from tmcnet.raster.register.tie_points import point_grid
from tmcnet.simulate import scene as simulated
from tmcnet.simulate.scene import simulate_scene

SIZE = 384


def match(reference, moving, side, window):
    surfaces = correlation_surfaces(reference, moving, point_grid((side, side), 32), window)
    return [find_peaks(part) for part in surfaces]


def off(folder):
    """Median displacement (x, y) in pixels of windows after the SAR image is corrected by the truth."""
    simulate_scene(DemoConfig(size=SIZE), "cedar", folder, cloud_share=0.0, looks=16.0)
    with rasterio.open(folder / "optical.tif") as one, rasterio.open(folder / "sar.tif") as two:
        reference = np.where(one.read() > 0, one.read(), np.nan).astype(np.float32)
        moving = np.full((2, SIZE, SIZE), np.nan, np.float32)
        reproject(
            two.read(), moving, src_transform=two.transform, src_crs=two.crs, dst_transform=one.transform,
            dst_crs=one.crs, resampling=Resampling.bilinear, src_nodata=np.nan, dst_nodata=np.nan,
        )  # fmt: skip
    displacement = np.load(folder / "truth.npz")["displacement"]

    def truth(points):
        at = points[:, ::-1].T
        return points + np.stack(
            [ndimage.map_coordinates(d, at, order=1, mode="nearest") for d in displacement.T.swapaxes(1, 2)], 1
        )

    straight = Warped(ArrayImage(10 * np.log10(np.maximum(moving, 1e-5))), truth)
    forward, backward = match(ArrayImage(reference), straight, SIZE, Window(64, 4))
    found = np.stack([forward.dx - backward.dx, forward.dy - backward.dy]) / 2.0
    assert np.isfinite(found).all(axis=0).sum() > 60
    return np.nanmedian(found, axis=1)


def test_without_relief_and_walls_the_matcher_finds_the_truth(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "_relief", lambda land: np.ones(land.terrain.shape, np.float32))
    monkeypatch.setattr(simulated, "_slopes", lambda land: np.zeros(land.terrain.shape, np.float32))
    monkeypatch.setattr(simulated, "_walls", lambda _, land: np.zeros((2, *land.terrain.shape)))
    assert np.abs(off(tmp_path)).max() < 0.06


def test_relief_and_walls_are_displaced_towards_the_radar(tmp_path):
    x, y = off(tmp_path)
    assert -0.4 < x < -0.12
    assert abs(y) < 0.08


@pytest.mark.parametrize("contrast", [1.0, -1.0])
@pytest.mark.parametrize("shift", [(0.25, -0.5), (-0.75, 1.4), (3.3, -2.6)])
def test_the_matcher_is_unbiased(shift, contrast):
    texture = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((256, 256)), 1.5)
    spectrum = ndimage.fourier_shift(np.fft.fft2(texture), shift[::-1])
    images = (ArrayImage(np.asarray(a, np.float32)[None]) for a in (texture, contrast * np.fft.ifft2(spectrum).real))
    for matches, sign in zip(match(*images, 256, Window(64, 6)), (1, -1), strict=True):
        assert np.nanmedian(matches.dx) == pytest.approx(sign * shift[0], abs=0.01)
        assert np.nanmedian(matches.dy) == pytest.approx(sign * shift[1], abs=0.01)
