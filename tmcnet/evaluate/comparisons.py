"""Cells of the sweep (what differs by seed only), their intervals, and their differences in pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tmcnet.config import PIXELWISE, EvaluateConfig, Run
from tmcnet.dataset.groups import block_number
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import HEADLINE, Counts
from tmcnet.evaluate.significance import Interval, Resamples, difference, holm, interval
from tmcnet.seeding import generator

DRAWS_PER_COMPARISON = 80
"""Bootstrap draws for each comparison that p-values are corrected for: with fewer draws than that, the smallest
p-value there can be would not stay below 5 % after the correction."""

FEWEST_SEEDS = 2
"""With one seed nothing is known about other draws of labels and starts: in simulations its intervals held the truth
in as few as 16 % of cases, so no difference is called significant."""

_WINDOW = ("row", "col", "height", "width")
_LOWEST = {metric: -1.0 if metric == "kappa" else 0.0 for metric in HEADLINE}


@dataclass(frozen=True, order=True)
class Cell:
    """Runs that differ in their seed only."""

    network: str
    variant: str
    method: str
    fraction: float

    @classmethod
    def of(cls, run: Run) -> Cell:
        """The cell of a run."""
        return cls(run.network, run.variant, run.method, run.fraction)

    @property
    def series(self) -> str:
        """Name without the fraction, such as `mssnet-corrected__tmcnet`."""
        return f"{self.network}-{self.variant}__{self.method}"


@dataclass(frozen=True)
class Scored:
    """The confusion matrices of a cell's runs.

    Attributes:
        seeds: Seeds of the runs, ascending.
        counts: S x B x K x K by seed and spatial block.
    """

    seeds: tuple[int, ...]
    counts: Counts

    def only(self, seeds: Sequence[int]) -> Counts:
        """The matrices of these seeds, in this order."""
        return np.asarray(self.counts[[self.seeds.index(seed) for seed in seeds]])


def read_cells(evaluate_root: Path, runs: Sequence[Run], blocks: Mapping[str, str]) -> dict[Cell, Scored]:
    """Read the confusion matrices of runs and sum them up by block.

    Args:
        evaluate_root: Folder with one folder a run, `tiles.npz` in it.
        runs: The runs, all of them scored.
        blocks: Block of each known tile.

    Raises:
        InputError: If runs were scored on different test tiles or classes, or on tiles that are not known.
    """
    found: dict[Run, Counts] = {}
    names: list[str] = []
    problems = []
    for run in sorted(runs):
        path = evaluate_root / run.name / "tiles.npz"
        with np.load(path, allow_pickle=False) as file:
            tiles, confusion = file["names"].astype(str).tolist(), file["confusion"]
        names = names or tiles
        shape = next(iter(found.values())).shape[1:] if found else confusion.shape[1:]
        if tiles != names or confusion.shape[1:] != shape:
            what = f"was scored on other test tiles or classes than {next(iter(found)).name}"
            problems.append(Problem(str(path), what, "Evaluate both again on the same split."))
            continue
        unknown = [tile for tile in tiles if tile not in blocks]
        if unknown:
            what = f"was scored on {len(unknown)} tiles that the index does not have, such as {unknown[0]}"
            problems.append(Problem(str(path), what, "Evaluate again on the tiles at hand."))
            continue
        found[run] = _by_block(confusion, [blocks[tile] for tile in tiles])
    if problems:
        raise InputError(problems)
    cells: dict[Cell, list[Run]] = {}
    for run in found:
        cells.setdefault(Cell.of(run), []).append(run)
    return {
        cell: Scored(tuple(run.seed for run in members), np.stack([found[run] for run in members]))
        for cell, members in sorted(cells.items())
    }


def read_blocks(index: Path, manifest: Path) -> dict[str, str]:
    """Spatial block of each tile of the index: the blocks of the splits, whatever the parts were made of.

    A ready-made tile, which is a scene of its own, is a block of its own.
    """
    size = int(json.loads(manifest.read_text())["config"]["block_size"])
    tiles = pd.read_csv(index, usecols=["tile", "scene", *_WINDOW], dtype={"tile": str, "scene": str})
    row, col, height, width = (tiles[name].to_numpy(np.int64) for name in _WINDOW)
    places = zip(tiles["scene"], block_number(row, height, size), block_number(col, width, size), strict=True)
    return {tile: f"{scene} {r} {c}" for tile, (scene, r, c) in zip(tiles["tile"], places, strict=True)}


def intervals(cells: Mapping[Cell, Scored], config: EvaluateConfig) -> Iterator[tuple[Cell, str, Interval]]:
    """Mean over seeds of every headline score of every cell, with its interval."""
    for cell, scored in cells.items():
        seeds, blocks = scored.counts.shape[:2]
        random = generator(config.seed, "interval", cell.series, f"{cell.fraction:g}")
        resamples = Resamples.draw(blocks, seeds, config.bootstrap, random)
        for metric, score in HEADLINE.items():
            found = interval(score, scored.counts, resamples, config.confidence)
            # widened for few units, a limit may leave the range of the score
            yield cell, metric, replace(found, low=max(found.low, _LOWEST[metric]), high=min(found.high, 1.0))


def compare(cells: Mapping[Cell, Scored], config: EvaluateConfig) -> list[dict[str, Any]]:
    """Paired differences between methods of one network, and between networks of one method, at the same fraction.

    Pixel-wise baselines have one method only and are compared with networks of whatever method. Seeds that both cells
    have are paired. P-values are corrected for the number of comparisons of a metric (Holm).

    Returns:
        One row a comparison and metric: kind, a, b, fraction, metric, n_seeds, n_blocks, difference (a - b), low,
        high, p, p_holm, significant.
    """
    pairs = [(kind, a, b) for a, b in combinations(sorted(cells), 2) if (kind := _kind(a, b))]
    pairs = [(kind, a, b) for kind, a, b in pairs if set(cells[a].seeds) & set(cells[b].seeds)]
    draws = max(config.bootstrap, DRAWS_PER_COMPARISON * len(pairs))
    rows = [row for kind, a, b in pairs for row in _compare(kind, a, b, cells, draws, config)]
    for metric in HEADLINE:
        family = [row for row in rows if row["metric"] == metric]
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p
            row["significant"] = bool(p < 1 - config.confidence and row["n_seeds"] >= FEWEST_SEEDS)
    return rows


def _kind(a: Cell, b: Cell) -> str | None:
    """What two cells differ in, where it is one thing only; how a pixel-wise baseline starts is no such thing."""
    if a.fraction != b.fraction:
        return None
    same_network = (a.network, a.variant) == (b.network, b.variant)
    if same_network:
        return "method"
    comparable = a.method == b.method or a.network in PIXELWISE or b.network in PIXELWISE
    return "network" if comparable else None


def _compare(
    kind: str, a: Cell, b: Cell, cells: Mapping[Cell, Scored], draws: int, config: EvaluateConfig
) -> Iterator[dict[str, Any]]:
    seeds = sorted(set(cells[a].seeds) & set(cells[b].seeds))
    counts_a, counts_b = cells[a].only(seeds), cells[b].only(seeds)
    random = generator(config.seed, "comparison", a.series, b.series, f"{a.fraction:g}")
    resamples = Resamples.draw(counts_a.shape[1], len(seeds), draws, random)
    for metric, score in HEADLINE.items():
        found = difference(score, counts_a, counts_b, resamples, config.confidence)
        yield {
            "kind": kind,
            "a": a.series,
            "b": b.series,
            "fraction": a.fraction,
            "metric": metric,
            "n_seeds": len(seeds),
            "n_blocks": counts_a.shape[1],
            "difference": found.estimate,
            "low": found.low,
            "high": found.high,
            "p": found.p,
        }


def _by_block(confusion: Counts, block_of: Sequence[str]) -> Counts:
    """B x K x K from T x K x K; blocks without any labelled pixel say nothing and are left out."""
    blocks, place = np.unique(block_of, return_inverse=True)
    sums = np.zeros((len(blocks), *confusion.shape[1:]), dtype=np.int64)
    np.add.at(sums, place, confusion)
    return np.asarray(sums[sums.sum(axis=(1, 2)) > 0])
