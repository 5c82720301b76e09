"""Numbers, charts and tables of the sections on classes (scores, confusion) and on calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from tmcnet.config import Run
from tmcnet.report.charts import add_legend, canvas, plain, plot_confusion, render, row_shares
from tmcnet.report.files import number
from tmcnet.report.names import Series, number_text, plural, run_label
from tmcnet.report.results import Matrix, Results


def classes(results: Results) -> dict[str, Any]:
    """Scores per class and confusion matrices of the best run of each network."""
    runs = results.best_runs
    if not runs:
        return {"runs": []}
    best = max(runs, key=results.score)
    names = results.classes.names
    by_run = {run: results.evaluation(run).get("iou", {}) for run in runs}
    iou = {run: [number(of_run.get(name)) for name in names] for run, of_run in by_run.items()}
    figures = {"class_iou": _draw_class_iou(results, iou, "class_iou")}
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


def _draw_class_iou(results: Results, iou: Mapping[Run, list[float]], name: str) -> Markup:
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
        return render(figure, name)


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
        "figures": {"reliability": _draw_reliability(results, curves, "reliability")} if curves else {},
        "tables": {"calibration": pd.DataFrame(rows)} if curves else {},
    }


def _calibration_curve(record: Mapping[str, Any]) -> pd.DataFrame:
    """Mean confidence and accuracy of the bins with pixels; empty without a calibration."""
    bins = (record.get("calibration") or {}).get("bins", [])
    table = pd.DataFrame(bins, columns=["count", "confidence", "accuracy"])
    return table[table["count"] > 0].dropna()


def _draw_reliability(results: Results, curves: Mapping[Run, pd.DataFrame], name: str) -> Markup:
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
        return render(figure, name)
