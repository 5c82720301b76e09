"""Numbers, charts and tables of the sections on pre-training and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from tmcnet.config import PIXELWISE, RANDOM_START, Budget
from tmcnet.report.figures_runs import curve_columns, draw_finetuning, draw_pretraining
from tmcnet.report.files import number
from tmcnet.report.names import Series, series_order
from tmcnet.report.results import Results
from tmcnet.report.scores import Estimate
from tmcnet.report.verdict import MIN_RUNS

MIN_EFFECTIVE_RANK = 2.0
"""Effective rank below which embeddings may have collapsed to one direction."""
PROBE = "miou"
_HEALTH = ("loss", "effective_rank", "alignment", "uniformity", "retrieval_optical_to_sar", "probe_miou")

Runs = Mapping[tuple[int, int], float]
"""A score of each run, by the draw of its labels and its seed."""
_Scores = dict[Budget, dict[str, Runs]]


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
    table = _health(results, curves)
    section["figures"]["pretraining"] = draw_pretraining(curves, results.styles.of_methods(methods), "pretraining")
    section["tables"]["pretraining"] = table
    section["quantities"] = curve_columns(curves)
    section["collapsed"] = list(table["name"][table["effective_rank"] < MIN_EFFECTIVE_RANK])
    section["min_effective_rank"] = MIN_EFFECTIVE_RANK
    section["starts"] = best_start(results)
    if section["starts"]:
        section["tables"]["starts"] = section["starts"]["table"]
    return section


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


def finetuning(results: Results) -> dict[str, Any]:
    """Curves of fine-tuning."""
    curves = {r: c for r in results.config.runs if not (c := results.curves("finetune", r.name)).empty}
    trained = {run: curve for run, curve in curves.items() if run.network not in PIXELWISE}
    titles = {"loss": "training loss", "val_miou": "mIoU on the validation part"}
    shown = {q: title for q, title in titles.items() if any(q in c for c in trained.values())}
    return {
        "without_curves": [run.name for run in results.config.runs if run not in curves],
        "curves": len(curves),
        "charts": {f"finetuning_{q}": title for q, title in shown.items()},
        "figures": {
            f"finetuning_{q}": draw_finetuning(results, trained, q, title, f"finetuning_{q}")
            for q, title in shown.items()
        },
    }


def best_start(results: Results) -> dict[str, Any]:
    """Which start is best on the validation part: after fine-tuning, and by the probe of frozen features.

    Returns:
        `table`: all measurements. `tuned`: the best pre-training after fine-tuning with the fewest labels, or None.
        `probe`: the best by the probe, or None. Empty where neither compares anything.
    """
    network, scores = _validation(results)
    probed = _probed(results)
    tuned, probe = _best_tuned(results, scores), _best_probed(results, probed)
    if not tuned and not probe:
        return {}
    return {
        "network": network,
        "metric": results.metric,
        "probe_metric": PROBE,
        "budgets": list(scores),
        "tuned": tuned,
        "probe": probe,
        "table": _start_table(results, scores, probed),
    }


def _validation(results: Results) -> tuple[str, _Scores]:
    """Name of the network with the most starts, and its validation scores by label budget and start."""
    found: dict[Series, _Scores] = {}
    for run in results.config.runs:
        record = results.summary("finetune", run.name).get("validation")
        score = number(record.get(results.metric)) if isinstance(record, dict) else float("nan")
        if run.network not in PIXELWISE and score == score:
            scores = found.setdefault(Series(run.network, run.variant, ""), {}).setdefault(run.budget, {})
            scores[run.method] = {**scores.get(run.method, {}), (run.draw, run.seed): score}
    if not found:
        return "", {}
    most = max(sorted(found, key=series_order), key=lambda series: len(_starts(found[series])))
    return most.network_label, dict(sorted(found[most].items()))


def _starts(scores: _Scores) -> set[str]:
    return {method for of_budget in scores.values() for method in of_budget}


def _probed(results: Results) -> dict[str, float]:
    """The last probe of each pre-training."""
    tables = {method: results.curves("pretrain", method) for method in results.config.pretrain.methods}
    last = {method: _last(table, f"probe_{PROBE}") for method, table in tables.items()}
    return {method: value for method, value in last.items() if value == value}


def _best_tuned(results: Results, scores: _Scores) -> dict[str, Any] | None:
    """The best pre-training and its rival, with the fewest labels that have a pre-training and another start."""
    compared = [b for b, found in scores.items() if len(found) > 1]
    if not compared:
        return None
    budget, found = compared[0], scores[compared[0]]
    trained = {method: runs for method, runs in found.items() if method != RANDOM_START}
    first = next(iter(results.config.pretrain.methods), "")
    best = max(trained, key=lambda method: _mean(trained[method]))
    others = {m: runs for m, runs in (trained if len(trained) > 1 else found).items() if m != best}
    rival = first if first in others else max(others, key=lambda method: _mean(others[method]))
    confidence = results.config.evaluate.confidence
    return {
        "budget": budget,
        "best": best,
        "rival": rival,
        "compared": len(trained),
        "is_first": best == first,
        "estimates": {method: _estimate(runs) for method, runs in found.items()},
        **_paired(found[best], found[rival], len(others), confidence),
    }


def _mean(runs: Runs) -> float:
    return float(np.mean(list(runs.values())))


def _estimate(runs: Runs) -> Estimate:
    return Estimate(_mean(runs), float("nan"), float("nan"), len(runs))


def _paired(a: Runs, b: Runs, comparisons: int, confidence: float) -> dict[str, Any]:
    """Whether runs with the same labels and seed distinguish two starts: `few`, `within` or `beyond` chance.

    Student's interval of the paired differences, with Bonferroni's correction for picking the best of several.
    """
    differences = np.array([a[key] - b[key] for key in a.keys() & b.keys()])
    pairs = len(differences)
    if pairs < MIN_RUNS:
        return {"pairs": pairs, "chance": "few"}
    limit = student.ppf(1 - (1 - confidence) / (2 * comparisons), pairs - 1)
    within = abs(differences.mean()) <= limit * differences.std(ddof=1) / np.sqrt(pairs)
    return {"pairs": pairs, "chance": "within" if within else "beyond"}


def _best_probed(results: Results, probed: Mapping[str, float]) -> dict[str, Any] | None:
    if len(probed) < 2:
        return None
    best, first = max(probed, key=lambda method: probed[method]), next(iter(results.config.pretrain.methods), "")
    return {"best": best, "first": first, "values": probed}


def _start_table(results: Results, scores: _Scores, probed: Mapping[str, float]) -> pd.DataFrame:
    """Probe, and mean and number of runs with each label budget, by start."""
    known, configured = {*_starts(scores), *probed}, list(results.config.pretrain.methods)
    rows = []
    for method in [*configured, *sorted(known - {*configured, RANDOM_START}), RANDOM_START]:
        if method in known:
            runs = {budget.name: found.get(method, {}) for budget, found in scores.items()}
            means = {name: _mean(of) if of else float("nan") for name, of in runs.items()}
            counts = {f"{name}_runs": len(of) for name, of in runs.items()}
            rows.append({"start": method, "probe": probed.get(method, float("nan")), **means, **counts})
    return pd.DataFrame(rows)
