import numpy as np
import pytest
from scipy import ndimage

from tmcnet.raster.io.windowed import ArrayImage
from tmcnet.raster.register import control_points, matching
from tmcnet.raster.register.control_points import Window, control_grid, correlations, match, pooled

SIDE, WINDOW = 320, Window(32, 5)


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


def test_surfaces_of_neighbours_tell_what_one_window_does_not(images):
    grid = control_grid((SIDE, SIDE), 32)
    there, _ = correlations(*images, grid, WINDOW)
    alone, together = (wrong(matching.locate(part)) for part in (there, pooled(there, grid)))
    assert alone.mean() > 0.1
    assert together.mean() < alone.mean() / 3


def test_pooled_surfaces_against_the_weights_written_out():
    grid = control_grid((96, 96), 32)
    surfaces = np.random.default_rng(1).random((9, 3, 3)).astype(np.float32)
    weight = np.array([1, 2, 1, 2, 4, 2, 1, 2, 1]) / 16
    assert np.abs(pooled(surfaces, grid)[4] - np.tensordot(weight, surfaces, 1)).max() < 1e-6
    surfaces[[0, 1, 3, 4]] = np.nan
    mean = pooled(surfaces, grid)
    assert (
        np.abs(
            mean[4]
            - np.tensordot(weight[[2, 5, 6, 7, 8]], surfaces[[2, 5, 6, 7, 8]], 1) / weight[[2, 5, 6, 7, 8]].sum()
        ).max()
        < 1e-6
    )
    assert np.isnan(mean[0]).all() and np.isnan(pooled(np.full_like(surfaces, np.nan), grid)).all()


def test_the_number_of_threads_asked_for_is_used_and_makes_no_difference(images, monkeypatch):
    asked = []

    class Counted(control_points.ThreadPoolExecutor):
        def __init__(self, workers):
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(control_points, "ThreadPoolExecutor", Counted)
    grid = control_grid((SIDE, SIDE), 32)
    one, three = (match(*images, grid, WINDOW, threads) for threads in (1, 3))
    assert asked == [1, 3]
    for name in ("dx", "dy", "peak", "ratio", "still"):
        assert np.array_equal(getattr(one[0], name), getattr(three[0], name), equal_nan=True)
