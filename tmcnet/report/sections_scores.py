"""Numbers, charts and tables of the sections on scores: means, differences, ablations, classes, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from tmcnet.config import PIXELWISE, Budget, Run
from tmcnet.report.figures_runs import (
    draw_class_iou,
    draw_confusion,
    draw_label_efficiency,
    draw_reliability,
    row_shares,
    run_label,
)
from tmcnet.report.files import number
from tmcnet.report.names import METRIC_NAMES, Series, modality_titles, series_order
from tmcnet.report.results import Matrix, Results
from tmcnet.report.scores import METRICS, PLAIN_METRICS

MAX_COMPARISONS = 60
"""Rows of the table of paired differences on the page; the file has all."""
MAIN_NETWORK = ("mssnet", "corrected")
_COLUMNS = (*METRICS, *PLAIN_METRICS)


def scores(results: Results) -> dict[str, Any]:
    """Scores of all runs against the labels used, with one modality hidden, and paired differences."""
    section: dict[str, Any] = {
        "missing": [(run.name, results.reason(run)) for run in results.missing],
        "found": not results.scores.table.empty,
    }
    if not section["found"]:
        return section
    charts = {f"label_efficiency_{metric}": metric for metric in results.scores.metrics}
    comparisons = [c for c in results.scores.comparisons if c.metric == results.metric]
    tables = {"scores": _means(results), "withheld": _withheld(results), "comparisons": _comparison_table(results)}
    return {
        **section,
        "metric": results.metric,
        "confidence": results.config.evaluate.confidence,
        "boundary_tolerance": results.config.evaluate.boundary_tolerance,
        "folds": results.config.splits.folds,
        "charts": {name: label_efficiency(results, metric) for name, metric in charts.items()},
        "chosen": next((i for i, metric in enumerate(charts.values()) if metric == results.metric), 0),
        "columns": {metric: METRIC_NAMES[metric] for metric in _COLUMNS},
        "marked": bool(results.scores.comparisons),
        "modalities": modality_titles(results.config.sensors),
        "modality_dropout": results.config.finetune.modality_dropout,
        "comparisons": comparisons[:MAX_COMPARISONS],
        "comparison_count": len(comparisons),
        "figures": {name: draw_label_efficiency(results, metric, name) for name, metric in charts.items()},
        "tables": {name: table for name, table in tables.items() if len(table)},
    }


def label_efficiency(results: Results, metric: str) -> dict[str, Any]:
    """Numbers for the caption of the label-efficiency chart of one metric and its text for blind readers."""
    scores = results.scores
    lines = {series.label: [(b, e.mean) for b, e in scores.estimates(series, metric)] for series in scores.series}
    confidence = results.config.evaluate.confidence
    return {"metric": metric, "lines": lines, "majority": results.majority, "confidence": confidence}


def _means(results: Results) -> pd.DataFrame:
    """Means of all series with all label budgets, with intervals, and how they compare with the best."""
    scores, rows = results.scores, []
    leaders = {(b, m): scores.leader(b, m) for b in scores.budgets for m in METRICS if scores.comparisons}
    for series in scores.series:
        for budget in scores.budgets:
            estimates = {m: e for m in _COLUMNS if (e := scores.estimate(series, budget, m))}
            standings = {
                f"{m}_standing": scores.standing(series, leader, budget, m)
                for m in METRICS
                if m in estimates and (leader := leaders.get((budget, m)))
            }
            limits = {f"{m}_{k}": getattr(e, k) for m, e in estimates.items() for k in ("mean", "low", "high")}
            if estimates:
                runs = max(e.runs for e in estimates.values())
                rows.append({**series.__dict__, "budget": budget.name, "runs": runs, **limits, **standings})
    return pd.DataFrame(rows)


def _withheld(results: Results) -> pd.DataFrame:
    """Means of the headline score with all modalities and with one hidden; empty where that was not evaluated."""
    groups: dict[tuple[Series, Budget], list[dict[str, Any]]] = {}
    for run in results.scored:
        record = results.evaluation(run)
        if record.get("withheld"):
            groups.setdefault((Series.of(run), run.budget), []).append(record)
    rows, metric = [], results.metric
    for (series, budget), records in sorted(groups.items(), key=lambda item: (series_order(item[0][0]), item[0][1])):
        hidden = {
            f"{name}_hidden": _mean(r["withheld"].get(name, {}).get(metric) for r in records)
            for name in results.config.sensors
        }
        means = {"all": _mean(r.get(metric) for r in records), **hidden}
        rows.append({**series.__dict__, "budget": budget.name, "runs": len(records), **means})
    return pd.DataFrame(rows)


def _mean(values: Iterable[object]) -> float:
    return float(np.mean([number(value) for value in values]))


def _comparison_table(results: Results) -> pd.DataFrame:
    """The paired differences in all metrics; empty without any in the headline metric."""
    found = results.scores.comparisons
    rows = [{**c.__dict__, "a": c.a.key, "b": c.b.key, "budget": c.budget.name} for c in found]
    return pd.DataFrame(rows if any(c.metric == results.metric for c in found) else [])


def ablations(results: Results) -> dict[str, Any]:
    """Pre-trainings with other settings, and networks that fuse in another way."""
    tables = {
        "ablations_pretraining": pd.DataFrame(_pretrainings(results)),
        "ablations_networks": pd.DataFrame(_networks(results)),
    }
    return {
        "metric": results.metric,
        "confidence": results.config.evaluate.confidence,
        "main": Series(*MAIN_NETWORK, ""),
        "tables": {name: table for name, table in tables.items() if len(table)},
    }


def _pretrainings(results: Results) -> Iterator[dict[str, Any]]:
    """The main network after every other pre-training, compared with the first, and the settings that differ."""
    methods, scores = results.config.pretrain.methods, results.scores
    started = [s for s in scores.series if (s.network, s.variant) == MAIN_NETWORK and s.method in methods]
    started.sort(key=lambda series: list(methods).index(series.method))
    for series in started[1:]:
        usual = methods[started[0].method].model_dump(mode="json")
        settings = methods[series.method].model_dump(mode="json")
        changed = {key: value for key, value in settings.items() if value != usual[key] and value is not None}
        text = ", ".join(f"{key} {value}" for key, value in changed.items()).replace("_", " ")
        yield from _compared(results, series, started[0], text or "same settings")


def _networks(results: Results) -> Iterator[dict[str, Any]]:
    """Every other deep network, compared with the main one with the same start."""
    for series in results.scores.series:
        main = Series(*MAIN_NETWORK, series.method)
        if series.network in PIXELWISE or series == main or main not in results.scores.series:
            continue
        yield from _compared(results, series, main, "")


def _compared(results: Results, series: Series, main: Series, changed: str) -> Iterator[dict[str, Any]]:
    scores, metric = results.scores, results.metric
    for budget, estimate in scores.estimates(series, metric):
        if scores.estimate(main, budget, metric):
            c = scores.comparison(series, main, budget, metric)
            figures = {key: getattr(c, key, None) for key in ("difference", "low", "high", "p", "reliable")}
            head = {**series.__dict__, "changed": changed, "budget": budget.name, "mean": estimate.mean}
            yield head | figures


def classes(results: Results) -> dict[str, Any]:
    """Scores per class and confusion matrices of the best run of each network."""
    runs = results.best_runs
    if not runs:
        return {"runs": []}
    best = max(runs, key=results.score)
    matrices = {run: matrix for run in runs if (matrix := results.confusion(run)) is not None}
    names = results.classes.names
    figures = {"class_iou": draw_class_iou(results, runs, "class_iou")}
    confusion = {}
    for run, matrix in matrices.items():
        chart = f"confusion_{run.network}_{run.variant}"
        figures[chart] = draw_confusion(matrix, names, chart)
        recall = dict(zip(names, np.diag(row_shares(matrix)).tolist(), strict=True))
        confusion[chart] = {"run": run, "recall": {n: share for n, share in recall.items() if share == share}}
    return {
        "runs": runs,
        "heads": {run.name: run_label(run) for run in runs},
        "best": best,
        "confusion": confusion,
        "figures": figures,
        "tables": {"class_iou": _class_iou_table(results, runs), "class_scores": _class_table(results, best)},
    }


def _class_iou_table(results: Results, runs: list[Run]) -> pd.DataFrame:
    by_run = {run.name: results.evaluation(run).get("iou", {}) for run in runs}
    return pd.DataFrame(
        [
            {"class": name, **{run: number(iou.get(name)) for run, iou in by_run.items()}}
            for name in results.classes.names
        ]
    )


def _class_table(results: Results, run: Run) -> pd.DataFrame:
    """All scores per class of one run, and the number of labelled pixels."""
    record, matrix = results.evaluation(run), results.confusion(run)
    boundary = (record.get("boundary") or {}).get("f1", {})
    scores = {**{key: record.get(key, {}) for key in ("precision", "recall", "f1", "iou")}, "boundary_f1": boundary}
    pixels = [np.nan] * len(results.classes) if matrix is None else matrix.sum(1).astype(int)
    return pd.DataFrame(
        [
            {"class": name, "pixels": count, **{key: number(of.get(name)) for key, of in scores.items()}}
            for name, count in zip(results.classes.names, pixels, strict=True)
        ]
    )


def calibration(results: Results) -> dict[str, Any]:
    """How well confidence agrees with accuracy."""
    records = {run: results.evaluation(run) for run in results.best_runs}
    curves = {run: c for run, record in records.items() if (c := _calibration_curve(record.get("calibration")))}
    rows = [
        {
            "run": Series.of(run).label,
            "labels": run.budget.name,
            "ece": number(records[run].get("ece")),
            "ece_scaled": number(records[run]["calibration"].get("scaled", {}).get("ece")),
        }
        for run in curves
    ]
    return {
        "figures": {"reliability": draw_reliability(results, curves, "reliability")} if curves else {},
        "tables": {"calibration": pd.DataFrame(rows)} if curves else {},
    }


def _calibration_curve(record: Any) -> tuple[Matrix, Matrix] | None:  # noqa: ANN401 - JSON may contain anything
    """Mean confidence and accuracy of the bins with pixels."""
    bins = record.get("bins") if isinstance(record, dict) else None
    if not isinstance(bins, list):
        return None
    pairs = [
        (number(b.get("confidence")), number(b.get("accuracy")))
        for b in bins
        if isinstance(b, dict) and b.get("count")
    ]
    known = np.array([p for p in pairs if p[0] == p[0] and p[1] == p[1]])
    return (known[:, 0], known[:, 1]) if len(known) else None
