"""Sections on training and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tmcnet.config import PIXELWISE, Run
from tmcnet.report import tables_scores
from tmcnet.report.blocks import (
    DASH,
    Details,
    Heading,
    Note,
    Row,
    Section,
    Switch,
    Table,
    Text,
    labels_text,
    number_text,
    plural,
    replicate,
)
from tmcnet.report.figures_scores import Matrix, class_iou, confusion, label_efficiency, reliability
from tmcnet.report.figures_training import finetuning, method_colors, pretraining
from tmcnet.report.files import number
from tmcnet.report.palette import METRIC_NAMES, Series
from tmcnet.report.results import Results
from tmcnet.report.scores import METRICS, PLAIN_METRICS
from tmcnet.report.starts import best_start

_MOST_NAMES = 8
_COLLAPSED = 2.0
"""Effective rank below which embeddings hold hardly more than one direction."""
_HEALTH = (
    ("loss", "Last loss", 3),
    ("effective_rank", "Effective rank", 1),
    ("alignment", "Alignment", 3),
    ("uniformity", "Uniformity", 3),
    ("retrieval_optical_to_sar", "Retrieval, optical to SAR", 3),
    ("probe_miou", "Probe, mIoU", 3),
)


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
    collapsed = [m for m, table in curves.items() if _last(table, "effective_rank") < _COLLAPSED]
    if collapsed:
        text = f"The embeddings of {', '.join(collapsed)} may have collapsed: their effective rank ended below"
        section.blocks.append(Note(f"{text} {_COLLAPSED:g}.", "caution"))
    section.blocks.append(_pretraining_table(results, curves))
    section.blocks += best_start(results)
    return section


def _pretraining_table(results: Results, curves: dict[str, pd.DataFrame]) -> Table:
    rows = []
    for method, table in curves.items():
        config = results.config.pretrain.methods[method]
        final = [number_text(_last(table, column), digits) for column, _, digits in _HEALTH]
        seconds = number(results.summary("pretrain", method).get("seconds"))
        rows.append([method, config.method, config.variant, *final, number_text(seconds, 0)])
    columns = ["Name", "Method", "Variant", *(title for _, title, _ in _HEALTH), "Seconds"]
    caption = "Pre-training at its last step. Losses of different methods or variants are not comparable."
    return Table("pretraining", caption, columns, rows, frozenset(range(3, len(columns))))


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
    trained = {run: curve for run, curve in curves.items() if run.network not in PIXELWISE}
    if trained:
        section.blocks.append(finetuning(results, trained, "loss", "finetuning_loss"))
    if any("val_miou" in c for c in trained.values()):
        section.blocks.append(finetuning(results, trained, "val_miou", "finetuning_val_miou"))
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
        reasons = {r.name: results.reason(r) for r in results.missing}
        names = _some([f"{name} ({reason})" if reason else name for name, reason in reasons.items()])
        section.blocks.append(Note(f"{plural(len(results.missing), 'run')} without scores: {names}."))
    if results.scores.table.empty:
        section.blocks.append(Note("The scores (metrics.csv) are missing: run the stage “evaluate”."))
        return section
    section.blocks.append(_efficiency(results))
    if results.config.splits.folds:
        section.blocks.append(
            Text(
                f"All scores are of {results.config.splits.folds} folds together: each labelled tile was predicted "
                "once, by a network that had seen nothing of its block. Curves and maps are those of one fold."
            )
        )
    section.blocks += tables_scores.score_table(results)
    section.blocks += tables_scores.withheld_table(results)
    section.blocks += tables_scores.comparison_table(results)
    return section


def _efficiency(results: Results) -> Switch:
    """The label-efficiency chart of every metric that was scored, the one of the headline first."""
    table, headline = results.scores.table, results.config.report.metric
    shown = [m for m in (*METRICS, *PLAIN_METRICS) if m in table and table[m].notna().any()]
    panels = [(METRIC_NAMES[m], label_efficiency(results, m, f"label_efficiency_{m}")) for m in shown]
    return Switch("metric", "Score against labels used", panels, shown.index(headline) if headline in shown else 0)


def classes(results: Results) -> Section:
    """Scores per class and confusion matrices."""
    section = Section("classes", "Classes")
    best = best_runs(results)
    if not best:
        section.blocks.append(Note("No run was evaluated yet (evaluate/<run>/metrics.json)."))
        return section
    section.blocks.append(class_iou(results, best, "class_iou"))
    section.blocks.append(_class_table(results, best))
    section.blocks.append(_best_class_table(results, max(best, key=lambda run: _score(results, run))))
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
    heads = [f"{Series(r.network, r.variant, r.method).label}, {labels_text(r.budget)}" for r in runs]
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


def _score(results: Results, run: Run) -> float:
    return float(np.nan_to_num(number(results.evaluation(run).get(results.config.report.metric)), nan=-1.0))


def _best_class_table(results: Results, run: Run) -> Table:
    """All scores per class of one run, and how many pixels they rest on."""
    record = results.evaluation(run)
    boundary = record.get("boundary") or {}
    scores = {
        "Precision": record.get("precision", {}),
        "Recall": record.get("recall", {}),
        "F1": record.get("f1", {}),
        "IoU": record.get("iou", {}),
        "Boundary F1": boundary.get("f1", {}),
    }
    matrix = np.array(record.get("confusion", []))
    names = results.classes.names
    pixels = matrix.sum(1).tolist() if matrix.shape == (len(names),) * 2 else [DASH] * len(names)
    rows = [
        [n, str(count), *(number_text(number(by_class.get(n))) for by_class in scores.values())]
        for n, count in zip(names, pixels, strict=True)
    ]
    label = Series(run.network, run.variant, run.method).label
    caption = f"Scores per class of the best of them: {label}, {labels_text(run.budget)}, {replicate(run)}."
    columns = ["Class", "Labelled pixels", *scores]
    return Table("class_scores", caption, columns, rows, frozenset(range(1, len(columns))))


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
        rows.append([Series(run.network, run.variant, run.method).label, labels_text(run.budget), *errors])
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
    columns = [
        "network",
        "variant",
        "method",
        "fraction",
        *[column for column in ("points", "draw") if column in table],
        "seed",
        *[m for m in (*METRICS, *PLAIN_METRICS) if m in table],
    ]
    text = table[columns].to_string(index=False, float_format=lambda v: f"{v:.4g}")
    return Details(f"All {plural(len(table), 'run')}", text)
