"""Charts of scores: label efficiency, classes, confusion, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tmcnet.classes import ClassTable
from tmcnet.config import Run
from tmcnet.report.blocks import Figure, labels_phrase, labels_text, number_text, plural, replicate, sentence_case
from tmcnet.report.palette import METRIC_LONG, METRIC_NAMES, Series
from tmcnet.report.results import Results
from tmcnet.report.scores import Estimate
from tmcnet.report.svg import Reading, canvas, plain, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Matrix = npt.NDArray[np.float64]


def label_efficiency(results: Results, metric: str, name: str) -> Figure:
    """One score against the labels used, one line a network and start, with known intervals."""
    with canvas(7.6, 3.6 + 0.13 * len(results.scores.series)) as figure:
        ax = figure.axes[0]
        readings = _efficiency_panel(ax, results, metric)
        ax.set_xlabel(_labels_axis(results))
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        svg = render(figure, name, readings)
    return Figure(name, svg, _efficiency_caption(results, metric), _efficiency_alt(results, metric))


def _labels_axis(results: Results) -> str:
    of_tiles = "share of the training tiles whose labels are used"
    kinds = {budget.kind for budget in results.scores.budgets}
    if kinds == {"P"}:
        return "labelled points of each class"
    return of_tiles if kinds == {"R"} else f"labelled points of each class, or {of_tiles}"


def _efficiency_panel(ax: Axes, results: Results, metric: str) -> list[Reading]:
    scores, readings = results.scores, []
    positions = {budget: i for i, budget in enumerate(scores.budgets)}
    spread = 0.3 / max(len(scores.series) - 1, 1)
    for rank, series in enumerate(scores.series):
        known = [(f, e) for f in scores.budgets if (e := scores.estimate(series, f, metric))]
        shift = (rank - (len(scores.series) - 1) / 2) * spread
        places = [positions[f] + shift for f, _ in known]
        _line(ax, places, [e for _, e in known], results.styles.of(series), series)
        for x, (budget, estimate) in zip(places, known, strict=True):
            text = f"{series.label}, {labels_text(budget)}: {METRIC_NAMES[metric]} {_in_words(estimate)}"
            readings.append(Reading(ax, x, estimate.mean, text))
    if metric == "oa" and results.majority:
        ax.axhline(results.majority[1], color="#444444", dashes=(6, 3), linewidth=1.2)
        text = f"always “{results.majority[0]}”"
        ax.annotate(text, (-0.25, results.majority[1]), xytext=(0, 3), textcoords="offset points", fontsize=9)
    ax.set_xticks(list(positions.values()), [labels_text(f) for f in positions])
    ax.set_xlim(-0.35, len(positions) - 0.65)
    ax.set_ylabel(METRIC_NAMES[metric])
    ax.grid(axis="x", visible=False)
    return readings


def _in_words(estimate: Estimate) -> str:
    """`0.675 (0.553 to 0.756), 2 runs`."""
    limits = f" ({number_text(estimate.low)} to {number_text(estimate.high)})" if estimate.low == estimate.low else ""
    return f"{number_text(estimate.mean)}{limits}, {plural(estimate.runs, 'run')}"


def _line(ax: Axes, x: list[float], estimates: list[Estimate], style: dict[str, Any], series: Series) -> None:
    mean = np.array([e.mean for e in estimates])
    low, high = (np.array([getattr(e, side) for e in estimates]) for side in ("low", "high"))
    ax.plot(x, mean, label=plain(series.label), markeredgecolor="white", markeredgewidth=0.7, **style)
    ax.vlines(x, low, high, color=style["color"], linewidth=1.3, alpha=0.8)


def _efficiency_caption(results: Results, metric: str) -> str:
    level = f"{results.config.evaluate.confidence * 100:g} %"
    what = sentence_case(METRIC_LONG[metric])
    text = f"{what} on the test part against the labels used: means over runs"
    text += "." if metric == "ece" else f"; bars are {level} intervals."
    if metric == "oa" and results.majority:
        name, share = results.majority
        text += f" The dashed line is what always guessing the commonest class, {name}, would score ({share:.3f})."
    return text


def _efficiency_alt(results: Results, metric: str) -> str:
    text = [f"Line chart of {METRIC_NAMES[metric]} against the labels used."]
    for series in results.scores.series:
        known = [(f, e) for f in results.scores.budgets if (e := results.scores.estimate(series, f, metric))]
        means = ", ".join(f"{number_text(e.mean)} with {labels_text(f)}" for f, e in known)
        text.append(f"{series.label}: {means}.")
    return " ".join(text)


def class_iou(results: Results, runs: list[Run], name: str) -> Figure:
    """IoU per class of the best runs as dots, one row a class."""
    names, readings = results.classes.names, []
    with canvas(7.6, 1.2 + 0.38 * len(names) + 0.16 * len(runs)) as figure:
        ax = figure.axes[0]
        for run in runs:
            series = Series(run.network, run.variant, run.method)
            iou = results.evaluation(run).get("iou", {})
            style = {**results.styles.of(series), "linestyle": "none"}
            label = plain(f"{series.label}, {labels_text(run.budget)}")
            values = [_or_nan(iou.get(n)) for n in names]
            ax.plot(values, range(len(names)), label=label, markersize=8, alpha=0.85, **style)
            told = [
                (v, row, f"{names[row]}: IoU {number_text(v)}, {label}") for row, v in enumerate(values) if v == v
            ]
            readings += [Reading(ax, *one) for one in told]
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel("IoU")
        for tick, land_cover in zip(ax.get_yticklabels(), results.classes.classes, strict=True):
            tick.set_bbox({"facecolor": land_cover.color, "alpha": 0.25, "edgecolor": "none", "pad": 2})
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        svg = render(figure, name, readings)
    caption = "Intersection over union per class: the best run of each network with the most labels it was run with."
    return Figure(name, svg, caption, f"{caption} The table below has the numbers.")


def _or_nan(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def confusion(matrix: Matrix, classes: ClassTable, run: Run, name: str) -> Figure:
    """Confusion matrix with rows summing to one."""
    total = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
    k = len(classes)
    longest = min(max(len(n) for n in classes.names), 26)
    side = min(1.0 + 0.085 * longest + 0.44 * k, 9.0)
    with canvas(side, side - 0.2) as figure:
        ax = figure.axes[0]
        ax.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
        for row, col in np.ndindex(k, k):
            if k <= 15 and shares[row, col] >= 0.005:
                color = "white" if shares[row, col] > 0.55 else "#222222"
                ax.text(col + 0.5, row + 0.5, f"{100 * shares[row, col]:.0f}", ha="center", va="center", color=color)
        ax.set_aspect("equal")
        ax.invert_yaxis()
        ax.set_xticks(np.arange(k) + 0.5, classes.names, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(np.arange(k) + 0.5, classes.names)
        ax.set_xlabel("predicted")
        ax.set_ylabel("truth")
        ax.grid(visible=False)
        svg = render(figure, name, _cells(ax, matrix, shares, classes.names))
    who = f"{Series(run.network, run.variant, run.method).label}, {labels_phrase(run.budget)}"
    right = ", ".join(f"{n} {100 * d:.0f} %" for n, d in zip(classes.names, np.diag(shares), strict=True) if d == d)
    caption = f"{who}, {replicate(run)}: of each true class (row), the percentage predicted as each class."
    return Figure(name, svg, caption, f"Confusion matrix of {who}. Found again: {right}.")


def _cells(ax: Axes, matrix: Matrix, shares: Matrix, names: Sequence[str]) -> list[Reading]:
    """Of each true class that is there at all, what it was predicted as."""
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


def reliability(results: Results, curves: dict[Run, tuple[Matrix, Matrix]], name: str) -> Figure:
    """Reliability diagram: how often a prediction is right against how sure it was."""
    readings = []
    with canvas(5.6, 4.6 + 0.2 * len(curves)) as figure:
        ax = figure.axes[0]
        ax.plot([0, 1], [0, 1], color="#888888", dashes=(4, 3), linewidth=1, label="perfectly calibrated")
        for run, (confidence, accuracy) in curves.items():
            series = Series(run.network, run.variant, run.method)
            label = plain(f"{series.label}, {labels_text(run.budget)}")
            ax.plot(confidence, accuracy, label=label, **results.styles.of(series))
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
        svg = render(figure, name, readings)
    caption = (
        "Calibration of the same runs: below the diagonal a network is surer than it should be, above it less sure."
    )
    return Figure(name, svg, caption, f"Reliability diagram. {caption}")
