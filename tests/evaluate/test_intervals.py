"""Simulations in which the truth is known: intervals hold it about as often as they say."""

import numpy as np
import pytest

from benchmarks.intervals import FREQUENCY, GAIN, Design, coverage, expected, simulate
from tmcnet.evaluate.metrics import mean_iou, overall_accuracy


@pytest.mark.parametrize(
    "design", [Design(12, 3, 0.6, 0.1), Design(12, 5, 0.2, 0.25), Design(30, 3, 0.6, 0.1)], ids=str
)
def test_intervals_and_paired_differences_hold_the_truth(design):
    found = coverage(design, repeats=200, draws=300)
    assert set(found) == {"OA", "mIoU", "difference in OA", "difference in mIoU"}
    assert all(0.88 <= share <= 0.99 for share in found.values()), found


def test_intervals_of_a_score_that_few_blocks_bias_downwards_are_not_biased_twice():
    """Rare classes are missing from many draws of six blocks; percentiles alone hold the truth in 74 of 100 cases."""
    assert coverage(Design(6, 3, 0.2, 0.25), repeats=200, draws=300)["mIoU"] >= 0.85


def test_the_truth_is_what_very_many_blocks_and_seeds_come_to():
    design = Design(2000, 40, 0.6, 0.1)
    found = simulate(design, np.random.default_rng(0))
    for counts, gain in zip(found, (GAIN, 0.0), strict=True):
        pooled = counts.sum(axis=1)
        assert pooled[0].sum(axis=1) / pooled[0].sum() == pytest.approx(FREQUENCY, abs=0.02)
        truth = expected(design, gain)
        assert overall_accuracy(pooled).mean() == pytest.approx(truth["OA"], abs=0.01)
        assert mean_iou(pooled).mean() == pytest.approx(truth["mIoU"], abs=0.01)
