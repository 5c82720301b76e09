import numpy as np
import pytest
from scipy import stats

from tmcnet.evaluate.intervals import Resamples, difference, effects_of, holm, interval
from tmcnet.evaluate.metrics import mean_iou, overall_accuracy

PIXELS = 20000


def simulate(random, blocks=12, seeds=3, block_spread=0.08, seed_spread=0.01, mean=0.8, shared=None):
    """S x B x 2 x 2 counts with accuracies that vary by block and by seed around `mean`."""
    by_block = random.normal(0, block_spread, (1, blocks)) if shared is None else shared
    accuracy = np.clip(mean + by_block + random.normal(0, seed_spread, (seeds, 1)), 0, 1)
    right = random.binomial(PIXELS, accuracy)
    counts = np.zeros((seeds, blocks, 2, 2), np.int64)
    counts[..., 0, 0], counts[..., 0, 1] = right // 2, (PIXELS - right) // 2
    counts[..., 1, 1], counts[..., 1, 0] = right - right // 2, PIXELS - right - (PIXELS - right) // 2
    return counts


def test_interval_covers_the_truth_in_about_95_percent():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        counts = simulate(random)
        found = interval(overall_accuracy, counts, Resamples.draw(12, [np.arange(3)], 300, random), 0.95)
        hits += found.low <= 0.8 <= found.high
    assert 0.92 <= hits / 300 <= 0.98


def test_pixels_as_units_would_be_far_too_sure():
    random = np.random.default_rng(1)
    counts = simulate(random, seeds=1)
    found = interval(overall_accuracy, counts, Resamples.draw(12, [np.arange(1)], 1000, random), 0.95)
    pixels = counts.sum()
    naive = 2 * 1.96 * np.sqrt(found.estimate * (1 - found.estimate) / pixels)
    assert found.high - found.low > 4 * naive


def test_pairing_finds_a_small_difference_that_blocks_would_hide():
    random = np.random.default_rng(2)
    shared = random.normal(0, 0.1, (1, 12))
    better = simulate(random, mean=0.83, seed_spread=0.002, shared=shared)
    worse = simulate(random, mean=0.80, seed_spread=0.002, shared=shared)
    resamples = Resamples.draw(12, [np.arange(3)], 2000, random)
    found = difference(overall_accuracy, better, worse, resamples, 0.95)
    assert 0 < found.low < found.estimate < found.high < 0.06
    assert found.p < 0.01
    alone = interval(overall_accuracy, better, resamples, 0.95)
    assert alone.low < overall_accuracy(worse.sum((0, 1))) < alone.high
    reverse = difference(overall_accuracy, worse, better, resamples, 0.95)
    assert (reverse.low, reverse.high) == pytest.approx((-found.high, -found.low))


def test_no_difference_is_called_significant_in_about_five_percent():
    random = np.random.default_rng(3)
    called = 0
    for _ in range(300):
        shared = random.normal(0, 0.05, (1, 12))
        a, b = (simulate(random, shared=shared + random.normal(0, 0.03, (1, 12))) for _ in range(2))
        called += difference(overall_accuracy, a, b, Resamples.draw(12, [np.arange(3)], 300, random), 0.95).p < 0.05
    assert called / 300 < 0.09


def test_the_far_tail_is_that_of_students_t_where_seeds_vary_most():
    """Resamples of few seeds do not reach it: too many p-values would be the smallest possible."""
    random = np.random.default_rng(5)
    small = 0
    for _ in range(300):
        a, b = (simulate(random, seeds=5, block_spread=0.02, seed_spread=0.05) for _ in range(2))
        resamples = Resamples.draw(12, [np.arange(5)], 300, random)
        small += difference(overall_accuracy, a, b, resamples, 0.95).p < 0.007
    assert small / 300 < 0.01


def test_scores_without_any_spread_differ_or_not():
    counts = np.zeros((3, 6, 2, 2), int)
    counts[..., 0, 0], counts[..., 0, 1] = 90, 10
    resamples = Resamples.draw(6, [np.arange(3)], 200, np.random.default_rng(0))
    assert difference(overall_accuracy, counts, counts, resamples, 0.95).p == 1
    assert difference(overall_accuracy, counts[..., ::-1], counts, resamples, 0.95).p == 0


def test_estimate_is_the_mean_over_seeds_of_pooled_scores():
    counts = np.random.default_rng(4).integers(0, 100, (3, 7, 4, 4))
    found = interval(mean_iou, counts, Resamples.draw(7, [np.arange(3)], 200, np.random.default_rng(0)), 0.95)
    assert found.estimate == pytest.approx(np.mean([mean_iou(c.sum(0)) for c in counts]))
    assert found.low < found.estimate < found.high


def test_one_block_has_no_interval():
    found = interval(
        overall_accuracy,
        np.ones((2, 1, 2, 2), np.int64),
        Resamples.draw(1, [np.arange(2)], 100, np.random.default_rng(0)),
        0.95,
    )
    assert found.estimate == 0.5
    assert np.isnan([found.low, found.high, found.p]).all()


def test_same_seed_same_draws():
    a, b = (Resamples.draw(5, [np.arange(2)], 10, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(a.blocks, b.blocks)
    assert (a.blocks.sum(1) == 5).all()
    ((levels, drawn),) = a.effects
    assert levels == 2
    assert (drawn.sum(1) == 2).all()


def test_what_runs_have_in_common():
    own = effects_of([(1, 1), (2, 2), (3, 3)])
    assert [levels.tolist() for levels in own] == [[0, 1, 2]]
    crossed = effects_of([(1, 1), (1, 2), (2, 1), (2, 2)])
    assert [levels.tolist() for levels in crossed] == [[0, 0, 1, 1], [0, 1, 0, 1]]
    assert [levels.tolist() for levels in effects_of([(1, 4), (1, 5)])] == [[0, 1]]
    assert [levels.tolist() for levels in effects_of([(2, 7), (5, 7)])] == [[0, 1]]
    assert effects_of([(1, 1)])[0].tolist() == [0]
    nested = effects_of([(1, 1), (1, 2), (2, 3), (2, 4)])
    assert [levels.tolist() for levels in nested] == [[0, 0, 1, 1], [0, 1, 2, 3]]


def test_holm():
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([float("nan")])[0])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    # uniform p-values of eight true null hypotheses: at least one rejection in about 5 % of cases
    p = stats.uniform.rvs(size=(4000, 8), random_state=0)
    assert np.mean([min(holm(row)) < 0.05 for row in p]) == pytest.approx(0.05, abs=0.01)
