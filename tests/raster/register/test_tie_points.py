import numpy as np
import pytest
from scipy import ndimage

from tmcnet.raster.io.windowed import ArrayImage
from tmcnet.raster.register import matching
from tmcnet.raster.register.alignment import IDENTITY
from tmcnet.raster.register.matching import Window
from tmcnet.raster.register.tie_points import TiePoints, find_inliers, point_grid, pool_surfaces, rejection_reason

SHAPE, SIDE = (800, 800), 320


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 1.2)
    noise = (ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 1.2) for _ in range(2))
    one, two = (texture + 1.1 * part for part in noise)
    return ArrayImage(one[None].astype(np.float32)), ArrayImage(
        np.roll(two, (-1, 2), (0, 1))[None].astype(np.float32)
    )


def wrong(matches):
    return ~(np.hypot(matches.dx - 2, matches.dy + 1) < 1).astype(bool)


def test_pooled_surfaces_have_fewer_wrong_peaks(images):
    grid = point_grid((SIDE, SIDE), 32)
    forward, _ = matching.correlation_surfaces(*images, grid, Window(32, 5))
    alone, together = (wrong(matching.find_peaks(part)) for part in (forward, pool_surfaces(forward, grid)))
    assert alone.mean() > 0.1
    assert together.mean() < alone.mean() / 3


def test_pooled_surfaces_against_the_weights_written_out():
    grid = point_grid((96, 96), 32)
    surfaces = np.random.default_rng(1).random((9, 3, 3)).astype(np.float32)
    weight = np.array([1, 2, 1, 2, 4, 2, 1, 2, 1]) / 16
    assert np.abs(pool_surfaces(surfaces, grid)[4] - np.tensordot(weight, surfaces, 1)).max() < 1e-6
    surfaces[[0, 1, 3, 4]] = np.nan
    mean = pool_surfaces(surfaces, grid)
    assert (
        np.abs(
            mean[4]
            - np.tensordot(weight[[2, 5, 6, 7, 8]], surfaces[[2, 5, 6, 7, 8]], 1) / weight[[2, 5, 6, 7, 8]].sum()
        ).max()
        < 1e-6
    )
    assert np.isnan(mean[0]).all() and np.isnan(pool_surfaces(np.full_like(surfaces, np.nan), grid)).all()


def points(number=400):
    side = int(np.sqrt(number))
    axis = np.linspace(20, 780, side)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def bend(source):
    x, y = 2 * np.pi * source.T / 600
    return source + 5.5 * np.stack([np.sin(x) * np.cos(y), np.cos(x) * np.sin(y)], axis=1) + [12.0, -7.0]


def test_smoothly_bent_points_are_inliers_and_wrong_ones_are_not():
    rng = np.random.default_rng(0)
    source = points()
    target = bend(source) + rng.normal(0, 0.3, source.shape)
    wrong = rng.random(len(source)) < 0.3
    target[wrong] = source[wrong] + rng.uniform(-30, 30, (wrong.sum(), 2))
    found = find_inliers(source, target, np.ones(len(source)), SHAPE, 2.0)
    assert found.inlier[~wrong].mean() > 0.95
    assert found.inlier[wrong].mean() < 0.1
    assert np.abs(found.affine[:, 2] - [12.0, -7.0]).max() < 4.0
    assert sum(row[4] for row in found.rows()) == found.inlier.sum()


@pytest.mark.parametrize("number", [4, 100, 400])
def test_random_displacements_are_no_inliers(number):
    rng = np.random.default_rng(1)
    source = points(number)
    found = find_inliers(source, source + rng.uniform(-25, 25, source.shape), np.ones(len(source)), SHAPE, 2.0)
    assert found.inlier.mean() < 0.15


def found_with(inliers, matrix=IDENTITY, number=100):
    source = points(number)
    return TiePoints(source, source, np.ones(len(source)), np.arange(len(source)) < inliers, np.array(matrix))


@pytest.mark.parametrize(
    ("found", "chance_inliers", "reason"),
    [
        (found_with(50), 0, ""),
        (found_with(9, number=9), 0, "only 9 reliable tie points, 12 are needed"),
        (found_with(20), 0, "only 20 of 100 tie points are inliers"),
        (found_with(50), 30, "50 inliers, but 30 with the SAR image rotated by 180 degrees"),
        (found_with(50, [[1.2, 0, 0], [0, 1, 0]]), 0, "distortion"),
        (found_with(50, [[1, -0.09, 20], [0, 1, 0]]), 0, "distortion"),
        (found_with(150, [[1, -0.09, 20], [0, 1, 0]], number=200), 20, "distortion"),
        (found_with(150, [[1, -0.09, 20], [0, 1, 0]], number=200), 5, ""),
        (found_with(50, [[1, 0, 120.0], [0, 1, 0]]), 0, "a shift of 120.0 px, beyond the search radius of 60 px"),
        (found_with(50, [[0.97, -0.035, 40.0], [0.035, 0.97, 0]]), 0, ""),
    ],
)
def test_the_rejection_reason_says_what_is_wrong(found, chance_inliers, reason):
    given = rejection_reason(found, SHAPE, 60, chance_inliers)
    assert reason in given and bool(given) == bool(reason)
