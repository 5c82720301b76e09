import numpy as np
import pytest

from tmcnet.config import AlignConfig
from tmcnet.raster.register.affine_fit import IDENTITY
from tmcnet.raster.register.agreement import Found, by_neighbours, doubts

SHAPE = (800, 800)


def points(number=400):
    side = int(np.sqrt(number))
    axis = np.linspace(20, 780, side)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def bend(source):
    x, y = 2 * np.pi * source.T / 600
    return source + 5.5 * np.stack([np.sin(x) * np.cos(y), np.cos(x) * np.sin(y)], axis=1) + [12.0, -7.0]


def test_smoothly_bent_points_agree_and_wrong_ones_do_not():
    rng = np.random.default_rng(0)
    source = points()
    target = bend(source) + rng.normal(0, 0.3, source.shape)
    wrong = rng.random(len(source)) < 0.3
    target[wrong] = source[wrong] + rng.uniform(-30, 30, (wrong.sum(), 2))
    found = by_neighbours(source, target, np.ones(len(source)), SHAPE, 2.0)
    assert found.agree[~wrong].mean() > 0.95
    assert found.agree[wrong].mean() < 0.1
    assert np.abs(found.matrix[:, 2] - [12.0, -7.0]).max() < 4.0
    assert sum(row[4] for row in found.rows()) == found.agree.sum()


@pytest.mark.parametrize("number", [4, 100, 400])
def test_points_without_order_do_not_agree(number):
    rng = np.random.default_rng(1)
    source = points(number)
    found = by_neighbours(source, source + rng.uniform(-25, 25, source.shape), np.ones(len(source)), SHAPE, 2.0)
    assert found.agree.mean() < 0.15


def found_with(agreeing, matrix=IDENTITY, number=100):
    source = points(number)
    return Found(source, source, np.ones(len(source)), np.arange(len(source)) < agreeing, np.array(matrix))


@pytest.mark.parametrize(
    ("found", "by_chance", "reason"),
    [
        (found_with(50), 0, ""),
        (found_with(9, number=9), 0, "only 9 control points could be matched reliably, 12 are needed"),
        (found_with(20), 0, "only 20 of 100 control points agree with their neighbours"),
        (found_with(50), 30, "50 control points agree, but 30 do with an image that has nothing to do with it"),
        (found_with(50, [[1.2, 0, 0], [0, 1, 0]]), 0, "distortion"),
        (found_with(50, [[1, -0.09, 20], [0, 1, 0]]), 0, "distortion"),
        (found_with(150, [[1, -0.09, 20], [0, 1, 0]], number=200), 20, "distortion"),
        (found_with(150, [[1, -0.09, 20], [0, 1, 0]], number=200), 5, ""),
        (found_with(50, [[1, 0, 120.0], [0, 1, 0]]), 0, "a shift of 120.0 pixels, more than was looked for"),
        (found_with(50, [[0.97, -0.035, 40.0], [0.035, 0.97, 0]]), 0, ""),
    ],
)
def test_doubts_say_what_is_wrong(found, by_chance, reason):
    told = doubts(found, AlignConfig(), SHAPE, by_chance)
    assert reason in told and bool(told) == bool(reason)
