import itertools

import numpy as np
import pytest

from tmcnet.evaluate import maps


@pytest.mark.parametrize(
    ("length", "window", "overlap"), [(100, 32, 8), (64, 32, 16), (33, 32, 0), (20, 32, 8), (32, 32, 16), (57, 32, 8)]
)
def test_windows_cover_and_overlap_evenly(length, window, overlap):
    found = maps.spans(length, window, overlap)
    assert (found[0].start, found[-1].stop) == (0, length)
    assert [(span.first, span.last) for span in found] == [
        (number == 0, number == len(found) - 1) for number in range(len(found))
    ]
    assert all(a.stop - b.start == overlap for a, b in itertools.pairwise(found))
    assert all(span.size == window for span in found[:-1])
    assert found[-1].size <= window
    assert len(found) == 1 or found[-1].size > overlap
    assert all(span.start % (window - overlap) == 0 for span in found)


@pytest.mark.parametrize(("length", "window", "overlap"), [(100, 32, 8), (57, 32, 16), (70, 32, 0), (20, 32, 6)])
def test_weights_add_up_to_one_and_leave_the_edges_out(length, window, overlap):
    total = np.zeros(length)
    for span in maps.spans(length, window, overlap):
        weights = maps.taper(span, overlap)
        total[span.start : span.stop] += weights
        unused = int(overlap * maps.UNUSED_OVERLAP_SHARE)
        assert span.first or not weights[:unused].any()
        assert span.last or not weights[span.size - unused :].any()
    assert np.allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("overlap", [-1, 17])
def test_an_overlap_that_no_two_windows_share_is_refused(overlap):
    with pytest.raises(ValueError, match=f"overlap {overlap}"):
        maps.spans(100, 32, overlap)
