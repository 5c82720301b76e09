"""The verdict in words: what the paired differences allow to be said, and no more."""

from __future__ import annotations

from tmcnet.config import PIXELWISE, RANDOM_START, SINGLE_SENSOR, Budget
from tmcnet.report.blocks import labels_phrase, labels_text, number_text, plural, sentence_case
from tmcnet.report.palette import FUSION, METRIC_NAMES, Series, network_label
from tmcnet.report.results import Results
from tmcnet.report.scores import Comparison

FEW_RUNS = 5
_SENSOR = {"optical_only": "optical", "sar_only": "SAR"}


def verdict(results: Results) -> list[str]:
    """Sentences for a reader in a hurry: on pre-training, fusion and depth, and on what they rest on."""
    if results.scores.table.empty:
        return ["No run has been evaluated yet, so there is nothing to conclude."]
    metric = results.config.report.metric
    return [*_pretraining(results, metric), *_fusion(results, metric), *_deep(results, metric), *_caution(results)]


def lead(results: Results) -> str:
    """One sentence: what pre-training did with the fewest labels, what fusion did, and how much that rests on."""
    metric, pairs = results.config.report.metric, results.scores.comparisons
    if results.scores.table.empty:
        return "Nothing can be concluded yet."
    started = [c for c in pairs if c.metric == metric and _against_random(c)]
    fused = [c for s in SINGLE_SENSOR if (c := _main_fusion(results, metric, s))]
    parts = []
    if started:
        least = min(c.budget for c in started)
        main = [c for c in started if c.budget == least]
        main = [c for c in main if c.a.network == "mssnet"] or main
        told = ", ".join(f"{c.a.method} pre-training {_outcome(c)}" for c in main)
        parts.append(f"with {labels_phrase(least)}, {told}")
    if fused:
        told = " and ".join(f"{_outcome(c)} over {_SENSOR[c.b.network]} alone" for c in fused)
        parts.append(f"with {labels_phrase(fused[0].budget)}, fusion {told}")
    if not parts:
        return "The sweep compares neither starts nor sensors, so it has no verdict on them."
    runs = results.scores.runs
    basis = f", from as few as {plural(runs, 'run')}" if runs < FEW_RUNS else ""
    return f"{sentence_case('; '.join(parts))} ({METRIC_NAMES[metric]}{basis})."


def _outcome(c: Comparison) -> str:
    if not c.reliable:
        return "brought no reliable difference"
    return "brought a reliable gain" if c.difference > 0 else "brought a reliable loss"


def _pretraining(results: Results, metric: str) -> list[str]:
    """One sentence a method, with the fewest labels where it meets a random start of the same network."""
    pairs = [c for c in results.scores.comparisons if c.metric == metric and _against_random(c)]
    if not pairs:
        return ["Pre-training and random start were not compared, so nothing can be said about pre-training."]
    main = [c for c in pairs if c.a.network == "mssnet"] or pairs
    sentences = []
    for series in dict.fromkeys(c.a for c in main):
        mine = sorted((c for c in main if c.a == series), key=lambda c: c.budget)
        who = f"{series.method} pre-training of {network_label(series.network, series.variant)}"
        sentences.append(f"With {labels_phrase(mine[0].budget)}, {who} {_change(mine[0], results)}")
        if len(mine) > 1:
            sentences.append(_elsewhere(mine[1:]))
    return sentences


def _against_random(c: Comparison) -> bool:
    same = (c.a.network, c.a.variant) == (c.b.network, c.b.variant)
    return same and c.b.method == RANDOM_START and c.a.method != RANDOM_START


def _change(c: Comparison, results: Results) -> str:
    level = f"{results.config.evaluate.confidence * 100:g} %"
    runs = f", {plural(c.runs, 'run')} each" if c.runs else ""
    text = (
        f"changed {METRIC_NAMES[c.metric]} by {number_text(c.difference, sign=True)} ({level} interval "
        f"{number_text(c.low, sign=True)} to {number_text(c.high, sign=True)}{runs})"
    )
    if c.low != c.low or c.high != c.high:
        return f"{text}: without an interval this is no evidence either way."
    if not c.outside:
        return f"{text}: no reliable difference."
    if not c.significant and c.p < 1 - results.config.evaluate.confidence:
        return f"{text}: beyond the interval, but one seed, or one draw of few labels, is too little to rely on."
    if not c.significant:
        return f"{text}: no reliable difference once the number of comparisons is allowed for (p = {c.p:.2f})."
    what = "gain" if c.difference > 0 else "loss"
    if 0 < c.runs < FEW_RUNS:
        return f"{text}: a {what} beyond the interval, though from {plural(c.runs, 'run')} each only."
    return f"{text}: a {what} beyond the interval."


def _elsewhere(rest: list[Comparison]) -> str:
    metric = METRIC_NAMES[rest[0].metric]
    parts = [
        f"{number_text(c.difference, sign=True)} with {labels_text(c.budget)} ({_judgement(c)})"
        for c in rest
        if c.low == c.low
    ]
    return f"With more labels the change in {metric} was {', '.join(parts)}." if parts else ""


def _judgement(c: Comparison) -> str:
    return "reliable" if c.reliable else "not reliable"


def _fusion(results: Results, metric: str) -> list[str]:
    """One sentence on fusion against each single sensor, with the most labels where both started alike."""
    sentences = []
    for single in SINGLE_SENSOR:
        c = _main_fusion(results, metric, single)
        if c is None:
            continue
        who = network_label(c.a.network, c.a.variant)
        other = network_label(c.b.network, c.b.variant).replace("Optical", "optical").replace(" only", " alone")
        start = "both from a random start" if c.a.method == RANDOM_START else f"both after {c.a.method} pre-training"
        lead = f"With {labels_phrase(c.budget)}, fusing both sensors ({who}) instead of {other}, {start},"
        sentences.append(f"{lead} {_change(c, results)}")
    return sentences or ["Fusion and single sensors were not compared, so nothing can be said about fusion."]


def _main_fusion(results: Results, metric: str, single: str) -> Comparison | None:
    """The comparison of fusion with one sensor that says most: the main network, the most labels."""
    pairs = [c for c in results.scores.comparisons if c.metric == metric and _fused(c, single)]
    ranks = {n: i for i, n in enumerate(FUSION)}
    pairs.sort(key=lambda c: c.budget, reverse=True)
    return min(pairs, key=lambda c: (ranks[c.a.network], c.a.variant == "reference"), default=None)


def _fused(c: Comparison, single: str) -> bool:
    return c.a.method == c.b.method and c.a.network in FUSION and c.b.network == single


def _deep(results: Results, metric: str) -> list[str]:
    """One sentence on the best deep network against the best pixel-wise baseline, wherever both were run."""
    pixelwise = [s for s in results.scores.series if s.network in PIXELWISE]
    deep = [s for s in results.scores.series if s.network not in PIXELWISE]
    parts = []
    for budget in results.scores.budgets:
        best = [results.scores.leader(budget, metric, among) for among in (deep, pixelwise)]
        if best[0] and best[1]:
            parts.append(_against_baseline(results, best[0], best[1], budget))
    if not parts:
        return []
    lead = (
        f"Best deep network against best pixel-wise baseline in {METRIC_NAMES[metric]}, both picked by these scores"
    )
    return [f"{lead}: {'; '.join(parts)}."]


def _against_baseline(results: Results, network: Series, baseline: Series, budget: Budget) -> str:
    """How a network compares with a baseline with one label budget, with the figures it rests on."""
    where = f"with {labels_phrase(budget)} {network.label}"
    other = baseline.label[:1].lower() + baseline.label[1:]
    c = results.scores.comparison(network, baseline, budget, results.config.report.metric)
    if c is None or c.low != c.low:
        return f"{where} and {other} were not compared with an interval"
    figures = (
        f"{number_text(c.difference, sign=True)}, {results.config.evaluate.confidence * 100:g} % interval "
        f"{number_text(c.low, sign=True)} to {number_text(c.high, sign=True)}"
    )
    if not c.reliable:
        return f"{where} shows no reliable difference to {other} ({figures})"
    return f"{where} is reliably {'better' if c.difference > 0 else 'worse'} than {other} ({figures})"


def _caution(results: Results) -> list[str]:
    out = []
    if results.scores.runs < FEW_RUNS:
        out.append(
            f"Some figures rest on {plural(results.scores.runs, 'run')}, fewer than {FEW_RUNS}: "
            "differences of the size of the spread between runs mean little."
        )
    if results.missing:
        total = len(results.config.runs)
        out.append(f"{len(results.missing)} of {total} planned runs have no scores yet; the verdict may change.")
    return out
