"""Charts of training: pre-training curves and health, fine-tuning curves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from tmcnet.config import Run
from tmcnet.report.blocks import Figure, labels_phrase, labels_text, replicate
from tmcnet.report.palette import OKABE_ITO, Series, method_label, network_label, series_order
from tmcnet.report.results import Results
from tmcnet.report.svg import Reading, canvas, plain, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLES = {
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
_LONGEST = 400
_MOST_READINGS = 25
"""Points of a line whose values the page tells."""


def pretraining(curves: dict[str, pd.DataFrame], colors: dict[str, str], name: str) -> Figure:
    """Everything that was logged in pre-training, one small chart a quantity, one line a method."""
    found = {c for table in curves.values() for c in table.columns} - {"step", "epoch"}
    columns = [c for c in TITLES if c in found] + sorted(c for c in found if c not in TITLES)
    columns = [c for c in columns if any(_is_numeric(t, c) for t in curves.values())]
    across = min(3, max(1, len(columns)))
    down = max(1, math.ceil(len(columns) / across))
    readings = []
    with canvas(8.4, 2.1 * down + 0.4, down, across) as figure:
        for ax, column in zip(figure.axes, columns, strict=False):
            for method, table in curves.items():
                if column in table:
                    line = thin(table[["step", column]].dropna())
                    mark = "o" if len(line) < 12 else ""
                    ax.plot(
                        line["step"],
                        line[column],
                        color=colors[method],
                        marker=mark,
                        markersize=3,
                        label=plain(method),
                    )
                    readings += _along(ax, line, column, f"{method}: {TITLES.get(column, column)}")
            ax.set_title(TITLES.get(column, column.replace("_", " ")), loc="left")
        for ax in figure.axes[len(columns) :]:
            ax.set_axis_off()
        for ax in figure.axes[max(0, len(columns) - across) : len(columns)]:
            ax.set_xlabel("step")
        _legend(figure)
        svg = render(figure, name, readings)
    caption = (
        "Pre-training by step. An effective rank that falls towards 1 would mean that the embeddings collapse; "
        "retrieval is the share of places whose other view, or whose image by the other sensor, is the nearest."
    )
    return Figure(name, svg, caption, f"Small line charts of {', '.join(columns)} by step for {', '.join(curves)}.")


def _along(ax: Axes, line: pd.DataFrame, column: str, who: str) -> list[Reading]:
    """What some points of a line by step say."""
    points = thin(line, _MOST_READINGS)
    return [
        Reading(ax, step, value, f"{who} {value:.4g} at step {step:.0f}")
        for step, value in zip(points["step"], points[column], strict=True)
    ]


def _legend(figure: Canvas) -> None:
    """One legend for all axes, each label once."""
    handles: dict[str, Any] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)


def _is_numeric(table: pd.DataFrame, column: str) -> bool:
    return column in table and pd.api.types.is_numeric_dtype(table[column]) and bool(table[column].notna().any())


def thin(table: pd.DataFrame, most: int = _LONGEST) -> pd.DataFrame:
    """Every n-th row, so that a long training does not make a heavy page."""
    return table.iloc[:: max(1, math.ceil(len(table) / most))]


def finetuning(results: Results, curves: dict[Run, pd.DataFrame], quantity: str, name: str) -> Figure:
    """One quantity of fine-tuning as small multiples: a chart a network, a panel column a label budget."""
    series = sorted({Series(r.network, r.variant, r.method) for r in curves}, key=series_order)
    networks = list(dict.fromkeys((s.network, s.variant) for s in series))
    budgets = sorted({r.budget for r in curves})
    shown = networks[:8]
    what = {"loss": "training loss", "val_miou": "mIoU on the validation part"}.get(quantity, quantity)
    readings = []
    with canvas(8.4, 1.75 * len(shown) + 0.9, len(shown), len(budgets), share=True) as figure:
        grid = [figure.axes[i * len(budgets) : (i + 1) * len(budgets)] for i in range(len(shown))]
        for run, table in curves.items():
            if (run.network, run.variant) not in shown or quantity not in table:
                continue
            ax = grid[shown.index((run.network, run.variant))][budgets.index(run.budget)]
            line = thin(table[["step", quantity]].dropna(), 120)
            color = results.styles.color(run.method)
            ax.plot(
                line["step"], line[quantity], color=color, linewidth=1.3, alpha=0.85, label=method_label(run.method)
            )
            who = f"{network_label(run.network, run.variant)}, {method_label(run.method)}, {labels_text(run.budget)}"
            readings += _along(ax, line, quantity, f"{who}, {replicate(run)}: {what}")
        for ax, budget in zip(grid[0], budgets, strict=True):
            ax.set_title(labels_phrase(budget), loc="left")
        for row, network in zip(grid, shown, strict=True):
            row[0].set_ylabel(network_label(*network))
        for ax in figure.axes:
            if not ax.lines:
                ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color="#777777")
        for ax in grid[-1]:
            ax.set_xlabel("step")
        _legend(figure)
        svg = render(figure, name, readings)
    caption = f"Fine-tuning: {what} by step, one line a seed, coloured by the start."
    return Figure(name, svg, caption, caption)


def method_colors(results: Results) -> dict[str, str]:
    """Colour per pre-training method; those that no run started from get what is left."""
    methods = list(results.config.pretrain.methods)
    used = {s.method for s in results.scores.series}
    spare = iter(OKABE_ITO[len(used) :] + OKABE_ITO)
    return {m: results.styles.color(m) if m in used else next(spare) for m in methods}
