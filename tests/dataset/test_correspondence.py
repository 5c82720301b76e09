"""The distance that patches of a tile keep from each other."""

import numpy as np
import pytest

from tmcnet.dataset.correspondence import View, draw_patches

VIEW = View(0, 0, 96, 96, 96)


def gaps(corners):
    apart = np.abs(corners[:, None] - corners[None]).max(axis=2)
    return apart[~np.eye(len(corners), dtype=bool)]


@pytest.mark.parametrize("distance", [12, 20, 30])
def test_patches_keep_their_distance(distance):
    for seed in range(40):
        corners, partners = draw_patches(np.random.default_rng(seed), VIEW, VIEW, 12, 4, distance)
        assert gaps(corners).min() >= distance
        np.testing.assert_array_equal(corners, partners)


def test_without_room_the_farthest_place_is_taken():
    near, far = [], []
    for seed in range(40):
        far.append(gaps(draw_patches(np.random.default_rng(seed), VIEW, VIEW, 12, 6, 500)[0]).min())
        near.append(gaps(draw_patches(np.random.default_rng(seed), VIEW, VIEW, 12, 6)[0]).min())
    assert np.mean(far) > 2 * np.mean(near)


def test_a_single_patch_has_no_neighbour():
    corners, _ = draw_patches(np.random.default_rng(0), VIEW, VIEW, 12, 1, 30)
    free, _ = draw_patches(np.random.default_rng(0), VIEW, VIEW, 12, 1)
    np.testing.assert_array_equal(corners, free)
