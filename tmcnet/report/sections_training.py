"""Numbers, charts and tables of the sections on pre-training (with the best start) and fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from scipy.stats import ttest_rel

from tmcnet.config import RANDOM_START, Budget, Run
from tmcnet.config.training import has_start, is_classifier, self_training_round
from tmcnet.readers import number
from tmcnet.report.charts import Chart, add_legend, canvas, plain, render
from tmcnet.report.names import (
    Series,
    labels_phrase,
    labels_text,
    method_label,
    network_label,
    replicate,
    series_order,
)
from tmcnet.report.results import Results
from tmcnet.report.scores import MIN_RUNS

MIN_EFFECTIVE_RANK = 2.0
"""Effective rank below which embeddings may have collapsed to one direction."""
PROBE = "miou"
CURVE_TITLES = {
    "loss": "loss",
    "loss_global": "global loss",
    "loss_local": "local loss",
    "loss_reconstruction": "reconstruction loss",
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
_HEALTH = ("loss", "effective_rank", "alignment", "uniformity", "retrieval_optical_to_sar", "probe_miou")
_MAX_POINTS = 400
_MAX_FINETUNING_POINTS = 120
_MAX_READINGS = 25
"""Points of a curve with tooltips."""
_MAX_NETWORKS = 8


def pretraining(results: Results) -> dict[str, Any]:
    """Curves and health of pre-training, and the best start."""
    methods = list(results.config.pretrain.methods)
    curves = {m: c for m in methods if not (c := results.curves("pretrain", m)).empty}
    section: dict[str, Any] = {
        "without_curves": [m for m in methods if m not in curves],
        "methods": list(curves),
        "figures": {},
        "tables": {},
    }
    if not curves:
        return section
    table, starts = _health(results, curves), best_start(results)
    colors = results.styles.of_methods(methods)
    return section | {
        "figures": {"pretraining": _draw_pretraining(curves, colors)},
        "tables": {"pretraining": table, **({"starts": starts["table"]} if starts else {})},
        "quantities": _quantities(curves),
        "collapsed": list(table["name"][table["effective_rank"] < MIN_EFFECTIVE_RANK]),
        "min_effective_rank": MIN_EFFECTIVE_RANK,
        "starts": starts,
    }


def _health(results: Results, curves: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Last value of each measure of health, by pre-training."""
    rows = []
    for name, table in curves.items():
        config = results.config.pretrain.methods[name]
        last = {column: _last(table, column) for column in _HEALTH}
        seconds = number(results.summary("pretrain", name).get("seconds"))
        rows.append({"name": name, "method": config.method, "variant": config.variant, **last, "seconds": seconds})
    return pd.DataFrame(rows)


def _last(table: pd.DataFrame, column: str) -> float:
    values = list(table[column].dropna()) if column in table else []
    return number(values[-1]) if values else float("nan")


def _quantities(curves: Mapping[str, pd.DataFrame]) -> list[str]:
    """Logged quantities with numbers, known ones first."""
    found = {
        column
        for table in curves.values()
        for column in table.select_dtypes("number").dropna(axis="columns", how="all").columns.drop("step")
        if column != "epoch"
    }
    return [c for c in CURVE_TITLES if c in found] + sorted(found - CURVE_TITLES.keys())


def _draw_pretraining(curves: Mapping[str, pd.DataFrame], colors: Mapping[str, str]) -> Markup:
    """Everything that pre-training logged, one small chart a quantity, one line a method."""
    columns = _quantities(curves)
    across = min(3, max(1, len(columns)))
    down = max(1, math.ceil(len(columns) / across))
    with canvas(8.4, 2.1 * down + 0.4, down, across) as figure:
        for ax, column in zip(figure.axes, columns, strict=False):
            title = CURVE_TITLES.get(column, column.replace("_", " "))
            for method, table in curves.items():
                if column in table:
                    line = limit_rows(table[["step", column]].dropna(), _MAX_POINTS)
                    style: dict[str, Any] = {
                        "color": colors[method],
                        "markersize": 3,
                        "marker": "o" if len(line) < 12 else "",
                    }
                    ax.plot(line["step"], line[column], label=plain(method), **style)
                    _read_curve(figure, ax, line, f"{method}: {title}")
            ax.set_title(title, loc="left")
        for ax in figure.axes[len(columns) :]:
            ax.set_axis_off()
        for ax in figure.axes[max(0, len(columns) - across) : len(columns)]:
            ax.set_xlabel("step")
        add_legend(figure, 3)
        return render(figure, "pretraining")


def _read_curve(figure: Chart, ax: Axes, line: pd.DataFrame, who: str) -> None:
    """Add the values of some points of a curve (two columns: step and value)."""
    for step, value in limit_rows(line, _MAX_READINGS).itertuples(index=False):
        figure.read(ax, step, value, f"{who} {value:.4g} at step {step:.0f}")


def limit_rows(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Every n-th row, at most `most`, so that a long training does not make a large page."""
    return table.iloc[:: max(1, math.ceil(len(table) / most))]


def finetuning(results: Results) -> dict[str, Any]:
    """Curves of fine-tuning."""
    curves = {r: c for r in results.config.runs if not (c := results.curves("finetune", r.name)).empty}
    trained = {run: curve for run, curve in curves.items() if not is_classifier(run.network) and not run.members}
    titles = {"loss": "training loss", "val_miou": "mIoU on the validation part"}
    shown = {q: title for q, title in titles.items() if any(q in c for c in trained.values())}
    taught = _self_training(results)
    return {
        "keep": results.config.finetune.keep,
        "without_curves": [run.name for run in results.config.runs if run not in curves],
        "curves": len(curves),
        "charts": {f"finetuning_{q}": title for q, title in shown.items()},
        "figures": {
            f"finetuning_{q}": _draw_finetuning(results, trained, q, title, f"finetuning_{q}")
            for q, title in shown.items()
        },
        "metric": results.metric,
        "taught": taught,
        "tables": {} if taught.empty else {"self_training": taught},
    }


def _self_training(results: Results) -> pd.DataFrame:
    """What teachers gave their students, and the scores of both on the validation part: means over draws and seeds.

    `drift` is the largest difference of a class between its share of the labels and of the pixels that the teacher
    labelled, and `drifting` names the class.
    """
    found: dict[tuple[Series, Budget, Series], list[dict[str, Any]]] = {}
    for run in results.config.runs:
        about, teacher = results.summary("finetune", run.name), results.config.finetune.teacher_of(run)
        taught = about.get("self_training")
        if teacher is None or not isinstance(taught, dict):
            continue
        summaries = {"score": about, "teacher_score": results.summary("finetune", teacher.name)}
        scores = {name: number(s.get("validation", {}).get(results.metric)) for name, s in summaries.items()}
        drift = {name: shares["given"] - shares["labelled"] for name, shares in taught["classes"].items()}
        key = Series.of(run), run.budget, Series.of(teacher)
        found.setdefault(key, []).append({"tiles": taught["tiles"], "used": taught["used"], **scores, "drift": drift})
    rows = []
    for (student, budget, teaching), runs in found.items():
        drifts = pd.DataFrame([run.pop("drift") for run in runs]).mean()
        most = str(drifts.abs().idxmax())
        names = {"student": student.label, "budget": budget.name, "teacher": teaching.in_sentence, "runs": len(runs)}
        rows.append({**names, **pd.DataFrame(runs).mean(), "drifting": most, "drift": float(drifts[most])})
    return pd.DataFrame(rows)


def _draw_finetuning(
    results: Results, curves: Mapping[Run, pd.DataFrame], quantity: str, title: str, name: str
) -> Markup:
    """One column of the curves as small multiples: one row a network, one column a label budget."""
    series = sorted({Series.of(run) for run in curves}, key=series_order)
    networks = list(dict.fromkeys((s.network, s.variant) for s in series))[:_MAX_NETWORKS]
    budgets = sorted({run.budget for run in curves})
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
            _read_curve(figure, ax, line, f"{who}: {title}")
        for ax, budget in zip(grid[0], budgets, strict=True):
            ax.set_title(labels_phrase(budget), loc="left")
        for row, network in zip(grid, networks, strict=True):
            row[0].set_ylabel(network_label(*network))
        for ax in figure.axes:
            if not ax.lines:
                ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color="#777777")
        for ax in grid[-1]:
            ax.set_xlabel("step")
        add_legend(figure, 3)
        return render(figure, name)


def best_start(results: Results) -> dict[str, Any]:
    """Which start is best on the validation part: after fine-tuning, and by the probe of frozen features.

    Returns:
        `table`: all measurements. `tuned`: the best pre-training after fine-tuning with the fewest labels, or None.
        `probe`: the best by the probe, or None. Empty where neither compares anything.
    """
    network, scores = _validation(results)
    methods = list(results.config.pretrain.methods)
    last = {method: _last(results.curves("pretrain", method), f"probe_{PROBE}") for method in methods}
    probed = {method: value for method, value in last.items() if value == value}
    tuned = _best_tuned(results, scores)
    probe = None
    if len(probed) > 1:
        probe = {"best": max(probed, key=lambda m: probed[m]), "first": methods[0], "values": probed}
    if not tuned and not probe:
        return {}
    return {
        "network": network,
        "metric": results.metric,
        "probe_metric": PROBE,
        "budgets": list(scores),
        "tuned": tuned,
        "probe": probe,
        "table": _start_table(methods, scores, probed),
    }


def _validation(results: Results) -> tuple[str, dict[Budget, pd.DataFrame]]:
    """Name of the network with the most starts, and its validation scores by label budget.

    A row of a table is a draw of the labels and a seed, a column a start; NaN where not run.
    """
    found: dict[Series, list[tuple[Budget, str, tuple[int, int], float]]] = {}
    for run in results.config.runs:
        record = results.summary("finetune", run.name).get("validation")
        score = number(record.get(results.metric)) if isinstance(record, dict) else float("nan")
        if has_start(run.network) and not run.members and not self_training_round(run.method) and score == score:
            row = (run.budget, run.method, (run.draw, run.seed), score)
            found.setdefault(Series(run.network, run.variant, ""), []).append(row)
    if not found:
        return "", {}
    most = max(sorted(found, key=series_order), key=lambda series: len({start for _, start, _, _ in found[series]}))
    table = pd.DataFrame(found[most], columns=["budget", "start", "replicate", "score"])
    scores = table.pivot_table("score", index="replicate", columns=["budget", "start"])
    budgets = sorted({row[0] for row in found[most]})
    return most.network_label, {budget: pd.DataFrame(scores[budget]).dropna(how="all") for budget in budgets}


def _best_tuned(results: Results, scores: Mapping[Budget, pd.DataFrame]) -> dict[str, Any] | None:
    """The best pre-training and its rival, with the fewest labels that have a pre-training and another start.

    Whether runs with the same labels and seed distinguish the two is `few`, `within` or `beyond` chance, by a paired
    t test with Bonferroni's correction for picking the best of several.
    """
    budget = next((b for b, found in scores.items() if found.shape[1] > 1), None)
    if budget is None:
        return None
    found = scores[budget]
    means = found.mean()
    trained = means.drop(RANDOM_START, errors="ignore")
    best, first = str(trained.idxmax()), next(iter(results.config.pretrain.methods), "")
    others = (trained if len(trained) > 1 else means).drop(best)
    rival = first if first in others else str(others.idxmax())
    paired = found[[best, rival]].dropna()
    chance = "few"
    if len(paired) >= MIN_RUNS:
        p = ttest_rel(paired[best], paired[rival]).pvalue * len(others)
        chance = "beyond" if p < 1 - results.config.evaluate.confidence else "within"
    return {
        "budget": budget,
        "best": best,
        "rival": rival,
        "compared": len(trained),
        "is_first": best == first,
        "means": means.to_dict(),
        "runs": found.count().to_dict(),
        "pairs": len(paired),
        "chance": chance,
    }


def _start_table(
    methods: list[str], scores: Mapping[Budget, pd.DataFrame], probed: Mapping[str, float]
) -> pd.DataFrame:
    """Probe, and mean and number of runs with each label budget, by start."""
    known = {*probed, *(str(start) for found in scores.values() for start in found)}
    starts = [*methods, *sorted(known - {*methods, RANDOM_START}), RANDOM_START]
    table = pd.DataFrame({"start": [start for start in starts if start in known]})
    table["probe"] = table["start"].map(probed)
    for budget, found in scores.items():
        table[budget.name] = table["start"].map(found.mean())
    for budget, found in scores.items():
        table[f"{budget.name}_runs"] = table["start"].map(found.count()).fillna(0).astype(int)
    return table
