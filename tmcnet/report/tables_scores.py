"""Tables of scores: means, what one sensor alone is worth, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tmcnet.config import PIXELWISE, Budget, Run
from tmcnet.report.blocks import (
    DASH,
    MINUS,
    Block,
    Heading,
    Note,
    Table,
    Text,
    labels_text,
    number_text,
    sentence_case,
)
from tmcnet.report.files import number
from tmcnet.report.palette import METRIC_NAMES as NAMES
from tmcnet.report.palette import Series, method_label, network_label, series_order
from tmcnet.report.results import Results
from tmcnet.report.scores import METRICS, PLAIN_METRICS, Comparison, Estimate, Standing

MARKS: dict[Standing, str] = {"best": "* ", "not worse": "* ", "not compared": "° ", "worse": ""}
"""Signs before a mean, by how it stands against the best."""

_MOST_COMPARISONS = 60
_COLUMNS = (*METRICS, *PLAIN_METRICS)


def score_table(results: Results) -> list[Block]:
    """Means of all series at all label budgets, and marks by how they stand against the best."""
    scores, rows, frame = results.scores, [], []
    leaders = {(f, m): scores.leader(f, m) for f in scores.budgets for m in METRICS if scores.comparisons}
    for series in scores.series:
        for budget in scores.budgets:
            known = {m: e for m in _COLUMNS if (e := scores.estimate(series, budget, m))}
            if not known:
                continue
            standings = {
                m: scores.standing(series, leader, budget, m)
                for m in METRICS
                if m in known and (leader := leaders.get((budget, m)))
            }
            head = [*_names(series), labels_text(budget)]
            count = max(e.runs for e in known.values())
            marks = {m: MARKS[standing] for m, standing in standings.items()}
            cells = [marks.get(m, "") + _estimate_text(known.get(m)) for m in _COLUMNS]
            rows.append([*head, str(count), *cells])
            frame.append(
                {
                    **series.__dict__,
                    "budget": budget.name,
                    "runs": count,
                    **{f"{m}_{k}": getattr(e, k) for m, e in known.items() for k in ("mean", "low", "high")},
                    **{f"{m}_standing": standing for m, standing in standings.items()},
                }
            )
    caption = (
        f"Means over runs (draws of the labels and run seeds) with {_level(results)} intervals, on the test part."
    )
    columns = ["Network", "Start", "Labels", "Runs", *(NAMES[m] for m in _COLUMNS)]
    numeric = frozenset(range(2, len(columns)))
    table = Table("scores", caption, columns, rows, numeric, heads=3, frame=pd.DataFrame(frame))
    return [table, Text(_legend(results))] if scores.comparisons else [table]


def _names(series: Series) -> tuple[str, str]:
    """Network and start; pixel-wise baselines have no start to choose."""
    start = DASH if series.network in PIXELWISE else method_label(series.method)
    return network_label(series.network, series.variant), start


def _legend(results: Results) -> str:
    within = f"within {results.config.evaluate.boundary_tolerance} pixels"
    return (
        "Marks compare the means of a column with the same labels. “*”: the best mean, or not significantly "
        "worse than it. “°”: not compared with the best. No mark: significantly worse than the best, after Holm's "
        f"correction. {NAMES['boundary_f1']} (boundaries count as found {within}) and {NAMES['ece']} have no paired "
        "differences and thus no marks."
    )


def _level(results: Results) -> str:
    return f"{results.config.evaluate.confidence * 100:g} %"


def _estimate_text(estimate: Estimate | None) -> str:
    if estimate is None:
        return DASH
    if estimate.low != estimate.low:
        return number_text(estimate.mean)
    return f"{number_text(estimate.mean)}\n{number_text(estimate.low)}{DASH}{number_text(estimate.high)}"


def withheld_table(results: Results) -> list[Block]:
    """What is left of the scores when a modality is missing; no table where that was not tried."""
    groups: dict[tuple[Series, Budget], list[Run]] = {}
    for run in results.scored:
        if results.evaluation(run).get("withheld"):
            groups.setdefault((Series(run.network, run.variant, run.method), run.budget), []).append(run)
    if not groups:
        return []
    metric, further = results.config.report.metric, list(results.config.sensors.others)
    rows, frame = [], []
    for (series, budget), runs in sorted(groups.items(), key=lambda item: (series_order(item[0][0]), item[0][1])):
        means = _withheld_means(results, runs, metric)
        rows.append([*_names(series), labels_text(budget), str(len(runs)), *map(number_text, means.values())])
        frame.append({**series.__dict__, "budget": budget.name, "runs": len(runs), **means})
    every = "all modalities" if further else "both sensors"
    caption = f"{NAMES[metric]} on the test part with {every}, and with one of them hidden: means over runs."
    hidden = [f"{name} hidden" for name in ("Optical", "SAR", *further)]
    columns = ["Network", "Start", "Labels", "Runs", sentence_case(every), *hidden]
    numeric = frozenset(range(2, len(columns)))
    table = Table("withheld", caption, columns, rows, numeric, heads=3, frame=pd.DataFrame(frame))
    share = results.config.finetune.modality_dropout
    learnt = f"{100 * share:g} % of the training samples" if share else "no training sample"
    one = "modality" if further else "sensor"
    text = f"A hidden {one} holds no data at all, as under cloud. In fine-tuning, a {one} was missing from {learnt}."
    return [Heading(f"One {one} missing"), table, Text(text)]


def _withheld_means(results: Results, runs: list[Run], metric: str) -> dict[str, float]:
    records = [results.evaluation(run) for run in runs]
    hidden = {
        f"{name}_hidden": _mean(r["withheld"].get(name, {}).get(metric) for r in records)
        for name in results.config.sensors
    }
    return {"all": _mean(r.get(metric) for r in records), **hidden}


def _mean(values: Iterable[object]) -> float:
    return float(np.mean([number(value) for value in values]))


def comparison_table(results: Results) -> list[Block]:
    """Paired differences, and whether each is significant after Holm's correction."""
    heading, metric = Heading("Paired differences"), results.config.report.metric
    found = [c for c in results.scores.comparisons if c.metric == metric]
    if not found:
        return [heading, Note("No paired differences were computed (comparisons.csv).")]
    rows = [_comparison_row(c) for c in found[:_MOST_COMPARISONS]]
    level = f"{_level(results)} interval"
    columns = ["A", "B", "Labels", f"A {MINUS} B", level, "p (Holm)", "Runs", "Significant (Holm)"]
    left_out = f" The first {_MOST_COMPARISONS} of {len(found)}." if len(found) > _MOST_COMPARISONS else ""
    caption = f"Paired differences in {NAMES[metric]}; tables/comparisons.csv has all metrics.{left_out}"
    frame = pd.DataFrame(
        [{**c.__dict__, "a": c.a.key, "b": c.b.key, "budget": c.budget.name} for c in results.scores.comparisons]
    )
    table = Table("comparisons", caption, columns, rows, frozenset({2, 3, 4, 5, 6}), heads=2, frame=frame)
    limit = f"{100 * (1 - results.config.evaluate.confidence):.3g} %"
    text = (
        "Each difference compares the same test tiles under the same draws of the labels and run seeds. A difference "
        "is called significant, or reliable, where its p-value, corrected for the number of comparisons (Holm), is "
        f"below {limit} and its interval excludes 0."
    )
    return [heading, table, Text(text)]


def _comparison_row(c: Comparison) -> list[str]:
    return [
        c.a.label,
        c.b.label,
        labels_text(c.budget),
        number_text(c.difference, sign=True),
        f"{number_text(c.low, sign=True)} to {number_text(c.high, sign=True)}",
        number_text(c.p),
        str(c.runs or DASH),
        "significant" if c.reliable else "not significant",
    ]
