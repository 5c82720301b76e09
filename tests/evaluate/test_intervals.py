"""Simulations in which the truth is known: intervals hold it about as often as they say."""

import numpy as np
import pytest

from benchmarks.intervals import FREQUENCY, GAIN, Design, coverage, expected, simulate
from tmcnet.evaluate.intervals import Resamples, effects_of, interval
from tmcnet.evaluate.metrics import mean_iou, overall_accuracy


@pytest.mark.parametrize(
    "design",
    [
        Design(12, 3, 0.6, 0.1),
        Design(12, 5, 0.2, 0.25),
        Design(30, 3, 0.6, 0.1),
        Design(30, 3, 0.2, 0.1, draws=5, draw_spread=0.25),
    ],
    ids=str,
)
def test_intervals_and_paired_differences_hold_the_truth(design):
    found = coverage(design, repeats=200, draws=300)
    assert set(found) == {"OA", "mIoU", "difference in OA", "difference in mIoU"}
    assert all(0.88 <= share <= 0.99 for share in found.values()), found


def test_intervals_of_a_score_that_few_blocks_bias_downwards_are_not_biased_twice():
    """Rare classes are missing from many draws of six blocks; percentiles alone hold the truth in 74 of 100 cases."""
    assert coverage(Design(6, 3, 0.2, 0.25), repeats=200, draws=300)["mIoU"] >= 0.85


def test_runs_that_share_a_draw_are_not_taken_for_independent():
    """Two draws of the labels with five seeds each know as much of other draws as two runs do, not as much as ten."""
    design, random = Design(30, 5, 0.1, 0.02, draws=2, draw_spread=0.3), np.random.default_rng(1)
    truth, hits = expected(design, GAIN)["OA"], {"crossed": 0, "independent": 0}
    effects = {"crossed": effects_of(design.replicates), "independent": [np.arange(10)]}
    for _ in range(150):
        counts, _ = simulate(design, random)
        for name, levels in effects.items():
            found = interval(overall_accuracy, counts, Resamples.draw(30, levels, 300, random), 0.95)
            hits[name] += found.low <= truth <= found.high
    assert hits["crossed"] / 150 >= 0.75
    assert hits["independent"] / 150 <= 0.6


def test_the_truth_is_what_very_many_blocks_and_seeds_come_to():
    design = Design(2000, 40, 0.6, 0.1)
    found = simulate(design, np.random.default_rng(0))
    for counts, gain in zip(found, (GAIN, 0.0), strict=True):
        pooled = counts.sum(axis=1)
        assert pooled[0].sum(axis=1) / pooled[0].sum() == pytest.approx(FREQUENCY, abs=0.02)
        truth = expected(design, gain)
        assert overall_accuracy(pooled).mean() == pytest.approx(truth["OA"], abs=0.01)
        assert mean_iou(pooled).mean() == pytest.approx(truth["mIoU"], abs=0.01)
