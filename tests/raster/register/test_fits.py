import numpy as np
import pytest

from tmcnet.raster.register.alignment import AffineMap
from tmcnet.raster.register.model_selection import (
    SMOOTHING,
    leave_out_residuals,
    quadratic,
    ransac_inliers,
    robust_affine,
    smoothing_spline,
    tukey_weights,
)


def test_robust_fit_survives_half_of_the_points_being_wrong():
    rng = np.random.default_rng(2)
    source = rng.uniform(0, 500, (200, 2))
    truth = np.array([[1.004, -0.01, 5.0], [0.01, 0.997, -3.0]])
    target = AffineMap(truth)(source) + rng.normal(0, 0.2, (200, 2))
    target[::2] += rng.uniform(-15, 15, (100, 2))
    inliers = ransac_inliers(source, target, 1.5)
    fitted = robust_affine(source, target, np.ones(200), 1.5, start=inliers)
    assert np.abs(AffineMap(fitted)(source) - AffineMap(truth)(source)).max() < 0.3


def test_weights_decide_between_two_groups_of_points():
    source = np.random.default_rng(3).uniform(0, 500, (100, 2))
    target = source + np.where(np.arange(100) < 70, 0.4, 0.0)[:, None]
    shifts = [
        robust_affine(source, target, weight, 4.0, "shift")[:, 2]
        for weight in (np.ones(100), np.where(np.arange(100) < 70, 0.01, 1.0))
    ]
    assert shifts[0].min() > 0.2 and shifts[1].max() < 0.02


@pytest.fixture
def scattered():
    rng = np.random.default_rng(2)
    places = rng.uniform(-1, 1, (120, 2))
    x, y = places.T
    moves = np.stack([3 * np.sin(4 * x) * np.cos(3 * y), 2 * np.cos(5 * x)], axis=1)
    return places, moves + rng.normal(0, 0.2, moves.shape), rng.uniform(0.3, 1.0, 120)


def test_stiff_splines_reproduce_quadratic_polynomials(scattered):
    places, _, weight = scattered
    x, y = places.T
    moves = np.stack([1 + 2 * x - y + 3 * x * y, x * x - 4 * y * y], axis=1)
    for surface in (smoothing_spline(places, moves, weight, 1e4), quadratic(places, moves, weight)):
        assert np.abs(surface(places) - moves).max() < 1e-6


def test_smoothing_does_not_depend_on_the_number_of_points(scattered):
    places, moves, weight = scattered
    once = smoothing_spline(places, moves, weight, 0.01)(places)
    near = places + 1e-4
    twice = smoothing_spline(np.vstack([places, near]), np.vstack([moves, moves]), np.tile(weight, 2), 0.02)(places)
    assert np.abs(once - twice).max() > 0.01
    twice = smoothing_spline(np.vstack([places, near]), np.vstack([moves, moves]), np.tile(weight, 2), 0.01)(places)
    assert np.abs(once - twice).max() < 0.01


@pytest.mark.parametrize("smoothing", [SMOOTHING[0], SMOOTHING[-1]])
def test_leave_out_residuals_against_splines_fitted_again(scattered, smoothing):
    places, moves, weight = scattered
    squared = leave_out_residuals(places, moves, weight, smoothing, 0.25)
    for number in (0, 17, 60):
        kept = np.hypot(*(places - places[number]).T) > 0.25
        assert kept.sum() < 119
        scale = smoothing * weight.sum() / weight[kept].sum()
        guess = smoothing_spline(places[kept], moves[kept], weight[kept], scale)(places[number : number + 1])
        assert squared[number] == pytest.approx(((guess - moves[number]) ** 2).sum(), rel=1e-6)


def test_points_far_from_the_surface_lose_their_weight_and_others_keep_it(scattered):
    places, moves, weight = scattered
    moves[7] += [6.0, -5.0]
    ratio = tukey_weights(places, moves, weight, 0.001) / weight
    assert ratio[7] < 0.01
    assert np.median(ratio) > 0.7
