import numpy as np
import pytest
from scipy.spatial import cKDTree

from tmcnet.raster.register import affine_fit
from tmcnet.raster.register.coregister import estimate, warp
from tmcnet.raster.register.deformation import AffineMap
from tmcnet.raster.register.overview import about_centre

SIZE, FIELDS = 288, 300


@pytest.mark.parametrize("seed", range(6))
def test_a_planted_shift_or_affine_map_is_found(seed):
    rng = np.random.default_rng(seed)
    pixels = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).reshape(-1, 2)
    field = cKDTree(rng.uniform(0, SIZE, (FIELDS, 2))).query(pixels)[1].reshape(SIZE, SIZE)
    # the two images have the edges of fields in common, and no brightness
    one, two = (rng.random(FIELDS)[field] + rng.normal(0, noise, (SIZE, SIZE)) for noise in (0.02, 0.1))
    turn, scale = (0.0, 1.0) if seed % 2 else (rng.uniform(-1.5, 1.5), rng.uniform(0.98, 1.02))
    planted = about_centre(turn, scale, SIZE, SIZE)
    planted[:, 2] += rng.uniform(-10, 10, 2)
    back = np.linalg.inv(np.vstack([planted, [0, 0, 1]]))[:2]
    result = estimate(one.astype(np.float32), warp(two[None].astype(np.float32), AffineMap(back)))
    axis = np.arange(40.0, SIZE - 40, 16)
    places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    assert result.status == "aligned", result.reason
    assert np.hypot(*(result.where(places) - affine_fit.apply(planted, places)).T).max() < 0.5
