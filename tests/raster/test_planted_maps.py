import numpy as np
import pytest
from scipy import ndimage

from tmcnet.raster import affine_fit
from tmcnet.raster.coregister import estimate, warp
from tmcnet.raster.deformation import AffineMap
from tmcnet.raster.overview import about_centre

SIZE = 256


@pytest.mark.parametrize("seed", range(6))
def test_a_planted_shift_or_affine_map_is_found(seed):
    rng = np.random.default_rng(seed)
    image = sum(ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), s) * s for s in (1.5, 4.0, 10.0))
    turn, scale = (0.0, 1.0) if seed % 2 else (rng.uniform(-1.5, 1.5), rng.uniform(0.98, 1.02))
    planted = about_centre(turn, scale, SIZE, SIZE)
    planted[:, 2] += rng.uniform(-12, 12, 2)
    back = np.linalg.inv(np.vstack([planted, [0, 0, 1]]))[:2]
    other = np.exp(-2 * image) + rng.normal(0, 0.1, image.shape)
    result = estimate(image.astype(np.float32), warp(other[None].astype(np.float32), AffineMap(back)))
    axis = np.arange(40.0, SIZE - 40, 16)
    places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    assert result.status == "aligned"
    assert np.hypot(*(result.where(places) - affine_fit.apply(planted, places)).T).max() < 0.5
