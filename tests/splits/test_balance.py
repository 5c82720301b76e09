from itertools import product

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from tmcnet.seeding import generator
from tmcnet.splits.balance import MAX_BEST, BalanceTarget, balanced_assignments


def groups(n, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 20, n).astype(float)
    return counts, np.rint(rng.dirichlet(np.ones(classes), n) * counts[:, None] * 1000)


def totals(parts, counts, areas, n_parts=3):
    chosen = [parts == p for p in range(n_parts)]
    return np.array([[counts[c].sum() for c in chosen]]), np.array([[areas[c].sum(axis=0) for c in chosen]])


def score_of(parts, counts, areas, target):
    return target.score(*totals(np.asarray(parts), counts, areas, len(target.shares)))[0]


def test_few_groups_get_the_best_of_all_assignments():
    counts, areas = groups(6)
    target = BalanceTarget.of([0.6, 0.2, 0.2], areas)
    found = balanced_assignments(counts, areas, target, generator(1, "x"))
    best = min(score_of(parts, counts, areas, target) for parts in product(range(3), repeat=6))
    assert score_of(found[0], counts, areas, target) == best
    assert len(found) == MAX_BEST


def test_best_first_and_better_than_chance():
    counts, areas = groups(80)
    target = BalanceTarget.of([0.6, 0.2, 0.2], areas)
    scores = [
        score_of(p, counts, areas, target) for p in balanced_assignments(counts, areas, target, generator(1, "x"))
    ]
    assert scores == sorted(scores)
    rng = np.random.default_rng(0)
    assert scores[0] < min(score_of(rng.choice(3, 80, p=[0.6, 0.2, 0.2]), counts, areas, target) for _ in range(300))


@pytest.mark.parametrize("seed", range(6))
def test_every_class_in_three_groups_comes_into_every_part(seed):
    counts, areas = groups(200, seed)
    rng = np.random.default_rng(seed)
    rare = np.zeros((200, 6))
    for k in range(6):
        rare[rng.choice(200, 3, replace=False), k] = 10
    areas = np.hstack([areas, rare])
    target = BalanceTarget.of([0.8, 0.1, 0.1], areas)
    _, sums = totals(balanced_assignments(counts, areas, target, generator(seed, "x"))[0], counts, areas)
    assert (sums > 0).all()


def test_score_puts_an_empty_part_before_a_missing_class_before_deviation():
    areas = np.array([[10.0, 1], [10, 1], [10, 1]])
    target = BalanceTarget.of([0.5, 0.25, 0.25], areas)
    even = target.score(np.array([[50.0, 25, 25]]), np.array([[[20.0, 2], [10, 1], [10, 1]]]))[0]
    skewed = target.score(np.array([[98.0, 1, 1]]), np.array([[[20.0, 2], [1, 9], [10, 1]]]))[0]
    missing = target.score(np.array([[50.0, 25, 25]]), np.array([[[20.0, 2], [10, 0], [10, 1]]]))[0]
    empty = target.score(np.array([[50.0, 50, 0]]), np.array([[[20.0, 2], [10, 1], [0, 0]]]))[0]
    assert even == 0 < skewed < missing < empty


@pytest.mark.parametrize("seed", range(4))
def test_rare_classes_are_in_as_many_parts_as_integer_programming_finds(seed):
    counts, areas = groups(36, seed)
    rng = np.random.default_rng(seed)
    rare = np.zeros((36, 14))
    for k in range(14):
        rare[rng.choice(14, rng.integers(3, 5), replace=False), k] = 50
    areas = np.hstack([areas, rare])
    target = BalanceTarget.of([0.6, 0.2, 0.2], areas)
    _, sums = totals(balanced_assignments(counts, areas, target, generator(seed, "x"))[0], counts, areas)
    assert (sums == 0).sum() == fewest_missing(rare > 0, 3)


def fewest_missing(has, n_parts):
    """Fewest (part, class) pairs without the class, from G x K: variables are G x P assignments, P x K gaps."""
    n_groups, n_classes = has.shape
    assigned, gaps = n_groups * n_parts, n_parts * n_classes
    once = np.hstack([np.kron(np.eye(n_groups), np.ones(n_parts)), np.zeros((n_groups, gaps))])
    present = np.hstack([np.kron(has.T, np.eye(n_parts)), np.eye(gaps)])
    limits = LinearConstraint(np.vstack([once, present]), 1, np.r_[np.ones(n_groups), np.full(gaps, np.inf)])
    cost = np.r_[np.zeros(assigned), np.ones(gaps)]
    return round(milp(cost, constraints=limits, integrality=np.ones(len(cost)), bounds=Bounds(0, 1)).fun)


def test_search_comes_near_an_even_division():
    counts, areas = groups(100, 3, classes=6)
    target = BalanceTarget.of([0.6, 0.2, 0.2], areas)
    # the best of 2000 draws alone scores above 60,000
    assert score_of(balanced_assignments(counts, areas, target, generator(1, "x"))[0], counts, areas, target) < 20_000
