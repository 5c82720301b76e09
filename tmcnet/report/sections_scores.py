"""Numbers, charts and tables of the sections on scores: means, differences, ablations, classes, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from tmcnet.config import Budget, Run, is_pixelwise
from tmcnet.config.base import only_modality
from tmcnet.evaluate.summary import others_of
from tmcnet.readers import number
from tmcnet.report.charts import Chart, add_legend, canvas, plain, plot_confusion, render, row_shares
from tmcnet.report.names import (
    METRIC_NAMES,
    Series,
    labels_text,
    modality_titles,
    number_text,
    plural,
    run_label,
    series_order,
)
from tmcnet.report.results import Matrix, Results
from tmcnet.report.scores import ALL_METRICS, METRICS, Comparison, Estimate, Group

MAX_COMPARISONS = 60
"""Rows of the table of paired differences on the page; the file has all."""
MAIN_NETWORK = ("mssnet", "corrected")


def scores(results: Results) -> dict[str, Any]:
    """Scores of all runs against the labels used, with one modality hidden, and paired differences."""
    section: dict[str, Any] = {
        "results": results,
        "missing": [(run.name, results.reason(run)) for run in results.missing],
        "found": not results.scores.table.empty,
    }
    if not section["found"]:
        return section
    charts = {f"label_efficiency_{metric}": metric for metric in results.scores.metrics}
    comparisons = [c for c in results.scores.comparisons if c.metric == results.metric]
    groups = results.scores.groups(
        (g for name in results.config.evaluate.groups for g in (name, others_of(name))), results.metric
    )
    tables = {
        "scores": _means(results),
        "groups": _groups(results, groups),
        "withheld": _withheld(results),
        "comparisons": _comparison_table(results),
    }
    return {
        **section,
        "charts": {name: label_efficiency(results, metric) for name, metric in charts.items()},
        "chosen": next((i for i, metric in enumerate(charts.values()) if metric == results.metric), 0),
        "columns": {metric: METRIC_NAMES[metric] for metric in ALL_METRICS},
        "modalities": modality_titles(results.config.sensors),
        "comparisons": comparisons[:MAX_COMPARISONS],
        "comparison_count": len(comparisons),
        "groups": groups,
        "fusion": [(group, _all_first(c)) for group in groups for c in group.comparisons if _adds_a_modality(c)],
        "figures": {name: draw_label_efficiency(results, metric, name) for name, metric in charts.items()},
        "tables": {name: table for name, table in tables.items() if len(table)},
    }


def label_efficiency(results: Results, metric: str) -> dict[str, Any]:
    """Numbers for the caption of the label-efficiency chart of one metric and its text for blind readers."""
    scores = results.scores
    lines = {series.label: [(b, e.mean) for b, e in scores.estimates(series, metric)] for series in scores.series}
    confidence = results.config.evaluate.confidence
    return {"metric": metric, "lines": lines, "majority": results.majority, "confidence": confidence}


def draw_label_efficiency(results: Results, metric: str, name: str) -> Markup:
    """One score against the labels used, one line a network and start, with known intervals."""
    scores = results.scores
    with canvas(7.6, 3.6 + 0.13 * len(scores.series)) as figure:
        ax = figure.axes[0]
        _draw_series(figure, ax, results, metric)
        if metric == "oa" and results.majority:
            most, share = results.majority
            ax.axhline(share, color="#444444", dashes=(6, 3), linewidth=1.2)
            ax.annotate(f"always “{most}”", (-0.25, share), xytext=(0, 3), textcoords="offset points", fontsize=9)
        ax.set_xticks(range(len(scores.budgets)), list(map(labels_text, scores.budgets)))
        ax.set_xlim(-0.35, len(scores.budgets) - 0.65)
        units = {"P": "labelled points of each class", "R": "share of the training tiles whose labels are used"}
        used = [unit for kind, unit in units.items() if kind in {budget.kind for budget in scores.budgets}]
        ax.set(xlabel=", or ".join(used), ylabel=METRIC_NAMES[metric])
        ax.grid(axis="x", visible=False)
        add_legend(figure, 2)
        return render(figure, name)


def _draw_series(figure: Chart, ax: Axes, results: Results, metric: str) -> None:
    scores = results.scores
    spread = 0.3 / max(len(scores.series) - 1, 1)
    for rank, series in enumerate(scores.series):
        shift = (rank - (len(scores.series) - 1) / 2) * spread
        known = {scores.budgets.index(b) + shift: (b, e) for b, e in scores.estimates(series, metric)}
        mean, low, high = (
            np.array([getattr(e, side) for _, e in known.values()]) for side in ("mean", "low", "high")
        )
        style = results.styles.of(series)
        ax.plot(list(known), mean, label=plain(series.label), markeredgecolor="white", markeredgewidth=0.7, **style)
        ax.vlines(list(known), low, high, color=style["color"], linewidth=1.3, alpha=0.8)
        for x, (budget, estimate) in known.items():
            text = f"{series.label}, {labels_text(budget)}: {METRIC_NAMES[metric]} {_estimate_text(estimate)}"
            figure.read(ax, x, estimate.mean, text)


def _estimate_text(e: Estimate) -> str:
    """`0.675 (0.553 to 0.756), 2 runs`."""
    limits = f" ({number_text(e.low)} to {number_text(e.high)})" if e.has_interval else ""
    return f"{number_text(e.mean)}{limits}, {plural(e.runs, 'run')}"


def _means(results: Results) -> pd.DataFrame:
    """Means of all series with all label budgets, with intervals, and how they compare with the best."""
    scores, rows = results.scores, []
    leaders = {(b, m): scores.leader(b, m) for b in scores.budgets for m in METRICS if scores.comparisons}
    for series in scores.series:
        for budget in scores.budgets:
            estimates = {m: e for m in ALL_METRICS if (e := scores.estimate(series, budget, m))}
            if not estimates:
                continue
            standings = {
                f"{m}_standing": scores.standing(series, leader, budget, m)
                for m in METRICS
                if m in estimates and (leader := leaders.get((budget, m)))
            }
            limits = {f"{m}_{k}": getattr(e, k) for m, e in estimates.items() for k in ("mean", "low", "high")}
            runs = max(e.runs for e in estimates.values())
            rows.append({**_key(series, budget), "runs": runs, **limits, **standings})
    return pd.DataFrame(rows)


def _groups(results: Results, groups: Sequence[Group]) -> pd.DataFrame:
    """Means of the headline score on all test tiles and on each group, with intervals; empty without groups."""
    scores, rows = results.scores, []
    for series, budget in ((s, b) for s in scores.series for b in scores.budgets if groups):
        if whole := scores.estimate(series, budget, results.metric):
            estimates = {"all": whole, **{g.name: e for g in groups if (e := g.cells.get((series, budget)))}}
            limits = {f"{name}_{k}": getattr(e, k) for name, e in estimates.items() for k in ("mean", "low", "high")}
            rows.append({**_key(series, budget), "runs": whole.runs, **limits})
    return pd.DataFrame(rows)


def _adds_a_modality(c: Comparison) -> bool:
    """Whether a network of all modalities is compared with one of a single modality."""
    return (only_modality(c.a.network) is None) != (only_modality(c.b.network) is None)


def _all_first(c: Comparison) -> Comparison:
    return c if only_modality(c.a.network) is None else c.reversed()


def _withheld(results: Results) -> pd.DataFrame:
    """Means of the headline score with all modalities and with one hidden; empty where that was not evaluated."""
    rows, metric = [], results.metric
    for run in sorted(results.scored, key=lambda run: (series_order(run), run.budget)):
        record = results.evaluation(run)
        if hidden := record.get("withheld"):
            scores = {f"{name}_hidden": number(hidden.get(name, {}).get(metric)) for name in results.config.sensors}
            rows.append({**_key(Series.of(run), run.budget), "all": number(record.get(metric)), **scores})
    if not rows:
        return pd.DataFrame()
    groups = pd.DataFrame(rows).groupby(["network", "variant", "method", "budget"], sort=False)
    means = groups.mean()
    means.insert(0, "runs", groups.size())
    return means.reset_index()


def _key(series: Series, budget: Budget) -> dict[str, Any]:
    return {**series.__dict__, "budget": budget.name}


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
        "results": results,
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
        if is_pixelwise(series.network) or series == main or main not in results.scores.series:
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
    names = results.classes.names
    by_run = {run: results.evaluation(run).get("iou", {}) for run in runs}
    iou = {run: [number(of_run.get(name)) for name in names] for run, of_run in by_run.items()}
    figures = {"class_iou": _draw_class_iou(results, iou)}
    confusion = {}
    for run in runs:
        if (matrix := results.confusion(run)) is None:
            continue
        chart = f"confusion_{run.network}_{run.variant}"
        figures[chart] = _draw_confusion(matrix, names, chart)
        recall = dict(zip(names, np.diag(row_shares(matrix)).tolist(), strict=True))
        confusion[chart] = {"run": run, "recall": {n: share for n, share in recall.items() if share == share}}
    return {
        "runs": runs,
        "heads": {run.name: run_label(run) for run in runs},
        "best": best,
        "confusion": confusion,
        "figures": figures,
        "tables": {
            "class_iou": pd.DataFrame({"class": names, **{run.name: values for run, values in iou.items()}}),
            "class_scores": _class_table(results, best),
        },
    }


def _class_table(results: Results, run: Run) -> pd.DataFrame:
    """All scores per class of one run, and the number of labelled pixels."""
    record, matrix, names = results.evaluation(run), results.confusion(run), results.classes.names
    scores = {key: record.get(key, {}) for key in ("precision", "recall", "f1", "iou")}
    scores["boundary_f1"] = (record.get("boundary") or {}).get("f1", {})
    pixels = [np.nan] * len(names) if matrix is None else matrix.sum(1).astype(int)
    by_class = {key: [number(of.get(name)) for name in names] for key, of in scores.items()}
    return pd.DataFrame({"class": names, "pixels": pixels, **by_class})


def _draw_class_iou(results: Results, iou: Mapping[Run, list[float]]) -> Markup:
    """IoU per class of some runs as dots, one row a class."""
    names = results.classes.names
    with canvas(7.6, 1.2 + 0.38 * len(names) + 0.16 * len(iou)) as figure:
        ax = figure.axes[0]
        for run, values in iou.items():
            style = {**results.styles.of(Series.of(run)), "linestyle": "none", "markersize": 8, "alpha": 0.85}
            label = plain(run_label(run))
            ax.plot(values, range(len(names)), label=label, **style)
            for row, value in enumerate(values):
                if value == value:
                    figure.read(ax, value, row, f"{names[row]}: IoU {number_text(value)}, {label}")
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set(xlim=(-0.02, 1.02), xlabel="IoU")
        for tick, land_cover in zip(ax.get_yticklabels(), results.classes.classes, strict=True):
            tick.set_bbox({"facecolor": land_cover.color, "alpha": 0.25, "edgecolor": "none", "pad": 2})
        add_legend(figure, 2)
        return render(figure, "class_iou")


def _draw_confusion(matrix: Matrix, names: Sequence[str], name: str) -> Markup:
    """Confusion matrix with rows of sum 100 %."""
    shares = row_shares(matrix)
    side = min(1.0 + 0.085 * min(max(map(len, names)), 26) + 0.44 * len(names), 9.0)
    with canvas(side, side - 0.2) as figure:
        ax = figure.axes[0]
        plot_confusion(ax, shares, names)
        for row, col in np.argwhere(~np.isnan(shares)):
            share, count = f"{100 * shares[row, col]:.1f} %", plural(int(matrix[row, col]), "pixel")
            figure.read(ax, col, row, f"{names[row]} predicted as {names[col]}: {share}, {count}")
        return render(figure, name)


def calibration(results: Results) -> dict[str, Any]:
    """How well confidence agrees with accuracy."""
    records = {run: results.evaluation(run) for run in results.best_runs}
    curves = {run: c for run, record in records.items() if len(c := _calibration_curve(record))}
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
        "figures": {"reliability": _draw_reliability(results, curves)} if curves else {},
        "tables": {"calibration": pd.DataFrame(rows)} if curves else {},
    }


def _calibration_curve(record: Mapping[str, Any]) -> pd.DataFrame:
    """Mean confidence and accuracy of the bins with pixels; empty without a calibration."""
    bins = (record.get("calibration") or {}).get("bins", [])
    table = pd.DataFrame(bins, columns=["count", "confidence", "accuracy"])
    return table[table["count"] > 0].dropna()


def _draw_reliability(results: Results, curves: Mapping[Run, pd.DataFrame]) -> Markup:
    """Reliability diagram: accuracy against confidence."""
    with canvas(5.6, 4.6 + 0.2 * len(curves)) as figure:
        ax = figure.axes[0]
        ax.plot([0, 1], [0, 1], color="#888888", dashes=(4, 3), linewidth=1, label="perfectly calibrated")
        for run, curve in curves.items():
            label = plain(run_label(run))
            ax.plot(curve["confidence"], curve["accuracy"], label=label, **results.styles.of(Series.of(run)))
            for sure, right in zip(curve["confidence"], curve["accuracy"], strict=True):
                figure.read(ax, sure, right, f"{label}: {100 * right:.0f} % right where {100 * sure:.0f} % sure")
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set(xlabel="confidence of the network", ylabel="share that is right")
        add_legend(figure, 1)
        return render(figure, "reliability")
