"""The verdict: the paired differences that answer whether pre-training, fusion and deep networks pay."""

from __future__ import annotations

from typing import Any

from tmcnet.config import PIXELWISE, RANDOM_START, SINGLE_SENSOR
from tmcnet.report.names import Series
from tmcnet.report.results import Results
from tmcnet.report.scores import Comparison, Scores

MIN_RUNS = 5
"""Runs below which the verdict warns."""
FUSION = ("mssnet", "late_fusion", "early_fusion")


def verdict(results: Results) -> dict[str, Any]:
    """Facts of the verdict, for `verdict.html`.

    Returns:
        `scored`: whether there is any score. `starts`: of each pre-trained series, the differences to a random
        start, fewest labels first. `lead_starts`: those with the fewest labels of all. `fusion`: one difference for
        each single sensor. `baselines`: for each label budget the best deep network, the best pixel-wise baseline
        and their difference, or None. `runs`: fewest runs behind a mean. `missing`, `planned`: numbers of runs.
    """
    scores, metric = results.scores, results.metric
    found = [c for c in scores.comparisons if c.metric == metric]
    started = [c for c in found if _is_start(c)]
    return {
        "scored": not scores.table.empty,
        "metric": metric,
        "confidence": results.config.evaluate.confidence,
        "starts": _by_series(_of_mssnet(started)),
        "lead_starts": _of_mssnet([c for c in started if c.budget == min(s.budget for s in started)]),
        "fusion": [c for sensor in SINGLE_SENSOR if (c := _fusion(found, sensor))],
        "baselines": _baselines(scores, metric),
        "runs": scores.runs,
        "min_runs": MIN_RUNS,
        "missing": len(results.missing),
        "planned": len(results.config.runs),
    }


def _is_start(c: Comparison) -> bool:
    """Whether a difference is that of pre-training to a random start of the same network."""
    same = (c.a.network, c.a.variant) == (c.b.network, c.b.variant)
    return same and c.b.method == RANDOM_START and c.a.method != RANDOM_START


def _of_mssnet(comparisons: list[Comparison]) -> list[Comparison]:
    """Those of the main network, or all where it has none."""
    return [c for c in comparisons if c.a.network == "mssnet"] or comparisons


def _by_series(comparisons: list[Comparison]) -> list[list[Comparison]]:
    groups: dict[Series, list[Comparison]] = {}
    for c in comparisons:
        groups.setdefault(c.a, []).append(c)
    return [sorted(group, key=lambda c: c.budget) for group in groups.values()]


def _fusion(comparisons: list[Comparison], sensor: str) -> Comparison | None:
    """The main difference of fusion to one sensor with the same start: the main network, the most labels."""
    pairs = [c for c in comparisons if c.a.method == c.b.method and c.a.network in FUSION and c.b.network == sensor]
    pairs.sort(key=lambda c: c.budget, reverse=True)
    order = {network: rank for rank, network in enumerate(FUSION)}
    return min(pairs, key=lambda c: (order[c.a.network], c.a.variant == "reference"), default=None)


def _baselines(scores: Scores, metric: str) -> list[dict[str, Any]]:
    pixelwise = [s for s in scores.series if s.network in PIXELWISE]
    deep = [s for s in scores.series if s.network not in PIXELWISE]
    rows = []
    for budget in scores.budgets:
        network, baseline = scores.leader(budget, metric, deep), scores.leader(budget, metric, pixelwise)
        if network and baseline:
            comparison = scores.comparison(network, baseline, budget, metric)
            rows.append({"budget": budget, "network": network, "baseline": baseline, "comparison": comparison})
    return rows
