"""What single choices are worth: each pre-training against the first, each network against the main one."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tmcnet.config import PIXELWISE, Budget
from tmcnet.report.blocks import DASH, Section, Table, Text, labels_text, number_text
from tmcnet.report.palette import METRIC_NAMES, Series, method_label, network_label
from tmcnet.report.results import Results
from tmcnet.report.scores import Comparison

MAIN = ("mssnet", "corrected")
DIFFERENCES = {
    "early_fusion": "sensors stacked at the input",
    "late_fusion": "sensors fused at the end alone",
    "optical_only": "without the second sensor",
    "sar_only": "without the optical sensor",
}

_Row = tuple[Series, str, Budget, Comparison | None]


def ablations(results: Results) -> Section:
    """Pre-trainings that differ in settings, and networks that differ in how they fuse."""
    section = Section("ablations", "Ablations")
    for name, caption, rows in (
        ("ablations_pretraining", "Pre-trainings against the first of the config.", list(_pretrainings(results))),
        (
            "ablations_networks",
            f"Networks against {network_label(*MAIN)}, same start.",
            list(_networks(results)),
        ),
    ):
        if rows:
            section.blocks.append(_table(results, name, caption, rows))
    if section.blocks:
        section.blocks.append(
            Text("Differences are paired; those called significant survive Holm's correction over all comparisons.")
        )
    else:
        text = "The sweep varies neither pre-training nor network, so there is nothing to take apart: add entries to"
        section.blocks.append(Text(f"{text} pretrain.methods or finetune.sweep."))
    return section


def _pretrainings(results: Results) -> Iterator[_Row]:
    """Every other pre-training of the main network, and what its settings change."""
    methods, scores = results.config.pretrain.methods, results.scores
    started = [s for s in scores.series if (s.network, s.variant) == MAIN and s.method in methods]
    started.sort(key=lambda series: list(methods).index(series.method))
    for series in started[1:]:
        settings = methods[series.method].model_dump(mode="json")
        usual = methods[started[0].method].model_dump(mode="json")
        changed = [f"{key} {value}" for key, value in settings.items() if value != usual[key] and value is not None]
        told = ", ".join(changed).replace("_", " ") or "same settings"
        yield from _budgets(results, series, started[0], told)


def _networks(results: Results) -> Iterator[_Row]:
    """Every other deep network with the start that it shares with the main one."""
    for series in results.scores.series:
        main = Series(*MAIN, series.method)
        if series.network in PIXELWISE or series == main or main not in results.scores.series:
            continue
        told = DIFFERENCES.get(series.network, "as the published code has it")
        yield from _budgets(results, series, main, told)


def _budgets(results: Results, series: Series, main: Series, told: str) -> Iterator[_Row]:
    metric = results.config.report.metric
    for budget in results.scores.budgets:
        if all(results.scores.estimate(s, budget, metric) for s in (series, main)):
            yield series, told, budget, results.scores.comparison(series, main, budget, metric)


def _table(results: Results, name: str, caption: str, rows: list[_Row]) -> Table:
    metric = results.config.report.metric
    cells, frame = [], []
    for series, told, budget, c in rows:
        mean = results.scores.estimate(series, budget, metric)
        assert mean is not None  # `_budgets` leaves out what was not run
        start = method_label(series.method)
        found = [DASH] * 3 if c is None else _comparison_cells(c)
        who = [network_label(series.network, series.variant), start, told, labels_text(budget)]
        cells.append([*who, number_text(mean.mean), *found])
        figures = {} if c is None else {"difference": c.difference, "low": c.low, "high": c.high, "p": c.p}
        frame.append({**series.__dict__, "changed": told, "budget": budget.name, "mean": mean.mean, **figures})
    level = f"{results.config.evaluate.confidence * 100:g} % interval"
    columns = ["Network", "Start", "What differs", "Labels", METRIC_NAMES[metric], "Difference", level]
    columns.append("Significant (Holm)")
    return Table(name, caption, columns, cells, frozenset({3, 4, 5, 6}), heads=2, frame=pd.DataFrame(frame))


def _comparison_cells(c: Comparison) -> list[str]:
    return [
        number_text(c.difference, sign=True),
        f"{number_text(c.low, sign=True)} to {number_text(c.high, sign=True)}",
        "significant" if c.reliable else "not significant",
    ]
