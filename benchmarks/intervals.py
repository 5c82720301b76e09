"""Coverage of the 95 % intervals of scores and of paired differences, in simulations with known truth.

Each of K classes has a probability of being recognised. It varies around the mean of the class by block, by draw of
the labels and by seed (normal on the logit scale). Pixels that are not recognised go to the other classes in
proportion to their frequency. The class shares vary by block (Dirichlet), so that the rarest classes are missing from
many blocks. The truth is the mean over all draws and seeds of the score of all blocks, computed by quadrature. Two
methods that are compared share a part of all their effects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tmcnet.evaluate.intervals import Resamples, difference, effects_of, interval
from tmcnet.evaluate.metrics import Counts, Floats, mean_iou, overall_accuracy
from tmcnet.seeding import generator

CONFIDENCE = 0.95
FREQUENCY = np.array([0.42, 0.28, 0.18, 0.09, 0.03])
RECOGNISED = np.array([2.0, 1.6, 1.0, 0.8, 0.4])
"""Logits of the recognition probability of each class."""
CONCENTRATION = 4.0
"""Concentration of the Dirichlet distribution of class shares; low, so that blocks differ much."""
PIXELS = 4000
"""Labelled pixels of a block."""
GAIN = 0.2
"""Advantage of the better of two methods, on the logit scale."""
SHARED = 0.5
"""Share of the variance of blocks and of seeds that two methods have in common."""
SCORES: dict[str, Callable[[Counts | Floats], Floats]] = {"OA": overall_accuracy, "mIoU": mean_iou}


@dataclass(frozen=True)
class Design:
    """A test part and a sweep.

    Attributes:
        blocks: Number of test blocks.
        seeds: Number of seeds.
        block_spread: Standard deviation of the block effect on the logit scale.
        seed_spread: Standard deviation of the seed effect.
        draws: Number of draws of the labels, each run with every seed; 1: the draw is part of the seed.
        draw_spread: Standard deviation of the draw effect.
    """

    blocks: int
    seeds: int
    block_spread: float
    seed_spread: float
    draws: int = 1
    draw_spread: float = 0.0

    @property
    def replicates(self) -> list[tuple[int, int]]:
        """Draw and seed of every run."""
        return [(draw, seed) for draw in range(self.draws) for seed in range(self.seeds)]


SPREADS = {"blocks vary most": (0.6, 0.1), "seeds vary most": (0.2, 0.25)}


def run() -> None:
    """Print the coverage of the intervals in %, over 300 simulations with 500 bootstrap draws each.

    The last column is the share of differences in OA between equal methods with p below 0.005, over 600 simulations.
    """
    columns = [*SCORES, *(f"difference in {name}" for name in SCORES), "p < 0.005 without a difference"]
    print(f"| effects | blocks | draws | seeds | {' | '.join(columns)} |\n| --- |{' ---: |' * (3 + len(columns))}")
    for name, spreads in SPREADS.items():
        for blocks in (6, 12, 30, 60):
            for seeds in (1, 2, 3, 5):
                _print_row(name, Design(blocks, seeds, *spreads))
    for blocks in (12, 30):
        for draws, seeds in ((2, 2), (2, 5), (3, 3), (5, 2)):
            _print_row("draws vary most", Design(blocks, seeds, 0.2, 0.1, draws, 0.25))


def _print_row(name: str, design: Design) -> None:
    found = coverage(design, repeats=300, draws=500)
    shown = " | ".join(f"{100 * share:.0f}" for share in found.values())
    alarms = 100 * false_alarms(design, repeats=600, draws=500)
    print(f"| {name} | {design.blocks} | {design.draws} | {design.seeds} | {shown} | {alarms:.1f} |", flush=True)


def false_alarms(design: Design, repeats: int, draws: int, level: float = 0.005) -> float:
    """Share of paired differences in OA between two equally good methods whose p-value is below a level."""
    random = generator(1, "false alarms", str(design))
    found = 0
    for _ in range(repeats):
        a, b = simulate(design, random, gain=0.0)
        resamples = Resamples.draw(design.blocks, effects_of(design.replicates), draws, random)
        found += difference(overall_accuracy, a, b, resamples, CONFIDENCE).p < level
    return found / repeats


def coverage(design: Design, repeats: int, draws: int) -> dict[str, float]:
    """Coverage of the intervals of each score of one method, and of its difference to another.

    Args:
        design: The test part and the sweep.
        repeats: Number of simulations.
        draws: Bootstrap draws per interval.
    """
    random = generator(1, "intervals", str(design))
    better, worse = (expected(design, gain) for gain in (GAIN, 0.0))
    hits = dict.fromkeys([*SCORES, *(f"difference in {name}" for name in SCORES)], 0)
    for _ in range(repeats):
        a, b = simulate(design, random)
        resamples = Resamples.draw(design.blocks, effects_of(design.replicates), draws, random)
        for name, score in SCORES.items():
            found = interval(score, a, resamples, CONFIDENCE)
            hits[name] += found.low <= better[name] <= found.high
            found = difference(score, a, b, resamples, CONFIDENCE)
            hits[f"difference in {name}"] += found.low <= better[name] - worse[name] <= found.high
    return {name: count / repeats for name, count in hits.items()}


def simulate(design: Design, random: np.random.Generator, gain: float = GAIN) -> tuple[Counts, Counts]:
    """R x B x K x K confusion matrices of the better and the worse method, in the same blocks and the same R runs."""
    shares = random.dirichlet(CONCENTRATION * FREQUENCY, design.blocks)
    truth = random.multinomial(PIXELS, shares)

    runs = np.array(design.replicates)

    def effects() -> tuple[Floats, Floats, Floats]:
        by_draw = random.normal(0, design.draw_spread, (design.draws, 1))[runs[:, 0]]
        by_seed = random.normal(0, design.seed_spread, (design.seeds, 1))[runs[:, 1]]
        return by_draw, by_seed, random.normal(0, design.block_spread, (1, design.blocks))

    shared = effects()
    found = []
    for advantage in (gain, 0.0):
        by_draw, by_seed, by_block = (_mixed(x, y) for x, y in zip(shared, effects(), strict=True))
        found.append(_draw(truth, advantage + by_draw + by_seed + by_block, random))
    return found[0], found[1]


def _mixed(shared: Floats, own: Floats) -> Floats:
    """Mix shared and own effects; the variance stays the same."""
    return np.asarray(SHARED**0.5 * shared + (1 - SHARED) ** 0.5 * own)


def _draw(truth: NDArray[np.int64], effect: Floats, random: np.random.Generator) -> Counts:
    """Confusion matrices R x B x K x K of B x K true pixels under R x B effects."""
    chance = _logistic(RECOGNISED + effect[..., None])
    right = random.binomial(truth, chance)
    k = len(FREQUENCY)
    counts = np.zeros((*effect.shape, k, k), dtype=np.int64)
    for true in range(k):
        counts[..., true, :] = random.multinomial(truth[:, true] - right[..., true], _confusion_shares()[true])
        counts[..., true, true] = right[..., true]
    return counts


def expected(design: Design, gain: float) -> dict[str, float]:
    """The true scores of a method: means over all draws and seeds of the scores of all blocks."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    weights = weights / weights.sum()
    run_spread = np.hypot(design.seed_spread, design.draw_spread)
    effect = gain + run_spread * nodes[:, None] + design.block_spread * nodes
    chance = np.einsum("sbk,b->sk", _logistic(RECOGNISED + effect[..., None]), weights)
    k = len(FREQUENCY)
    matrix = (1 - chance)[..., None] * _confusion_shares() + chance[..., None] * np.eye(k)
    pooled = FREQUENCY[:, None] * matrix
    return {name: float(score(pooled) @ weights) for name, score in SCORES.items()}


def _confusion_shares() -> Floats:
    """Distribution of the unrecognised pixels of each class (rows) over the other classes."""
    others = np.tile(FREQUENCY, (len(FREQUENCY), 1)) * (1 - np.eye(len(FREQUENCY)))
    return np.asarray(others / others.sum(axis=1, keepdims=True))


def _logistic(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
