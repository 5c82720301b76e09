"""Coverage of the intervals of class areas in simulations where test blocks represent the mapped ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tmcnet.evaluate.areas import Counts, Mapped, estimate_shares

SHARES = np.array([0.4, 0.3, 0.2, 0.07, 0.03])
PIXELS_PER_BLOCK = 2000
CONCENTRATIONS = {"patchy": 2.0, "mixed": 8.0}
"""Of the Dirichlet distribution of what a block holds: in patchy ground most blocks have few classes."""
RIGHT, PRECISION = 0.8, 10.0
"""Mean and precision of the beta distribution of the accuracy of a class in a block."""
DRAWS = 500


def run() -> None:
    """Print the coverage for several numbers of blocks."""
    print("| ground | test blocks | blocks mapped | coverage | rarest class | pixels as units |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, concentration in CONCENTRATIONS.items():
        for test_blocks in (6, 12, 30):
            for ground_blocks in (10, 200):
                found = _coverage(concentration, test_blocks, ground_blocks)
                figures = " | ".join(f"{100 * value:.0f}" for value in found)
                print(f"| {name} | {test_blocks} | {ground_blocks} | {figures} |", flush=True)


def _coverage(concentration: float, test_blocks: int, ground_blocks: int) -> tuple[float, float, float]:
    """Share of intervals with the true area: of all classes, of the rarest, and with pixels as units."""
    random = np.random.default_rng(1)
    ours, usual = [], []
    for _ in range(DRAWS):
        test = _blocks(random, test_blocks, concentration)
        ground = _blocks(random, ground_blocks, concentration).sum(axis=0)
        truth, mapped = ground.sum(axis=1) / ground.sum(), Mapped(ground.sum(axis=0), None)
        shares = estimate_shares(mapped, test, 0.95)
        ours.append((shares.low <= truth) & (truth <= shares.high))
        usual.append(np.abs(shares.estimate - truth) <= _usual_margin(mapped.shares, test.sum(axis=0)))
    hits = np.array(ours)
    return float(hits.mean()), float(hits[:, -1].mean()), float(np.mean(usual))


def _usual_margin(weights: NDArray[np.float64], pooled: Counts) -> NDArray[np.float64]:
    """Half the interval of Olofsson et al. (2014, equation 10), which takes pixels for independent."""
    number = np.maximum(pooled.sum(axis=0), 2)
    shares = pooled / number
    variance = weights**2 * shares * (1 - shares) / (number - 1)
    return np.asarray(stats.norm.ppf(0.975) * np.sqrt(variance.sum(axis=1)))


def _blocks(random: np.random.Generator, number: int, concentration: float) -> Counts:
    """Confusion matrices, truth in rows, of blocks that differ in what they hold and in how well they are mapped."""
    truth = random.multinomial(PIXELS_PER_BLOCK, random.dirichlet(concentration * SHARES, number))
    right = random.beta(PRECISION * RIGHT, PRECISION * (1 - RIGHT), truth.shape)[..., None]
    return random.multinomial(truth, np.where(np.eye(len(SHARES)) > 0, right, (1 - right) / (len(SHARES) - 1)))
