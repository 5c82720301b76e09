import numpy as np
import pytest

from tmcnet.raster.register.bending import SMOOTHING, apart, quadratic, spline, wary


@pytest.fixture
def scattered():
    rng = np.random.default_rng(2)
    places = rng.uniform(-1, 1, (120, 2))
    x, y = places.T
    moves = np.stack([3 * np.sin(4 * x) * np.cos(3 * y), 2 * np.cos(5 * x)], axis=1)
    return places, moves + rng.normal(0, 0.2, moves.shape), rng.uniform(0.3, 1.0, 120)


def test_however_stiff_it_leaves_polynomials_of_second_order_alone(scattered):
    places, _, weight = scattered
    x, y = places.T
    moves = np.stack([1 + 2 * x - y + 3 * x * y, x * x - 4 * y * y], axis=1)
    for surface in (spline(places, moves, weight, 1e4), quadratic(places, moves, weight)):
        assert np.abs(surface(places) - moves).max() < 1e-6


def test_smoothing_means_the_same_however_many_points_there_are(scattered):
    places, moves, weight = scattered
    once = spline(places, moves, weight, 0.01)(places)
    near = places + 1e-4
    twice = spline(np.vstack([places, near]), np.vstack([moves, moves]), np.tile(weight, 2), 0.02)(places)
    assert np.abs(once - twice).max() > 0.01
    twice = spline(np.vstack([places, near]), np.vstack([moves, moves]), np.tile(weight, 2), 0.01)(places)
    assert np.abs(once - twice).max() < 0.01


@pytest.mark.parametrize("smoothing", [SMOOTHING[0], SMOOTHING[-1]])
def test_points_left_out_together_against_splines_fitted_anew(scattered, smoothing):
    places, moves, weight = scattered
    squares = apart(places, moves, weight, smoothing, 0.25)
    for number in (0, 17, 60):
        kept = np.hypot(*(places - places[number]).T) > 0.25
        assert kept.sum() < 119
        scale = smoothing * weight.sum() / weight[kept].sum()
        guess = spline(places[kept], moves[kept], weight[kept], scale)(places[number : number + 1])
        assert squares[number] == pytest.approx(((guess - moves[number]) ** 2).sum(), rel=1e-6)


def test_points_far_from_the_surface_lose_their_say_and_others_keep_it(scattered):
    places, moves, weight = scattered
    moves[7] += [6.0, -5.0]
    left = wary(places, moves, weight, 0.001) / weight
    assert left[7] < 0.01
    assert np.median(left) > 0.7
