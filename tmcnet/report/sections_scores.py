"""Sections on training and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tmcnet.config import Run
from tmcnet.report.blocks import (
    DASH,
    MINUS,
    Details,
    Heading,
    Note,
    Row,
    Section,
    Table,
    Text,
    number_text,
    percent,
    plural,
)
from tmcnet.report.figures_scores import Matrix, class_iou, confusion, label_efficiency, reliability
from tmcnet.report.figures_training import finetuning, method_colors, pretraining
from tmcnet.report.files import number
from tmcnet.report.palette import METRIC_NAMES, Series, method_label, network_label
from tmcnet.report.results import Results
from tmcnet.report.scores import METRICS, Estimate

_MOST_NAMES = 8
_MOST_COMPARISONS = 60


def pretrain(results: Results) -> Section:
    """Curves and health of pre-training."""
    section = Section("pretraining", "Pre-training")
    methods = list(results.config.pretrain.methods)
    curves = {m: c for m in methods if not (c := results.curves("pretrain", m)).empty and "step" in c}
    without = [m for m in methods if m not in curves]
    if without:
        section.blocks.append(Note(f"No curves yet for {', '.join(without)} (pretrain/<method>/curves.csv)."))
    if not curves:
        return section
    section.blocks.append(pretraining(curves, method_colors(results), "pretraining"))
    rows = []
    for method, table in curves.items():
        config = results.config.pretrain.methods[method]
        final = [_last(table, c) for c in ("loss", "effective_rank", "retrieval_optical_to_sar")]
        seconds = number(results.summary("pretrain", method).get("seconds"))
        digits = zip(final, (3, 1, 3), strict=True)
        rows.append([method, config.variant, *(number_text(v, d) for v, d in digits), number_text(seconds, 0)])
    columns = ["Method", "Variant", "Last loss", "Effective rank", "Retrieval", "Seconds"]
    caption = "Pre-training methods at their last step. Losses of different variants are not comparable."
    section.blocks.append(Table("pretraining", caption, columns, rows, frozenset({2, 3, 4, 5})))
    return section


def _last(table: pd.DataFrame, column: str) -> float:
    if column not in table or table[column].dropna().empty:
        return float("nan")
    return number(table[column].dropna().iloc[-1])


def finetune(results: Results) -> Section:
    """Curves of fine-tuning."""
    section = Section("finetuning", "Fine-tuning")
    curves = {
        r: c for r in results.config.runs if not (c := results.curves("finetune", r.name)).empty and "step" in c
    }
    without = [r.name for r in results.config.runs if r not in curves]
    if without:
        section.blocks.append(Note(f"No curves yet for {_some(without)} (finetune/<run>/curves.csv)."))
    if not curves:
        return section
    section.blocks.append(finetuning(results, curves, "loss", "finetuning_loss"))
    if any("val_miou" in c for c in curves.values()):
        section.blocks.append(finetuning(results, curves, "val_miou", "finetuning_val_miou"))
    section.blocks.append(
        Text("The weights kept are those with the best score on the validation part, never on the test part.")
    )
    return section


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def scores(results: Results) -> Section:
    """Scores of all runs against the label fraction, and paired differences."""
    section = Section("scores", "Scores")
    if results.missing:
        names = _some([r.name for r in results.missing])
        section.blocks.append(Note(f"{plural(len(results.missing), 'run')} without scores: {names}."))
    if results.scores.table.empty:
        section.blocks.append(Note("The scores (metrics.csv) are missing: run the stage “evaluate”."))
        return section
    shown = [metric for metric in METRICS if metric in results.scores.table]
    section.blocks.append(label_efficiency(results, shown, "label_efficiency"))
    section.blocks.append(_score_table(results))
    section.blocks.append(Heading("Paired differences"))
    section.blocks.append(_comparison_table(results))
    section.blocks.append(
        Text(
            "Each difference compares the same test tiles under the same seeds. A difference is called reliable "
            "where its interval excludes 0 and its p-value, corrected for the number of comparisons (Holm), is small "
            "enough."
        )
    )
    return section


def _score_table(results: Results) -> Table:
    rows, frame = [], []
    for series in results.scores.series:
        for fraction in results.scores.fractions:
            known = {m: e for m in (*METRICS, "ece") if (e := results.scores.estimate(series, fraction, m))}
            if not known:
                continue
            head = [network_label(series.network, series.variant), method_label(series.method), percent(fraction)]
            count = max(e.seeds for e in known.values())
            rows.append([*head, str(count), *(_estimate_text(known.get(m)) for m in (*METRICS, "ece"))])
            frame.append(
                {
                    **series.__dict__,
                    "fraction": fraction,
                    "seeds": count,
                    **{f"{m}_{k}": getattr(e, k) for m, e in known.items() for k in ("mean", "low", "high")},
                }
            )
    names = [METRIC_NAMES[m] for m in (*METRICS, "ece")]
    caption = f"Means over seeds with {results.config.evaluate.confidence * 100:g} % intervals, on the test part."
    columns = ["Network", "Start", "Labels", "Seeds", *names]
    return Table("scores", caption, columns, rows, frozenset(range(2, 9)), heads=3, frame=pd.DataFrame(frame))


def _estimate_text(estimate: Estimate | None) -> str:
    if estimate is None:
        return DASH
    if estimate.low != estimate.low:
        return number_text(estimate.mean)
    return f"{number_text(estimate.mean)}\n{number_text(estimate.low)}{DASH}{number_text(estimate.high)}"


def _comparison_table(results: Results) -> Table | Note:
    found = [c for c in results.scores.comparisons if c.metric == results.config.report.metric]
    if not found:
        return Note("No paired differences were computed (comparisons.csv).")
    shown = found[:_MOST_COMPARISONS]
    rows = [
        [
            c.a.label,
            c.b.label,
            percent(c.fraction),
            number_text(c.difference, sign=True),
            f"{number_text(c.low, sign=True)} to {number_text(c.high, sign=True)}",
            number_text(c.p),
            str(c.seeds or DASH),
            "reliable" if c.reliable else "not reliable",
        ]
        for c in shown
    ]
    level = f"{results.config.evaluate.confidence * 100:g} % interval"
    columns = ["A", "B", "Labels", f"A {MINUS} B", level, "p (Holm)", "Seeds", "Verdict"]
    caption = (
        f"Paired differences in {METRIC_NAMES[results.config.report.metric]}; tables/comparisons.csv has all metrics."
    )
    frame = pd.DataFrame([{**c.__dict__, "a": c.a.key, "b": c.b.key} for c in results.scores.comparisons])
    return Table("comparisons", caption, columns, rows, frozenset({2, 3, 4, 5, 6}), heads=2, frame=frame)


def classes(results: Results) -> Section:
    """Scores per class and confusion matrices."""
    section = Section("classes", "Classes")
    best = best_runs(results)
    if not best:
        section.blocks.append(Note("No run was evaluated yet (evaluate/<run>/metrics.json)."))
        return section
    section.blocks.append(class_iou(results, best, "class_iou"))
    section.blocks.append(_class_table(results, best))
    section.blocks.append(Heading("Confusion matrices"))
    charts = []
    for run in best:
        matrix = np.array(results.evaluation(run).get("confusion", []), float)
        if matrix.shape == (len(results.classes),) * 2:
            charts.append(confusion(matrix, results.classes, run, f"confusion_{run.network}_{run.variant}"))
    section.blocks.append(Row(charts))
    return section


def best_runs(results: Results) -> list[Run]:
    """The best evaluated run of each network at its largest fraction."""
    metric = results.config.report.metric
    return [run for run in results.scores.best(metric).values() if results.evaluation(run)]


def _class_table(results: Results, runs: list[Run]) -> Table:
    heads = [f"{network_label(r.network, r.variant)}, {method_label(r.method)}, {percent(r.fraction)}" for r in runs]
    records = [results.evaluation(r).get("iou", {}) for r in runs]
    rows = [[n, *(number_text(number(r.get(n))) for r in records)] for n in results.classes.names]
    frame = pd.DataFrame(
        [
            {"class": n, **{run.name: number(r.get(n)) for run, r in zip(runs, records, strict=True)}}
            for n in results.classes.names
        ]
    )
    numeric = frozenset(range(1, len(runs) + 1))
    return Table("class_iou", "IoU per class of the same runs.", ["Class", *heads], rows, numeric, frame=frame)


def calibration(results: Results) -> Section:
    """How far the networks' confidence can be believed."""
    section = Section("calibration", "Calibration")
    curves = {r: c for r in best_runs(results) if (c := _calibration_curve(results.evaluation(r).get("calibration")))}
    if not curves:
        section.blocks.append(Note("No run has a calibration record (evaluate/<run>/metrics.json)."))
        return section
    section.blocks.append(reliability(results, curves, "reliability"))
    rows = []
    for run in curves:
        record = results.evaluation(run)
        scaled = record["calibration"].get("scaled", {})
        errors = [number_text(number(e)) for e in (record.get("ece"), scaled.get("ece"))]
        rows.append([Series(run.network, run.variant, run.method).label, percent(run.fraction), *errors])
    caption = (
        "Expected calibration error (ECE): the mean gap between confidence and accuracy; 0 is perfect. “Scaled” is "
        "after dividing the logits by a temperature fitted on the validation part."
    )
    columns = ["Run", "Labels", "ECE", "ECE, scaled"]
    section.blocks.append(Table("calibration", caption, columns, rows, frozenset({1, 2, 3})))
    return section


def _calibration_curve(record: Any) -> tuple[Matrix, Matrix] | None:  # noqa: ANN401 - JSON may hold anything
    """Mean confidence and accuracy of the bins that hold pixels."""
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


def runs_table(results: Results) -> Details | None:
    """All runs with their plain scores, folded away."""
    table = results.scores.table
    if table.empty:
        return None
    columns = ["network", "variant", "method", "fraction", "seed", *[m for m in (*METRICS, "ece") if m in table]]
    text = table[columns].to_string(index=False, float_format=lambda v: f"{v:.4g}")
    return Details(f"All {plural(len(table), 'run')}", text)
