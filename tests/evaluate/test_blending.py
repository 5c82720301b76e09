import itertools

import numpy as np
import pytest

from tmcnet.evaluate import blending


@pytest.mark.parametrize(
    ("length", "window", "overlap"), [(100, 32, 8), (64, 32, 16), (33, 32, 0), (20, 32, 8), (32, 32, 16)]
)
def test_windows_cover_and_overlap(length, window, overlap):
    first, size = blending.starts(length, window, overlap), blending.extent(length, window)
    covered = np.zeros(length)
    for start in first:
        assert 0 <= start <= length - size
        covered[start : start + size] += 1
    assert covered.min() >= 1
    assert first[-1] + size == length
    assert all(b + overlap <= a + size for a, b in itertools.pairwise(first))
    assert first == sorted(set(first))


def test_ramps_of_neighbours_add_up_to_one():
    weights = blending.taper(32, 8)
    assert np.allclose(weights[-8:] + weights[:8], 1)
    assert weights.min() > 0
    assert np.array_equal(blending.taper(5, 0), np.ones(5))


def test_blending_gives_back_what_windows_agree_on():
    image = np.random.default_rng(0).random((50, 70))
    total = np.zeros_like(image)
    for top in blending.starts(50, 20, 6):
        for left in blending.starts(70, 20, 6):
            weights = np.outer(blending.taper(20, 6), blending.taper(20, 6))
            total[top : top + 20, left : left + 20] += weights * image[top : top + 20, left : left + 20]
    both = np.outer(blending.total(50, 20, 6), blending.total(70, 20, 6))
    assert np.allclose(total / both, image, atol=1e-5)


def test_overlap_as_large_as_the_window_is_refused():
    with pytest.raises(ValueError, match="overlap 8"):
        blending.starts(100, 8, 8)
