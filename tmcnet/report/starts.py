"""Which start measures best on the validation part: after fine-tuning, and by the probe of frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from scipy.stats import t as student

from tmcnet.config import PIXELWISE, RANDOM_START, Budget
from tmcnet.report.blocks import Block, Heading, Table, Text, labels_phrase, labels_text, number_text, plural
from tmcnet.report.files import number
from tmcnet.report.palette import METRIC_NAMES, Series, method_label, network_label, series_order
from tmcnet.report.results import Results
from tmcnet.report.verdict import FEW_RUNS

Runs = Mapping[tuple[int, int], float]
"""A score of each run, by the draw of its labels and its seed."""
_Scores = dict[Budget, dict[str, Runs]]
_PROBE = "miou"


def best_start(results: Results) -> list[Block]:
    """What the validation part says of the starts, as far as it can; empty where there is nothing to compare."""
    network, scores = _validation(results)
    probed = _probed(results)
    sentences = [*_after_tuning(results, network, scores), *_by_probe(results, probed)]
    if not sentences:
        return []
    told = Text(" ".join(sentences))
    return [Heading("Best on the validation part"), told, _table(results, network, scores, probed)]


def _validation(results: Results) -> tuple[str, _Scores]:
    """Validation scores by label budget and start, of the network that was run from most starts."""
    found: dict[Series, _Scores] = {}
    for run in results.config.runs:
        told = results.summary("finetune", run.name).get("validation")
        score = number(told.get(results.config.report.metric)) if isinstance(told, dict) else float("nan")
        if run.network not in PIXELWISE and score == score:
            scores = found.setdefault(Series(run.network, run.variant, ""), {}).setdefault(run.budget, {})
            scores[run.method] = {**scores.get(run.method, {}), (run.draw, run.seed): score}
    if not found:
        return "", {}
    most = max(sorted(found, key=series_order), key=lambda series: len(_starts(found[series])))
    return network_label(most.network, most.variant), dict(sorted(found[most].items()))


def _starts(scores: _Scores) -> set[str]:
    return {method for of_budget in scores.values() for method in of_budget}


def _probed(results: Results) -> dict[str, float]:
    """The probe's last look at each pre-training."""
    tables = {method: results.curves("pretrain", method) for method in results.config.pretrain.methods}
    looks = {m: t[f"probe_{_PROBE}"].dropna() for m, t in tables.items() if f"probe_{_PROBE}" in t}
    return {method: float(values.iloc[-1]) for method, values in looks.items() if len(values)}


def _after_tuning(results: Results, network: str, scores: _Scores) -> Iterator[str]:
    """With the fewest labels that any pre-training was compared with another start."""
    for budget, found in scores.items():
        trained = {method: runs for method, runs in found.items() if method != RANDOM_START}
        if trained and len(found) > 1:
            yield _best_of(results, network, budget, found, trained)
            return


def _best_of(
    results: Results, network: str, budget: Budget, found: Mapping[str, Runs], trained: Mapping[str, Runs]
) -> str:
    metric, first = METRIC_NAMES[results.config.report.metric], _first(results)
    best = max(trained, key=lambda method: _mean(trained[method]))
    others = {method: runs for method, runs in (trained if len(trained) > 1 else found).items() if method != best}
    rival = first if first in others else max(others, key=lambda method: _mean(others[method]))
    one_of = f"the best of {len(trained)} pre-trainings" if len(trained) > 1 else "the only pre-training compared"
    place = "the first of the config" if best == first else "not the first of the config"
    judged = _judgement(found[best], found[rival], len(others), results.config.evaluate.confidence)
    text = (
        f"After fine-tuning {network} with {labels_phrase(budget)}, {method_label(best)} ({one_of}, {place}) "
        f"measures {metric} {_told(found[best])} on the validation part, {method_label(rival)} "
        f"{_told(found[rival])}: {judged}."
    )
    if RANDOM_START in found and rival != RANDOM_START:
        text += f" A random start measures {_told(found[RANDOM_START])}."
    return text


def _first(results: Results) -> str:
    return next(iter(results.config.pretrain.methods), "")


def _mean(runs: Runs) -> float:
    return float(np.mean(list(runs.values())))


def _told(runs: Runs) -> str:
    return f"{number_text(_mean(runs))} ({plural(len(runs), 'run')})"


def _judgement(a: Runs, b: Runs, comparisons: int, confidence: float) -> str:
    """Whether runs with the same labels and seed tell two starts apart, the best of so many having been picked.

    Student's interval of the paired differences, with Bonferroni's correction.
    """
    differences = np.array([a[key] - b[key] for key in a.keys() & b.keys()])
    if len(differences) < FEW_RUNS:
        return f"{plural(len(differences), 'paired run')} cannot tell them apart"
    limit = student.ppf(1 - (1 - confidence) / (2 * comparisons), len(differences) - 1)
    if abs(differences.mean()) <= limit * differences.std(ddof=1) / np.sqrt(len(differences)):
        return f"a difference within what {len(differences)} paired runs differ by"
    return f"a difference beyond what {len(differences)} paired runs differ by"


def _by_probe(results: Results, probed: Mapping[str, float]) -> Iterator[str]:
    if len(probed) < 2:
        return
    best, first = max(probed, key=lambda method: probed[method]), _first(results)
    told = f"The probe of frozen features puts {method_label(best)} first ({METRIC_NAMES[_PROBE]} "
    told += f"{number_text(probed[best])}"
    if best == first:
        told += "), which is the first of the config, too"
    elif first in probed:
        told += f"; {method_label(first)}, the first of the config, {number_text(probed[first])})"
    else:
        told += ")"
    yield f"{told}; each was pre-trained once, so small differences may be chance."


def _table(results: Results, network: str, scores: _Scores, probed: Mapping[str, float]) -> Table:
    known = {*_starts(scores), *probed}
    methods = [*results.config.pretrain.methods, *sorted(known - {*results.config.pretrain.methods, RANDOM_START})]
    rows, frame = [], []
    for method in [m for m in (*methods, RANDOM_START) if m in known]:
        cells = [scores[budget].get(method, {}) for budget in scores]
        texts = [_told(runs) if runs else number_text(float("nan")) for runs in cells]
        probe = probed.get(method, float("nan"))
        rows.append([method_label(method), number_text(probe), *texts])
        means = {
            budget.name: _mean(runs) if runs else float("nan") for budget, runs in zip(scores, cells, strict=True)
        }
        frame.append({"start": method, "probe": probe, **means})
    metric = METRIC_NAMES[results.config.report.metric]
    caption = (
        f"{metric} on the validation part after fine-tuning {network}, and that of the probe at the end of "
        "pre-training. The same part chose the weights of each run, so these scores are a little high, for all alike."
    )
    columns = ["Start", f"Probe, {METRIC_NAMES[_PROBE]}", *(labels_text(budget) for budget in scores)]
    return Table("starts", caption, columns, rows, frozenset(range(1, len(columns))), frame=pd.DataFrame(frame))
