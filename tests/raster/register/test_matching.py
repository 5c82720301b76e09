import numpy as np
import pytest
from scipy import ndimage

from tests.raster.register.conftest import SIZE
from tmcnet.raster.io.windowed import ArrayImage
from tmcnet.raster.register import matching
from tmcnet.raster.register.matching import Window, image_scaling
from tmcnet.raster.register.tie_points import point_grid


def test_correlation_against_the_slow_formula():
    rng = np.random.default_rng(1)
    search = rng.random((1, 3, 14, 14)).astype(np.float32)
    search_valid = rng.random((1, 14, 14)) > 0.1
    template = search[:, :, 3:13, 1:11].copy()
    template_valid = rng.random((1, 10, 10)) > 0.1
    surface = matching.correlate((template, template_valid), (search, search_valid))[0]
    first = template[0] - (template[0] * template_valid).sum((1, 2), keepdims=True) / template_valid.sum()
    second = search[0] - (search[0] * search_valid).sum((1, 2), keepdims=True) / search_valid.sum()
    for row in range(5):
        for col in range(5):
            part = second[:, row : row + 10, col : col + 10]
            both = template_valid[0] & search_valid[0, row : row + 10, col : col + 10]
            top = (first * part * both).sum()
            bottom = np.sqrt((first**2 * both).sum() * (part**2 * both).sum())
            assert surface[row, col] == pytest.approx(top / bottom, abs=1e-4)
    assert np.unravel_index(surface.argmax(), surface.shape) == (3, 1)


def test_peak_is_found_between_pixels():
    y, x = np.mgrid[-6:7, -6:7]
    surface = np.exp(-((x - 1.3) ** 2 + (y + 2.4) ** 2) / 18.0)[None].astype(np.float32)
    found = matching.find_peaks(surface)
    assert found.dx[0] == pytest.approx(1.3, abs=0.05)
    assert found.dy[0] == pytest.approx(-2.4, abs=0.05)


def test_blocks_make_no_difference_and_a_known_shift_is_matched_both_ways(pair, monkeypatch):
    image, grid = pair[0][:1], point_grid((SIZE, SIZE), 32)
    images = ArrayImage(image), ArrayImage(ndimage.shift(image, (0, 2, -1), order=1, mode="nearest"))
    found = []
    for block in (1000, 90):
        monkeypatch.setattr(matching, "BLOCK_PX", block)
        surfaces = matching.correlation_surfaces(*images, grid, Window(48, 5))
        found.append([matching.find_peaks(part) for part in surfaces])
    (whole, back), (cut, _) = found
    ok = np.isfinite(whole.dx) & np.isfinite(cut.dx) & np.isfinite(back.dx)
    assert ok.sum() > 50
    assert np.abs(whole.dx[ok] - cut.dx[ok]).max() < 1e-3
    assert np.median(whole.dx[ok]) == pytest.approx(-1.0, abs=0.05)
    assert np.median(whole.dy[ok]) == pytest.approx(2.0, abs=0.05)
    assert np.median(back.dx[ok]) == pytest.approx(1.0, abs=0.05)


def test_contrasts_of_amplitudes_count_as_ratios_and_those_in_decibels_do_not():
    image = np.random.default_rng(0).gamma(4, 10, (1, 64, 64)).astype(np.float32)
    assert image_scaling(ArrayImage(image), sar=True).logarithmic
    assert not image_scaling(ArrayImage(10 * np.log10(image) - 20), sar=True).logarithmic
    assert not image_scaling(ArrayImage(image), sar=False).logarithmic
    nothing = image_scaling(ArrayImage(np.full((2, 64, 64), np.nan, np.float32)), sar=True)
    assert nothing.floor == 1.0 and (nothing.ranges == 0).all()


def test_the_number_of_threads_is_used_and_makes_no_difference(pair, monkeypatch):
    used = []

    class Counted(matching.ThreadPoolExecutor):
        def __init__(self, workers):
            used.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(matching, "ThreadPoolExecutor", Counted)
    images, grid = [ArrayImage(image) for image in pair[:2]], point_grid((SIZE, SIZE), 32)
    one, three = (matching.correlation_surfaces(*images, grid, Window(32, 5), threads) for threads in (1, 3))
    assert used == [1, 3]
    for first, second in zip(one, three, strict=True):
        assert np.isfinite(first).any() and np.array_equal(first, second, equal_nan=True)
