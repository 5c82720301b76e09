"""Charts of runs: label efficiency, classes, confusion, calibration, and the curves of both trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from tmcnet.config import Run
from tmcnet.report.files import number
from tmcnet.report.names import (
    METRIC_NAMES,
    Series,
    labels_phrase,
    labels_text,
    method_label,
    network_label,
    number_text,
    plural,
    replicate,
    series_order,
)
from tmcnet.report.results import Matrix, Results
from tmcnet.report.scores import Estimate
from tmcnet.report.svg import Reading, canvas, plain, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_TITLES = {
    "loss": "loss",
    "loss_global": "global loss",
    "loss_local": "local loss",
    "learning_rate": "learning rate",
    "alignment": "alignment of the two views",
    "uniformity": "uniformity",
    "effective_rank": "effective rank",
    "effective_rank_optical": "effective rank, optical",
    "effective_rank_sar": "effective rank, SAR",
    "positive_similarity": "similarity of positives",
    "hardest_negative_similarity": "similarity of hardest negatives",
    "retrieval_optical": "retrieval, optical views",
    "retrieval_sar": "retrieval, SAR views",
    "retrieval_optical_to_sar": "retrieval, optical to SAR",
    "retrieval_sar_to_optical": "retrieval, SAR to optical",
    "gradient_norm": "gradient norm",
    "probe_oa": "probe, overall accuracy",
    "probe_miou": "probe, mIoU",
}
_MAX_POINTS = 400
_MAX_FINETUNING_POINTS = 120
_MAX_READINGS = 25
"""Points of a curve with tooltips."""
_MAX_NETWORKS = 8
_MAX_CLASSES_WITH_NUMBERS = 15


def draw_label_efficiency(results: Results, metric: str, name: str) -> Markup:
    """One score against the labels used, one line a network and start, with known intervals."""
    scores = results.scores
    with canvas(7.6, 3.6 + 0.13 * len(scores.series)) as figure:
        ax = figure.axes[0]
        readings = _draw_series(ax, results, metric)
        if metric == "oa" and results.majority:
            most, share = results.majority
            ax.axhline(share, color="#444444", dashes=(6, 3), linewidth=1.2)
            ax.annotate(f"always “{most}”", (-0.25, share), xytext=(0, 3), textcoords="offset points", fontsize=9)
        ax.set_xticks(range(len(scores.budgets)), list(map(labels_text, scores.budgets)))
        ax.set_xlim(-0.35, len(scores.budgets) - 0.65)
        ax.set_xlabel(_labels_axis({budget.kind for budget in scores.budgets}))
        ax.set_ylabel(METRIC_NAMES[metric])
        ax.grid(axis="x", visible=False)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return render(figure, name, readings)


def _labels_axis(kinds: set[str]) -> str:
    of_tiles = "share of the training tiles whose labels are used"
    if kinds == {"P"}:
        return "labelled points of each class"
    return of_tiles if kinds == {"R"} else f"labelled points of each class, or {of_tiles}"


def _draw_series(ax: Axes, results: Results, metric: str) -> list[Reading]:
    scores, readings = results.scores, []
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
            readings.append(Reading(ax, x, estimate.mean, text))
    return readings


def _estimate_text(e: Estimate) -> str:
    """`0.675 (0.553 to 0.756), 2 runs`."""
    limits = f" ({number_text(e.low)} to {number_text(e.high)})" if e.has_interval else ""
    return f"{number_text(e.mean)}{limits}, {plural(e.runs, 'run')}"


def run_label(run: Run) -> str:
    """Network, start and labels of a run for legends."""
    return f"{Series.of(run).label}, {labels_text(run.budget)}"


def draw_class_iou(results: Results, runs: Sequence[Run], name: str) -> Markup:
    """IoU per class of some runs as dots, one row a class."""
    names, readings = results.classes.names, []
    with canvas(7.6, 1.2 + 0.38 * len(names) + 0.16 * len(runs)) as figure:
        ax = figure.axes[0]
        for run in runs:
            iou = results.evaluation(run).get("iou", {})
            values = [number(iou.get(n)) for n in names]
            style = {**results.styles.of(Series.of(run)), "linestyle": "none", "markersize": 8, "alpha": 0.85}
            label = plain(run_label(run))
            ax.plot(values, range(len(names)), label=label, **style)
            readings += [
                Reading(ax, value, row, f"{names[row]}: IoU {number_text(value)}, {label}")
                for row, value in enumerate(values)
                if value == value
            ]
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel("IoU")
        for tick, land_cover in zip(ax.get_yticklabels(), results.classes.classes, strict=True):
            tick.set_bbox({"facecolor": land_cover.color, "alpha": 0.25, "edgecolor": "none", "pad": 2})
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return render(figure, name, readings)


def row_shares(matrix: Matrix) -> Matrix:
    """Confusion matrix (K x K) with rows of sum 1; NaN for classes without pixels."""
    total = matrix.sum(1, keepdims=True)
    shares: Matrix = np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
    return shares


def draw_confusion(matrix: Matrix, names: Sequence[str], name: str) -> Markup:
    """Confusion matrix with rows of sum 1."""
    shares, k = row_shares(matrix), len(names)
    longest = min(max(map(len, names)), 26)
    side = min(1.0 + 0.085 * longest + 0.44 * k, 9.0)
    with canvas(side, side - 0.2) as figure:
        ax = figure.axes[0]
        ax.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
        for row, col in np.ndindex(k, k):
            if k <= _MAX_CLASSES_WITH_NUMBERS and shares[row, col] >= 0.005:
                color = "white" if shares[row, col] > 0.55 else "#222222"
                ax.text(col + 0.5, row + 0.5, f"{100 * shares[row, col]:.0f}", ha="center", va="center", color=color)
        ax.set_aspect("equal")
        ax.invert_yaxis()
        ax.set_xticks(np.arange(k) + 0.5, names, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(np.arange(k) + 0.5, names)
        ax.set_xlabel("predicted")
        ax.set_ylabel("truth")
        ax.grid(visible=False)
        return render(figure, name, _cell_readings(ax, matrix, shares, names))


def _cell_readings(ax: Axes, matrix: Matrix, shares: Matrix, names: Sequence[str]) -> list[Reading]:
    return [
        Reading(
            ax,
            col + 0.5,
            row + 0.5,
            f"{names[row]} predicted as {names[col]}: {100 * shares[row, col]:.1f} %, "
            f"{plural(int(matrix[row, col]), 'pixel')}",
        )
        for row, col in np.ndindex(matrix.shape)
        if shares[row, col] == shares[row, col]
    ]


def draw_reliability(results: Results, curves: Mapping[Run, tuple[Matrix, Matrix]], name: str) -> Markup:
    """Reliability diagram: accuracy against confidence."""
    readings = []
    with canvas(5.6, 4.6 + 0.2 * len(curves)) as figure:
        ax = figure.axes[0]
        ax.plot([0, 1], [0, 1], color="#888888", dashes=(4, 3), linewidth=1, label="perfectly calibrated")
        for run, (confidence, accuracy) in curves.items():
            label = plain(run_label(run))
            ax.plot(confidence, accuracy, label=label, **results.styles.of(Series.of(run)))
            readings += [
                Reading(ax, sure, right, f"{label}: {100 * right:.0f} % right where {100 * sure:.0f} % sure")
                for sure, right in zip(confidence, accuracy, strict=True)
            ]
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_aspect("equal")
        ax.set_xlabel("confidence of the network")
        ax.set_ylabel("share that is right")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=1)
        return render(figure, name, readings)


def curve_columns(curves: Mapping[str, pd.DataFrame]) -> list[str]:
    """Logged quantities with numbers, known ones first."""
    found = {c for table in curves.values() for c in table.columns} - {"step", "epoch"}
    columns = [c for c in CURVE_TITLES if c in found] + sorted(c for c in found if c not in CURVE_TITLES)
    return [c for c in columns if any(_is_numeric(table, c) for table in curves.values())]


def _is_numeric(table: pd.DataFrame, column: str) -> bool:
    return column in table and pd.api.types.is_numeric_dtype(table[column]) and bool(table[column].notna().any())


def draw_pretraining(curves: Mapping[str, pd.DataFrame], colors: Mapping[str, str], name: str) -> Markup:
    """Everything that pre-training logged, one small chart a quantity, one line a method."""
    columns = curve_columns(curves)
    across = min(3, max(1, len(columns)))
    down = max(1, math.ceil(len(columns) / across))
    readings = []
    with canvas(8.4, 2.1 * down + 0.4, down, across) as figure:
        for ax, column in zip(figure.axes, columns, strict=False):
            for method, table in curves.items():
                if column in table:
                    line = limit_rows(table[["step", column]].dropna(), _MAX_POINTS)
                    style: dict[str, Any] = {"color": colors[method], "markersize": 3}
                    style["marker"] = "o" if len(line) < 12 else ""
                    ax.plot(line["step"], line[column], label=plain(method), **style)
                    readings += _curve_readings(ax, line, f"{method}: {CURVE_TITLES.get(column, column)}")
            ax.set_title(CURVE_TITLES.get(column, column.replace("_", " ")), loc="left")
        for ax in figure.axes[len(columns) :]:
            ax.set_axis_off()
        for ax in figure.axes[max(0, len(columns) - across) : len(columns)]:
            ax.set_xlabel("step")
        _draw_legend(figure)
        return render(figure, name, readings)


def draw_finetuning(
    results: Results, curves: Mapping[Run, pd.DataFrame], quantity: str, title: str, name: str
) -> Markup:
    """One quantity of fine-tuning as small multiples: one row a network, one column a label budget.

    Args:
        results: The results folder.
        curves: Curves by run.
        quantity: Column of the curves.
        title: What it is, for readers.
        name: Unique on the page.
    """
    series = sorted({Series.of(run) for run in curves}, key=series_order)
    networks = list(dict.fromkeys((s.network, s.variant) for s in series))[:_MAX_NETWORKS]
    budgets = sorted({run.budget for run in curves})
    readings = []
    with canvas(8.4, 1.75 * len(networks) + 0.9, len(networks), len(budgets), share=True) as figure:
        grid = [figure.axes[i * len(budgets) : (i + 1) * len(budgets)] for i in range(len(networks))]
        for run, table in curves.items():
            if (run.network, run.variant) not in networks or quantity not in table:
                continue
            ax = grid[networks.index((run.network, run.variant))][budgets.index(run.budget)]
            line = limit_rows(table[["step", quantity]].dropna(), _MAX_FINETUNING_POINTS)
            color, start = results.styles.color(run.method), method_label(run.method)
            ax.plot(line["step"], line[quantity], color=color, linewidth=1.3, alpha=0.85, label=start)
            who = f"{network_label(run.network, run.variant)}, {start}, {labels_text(run.budget)}, {replicate(run)}"
            readings += _curve_readings(ax, line, f"{who}: {title}")
        for ax, budget in zip(grid[0], budgets, strict=True):
            ax.set_title(labels_phrase(budget), loc="left")
        for row, network in zip(grid, networks, strict=True):
            row[0].set_ylabel(network_label(*network))
        for ax in figure.axes:
            if not ax.lines:
                ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color="#777777")
        for ax in grid[-1]:
            ax.set_xlabel("step")
        _draw_legend(figure)
        return render(figure, name, readings)


def _curve_readings(ax: Axes, line: pd.DataFrame, who: str) -> list[Reading]:
    """Values of some points of a curve (two columns: step and value)."""
    points = limit_rows(line, _MAX_READINGS).itertuples(index=False)
    return [Reading(ax, step, value, f"{who} {value:.4g} at step {step:.0f}") for step, value in points]


def _draw_legend(figure: Figure) -> None:
    """One legend for all axes, each label once."""
    handles: dict[str, Any] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)


def limit_rows(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Every n-th row, at most `most`, so that a long training does not make a large page."""
    return table.iloc[:: max(1, math.ceil(len(table) / most))]
