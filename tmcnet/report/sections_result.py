"""Numbers, pictures and charts of the first section: the best map, how good it is, and the verdict."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from tmcnet.config import RANDOM_START, SINGLE_SENSOR, Budget, is_pixelwise
from tmcnet.config.base import only_modality
from tmcnet.config.training import is_classifier, members_of
from tmcnet.report.names import Series, network_order
from tmcnet.report.pictures import Gallery, MapSource, Painter
from tmcnet.report.results import Results
from tmcnet.report.scores import MIN_RUNS, Comparison
from tmcnet.report.sections_maps import areas, map_sources, scenes_of
from tmcnet.report.sections_scores import draw_label_efficiency, label_efficiency


def result(results: Results, painter: Painter) -> dict[str, Any]:
    """The best map with its scores, the headline chart and the verdict."""
    sources = map_sources(results)
    source = next(iter(sources), None)
    section: dict[str, Any] = {
        "results": results,
        "source": source,
        "place": _best_place(results, painter, source, sources[source]) if source else None,
        "areas": areas(results),
        "model": None,
        "scores": {},
        "figures": {},
    }
    if not results.study:
        return section | {"trained": results.trained_scores(source.name) if source else {}}
    if source and source.run:
        series, budget = Series.of(source.run), source.run.budget
        if (results.root / "models" / source.name / "model.safetensors").exists():
            section["model"] = Path(results.config.results_dir, "models", source.name, "model.safetensors")
        section["scores"] = {
            m: results.scores.estimate(series, budget, m) for m in dict.fromkeys(("oa", results.metric, "miou"))
        }
    if not results.scores.table.empty:
        section["headline"] = label_efficiency(results, results.metric)
        section["figures"] = {"headline": draw_label_efficiency(results, results.metric, "headline")}
    return section | {"verdict": verdict(results)}


def _best_place(results: Results, painter: Painter, source: MapSource, mapped: list[str]) -> Gallery | None:
    """Pictures of the mapped scene with the most test tiles."""
    index, test = results.index, set(results.parts.get("test", []))
    counts = dict(index.loc[index["tile"].isin(test), "scene"].value_counts()) if "scene" in index else {}
    scenes = sorted(scenes_of(results, mapped), key=lambda scene: (-counts.get(scene, 0), scene))
    return painter.best(scenes[0], source) if scenes else None


def verdict(results: Results) -> dict[str, Any]:
    """What the scores say on labels, fusion and pre-training.

    Returns:
        `leaders`: for each label budget the best method, its rival and their paired difference. `starts`: of each
        pre-trained series, the differences to a random start, fewest labels first. `fusion`: one difference for each
        single sensor. `gains`: of each series scored with the fewest and the most labels, the difference.
        `more_labels`: that of the best of them and, with more than two label budgets, its difference from the most
        labels but one to the most.
    """
    scores, metric = results.scores, results.metric
    found = [c for c in scores.comparisons if c.metric == metric]
    started = [c for c in found if _is_start(c)]
    of_main = [c for c in started if c.a.network == "mssnet"] or started
    gains = [c for series in scores.series if (c := scores.gain(series, metric))]
    best = scores.leader(scores.budgets[-1], metric, [c.a for c in gains]) if gains else None
    more_labels = [scores.gain(best, metric), scores.gain(best, metric, last_step=True)] if best else []
    return {
        "results": results,
        "metric": metric,
        "confidence": results.config.evaluate.confidence,
        "leaders": [leader for budget in scores.budgets if (leader := _leader(results, budget))],
        "starts": [list(group) for _, group in groupby(of_main, key=lambda c: c.a)],
        "fusion": [c for sensor in SINGLE_SENSOR if (c := _fusion(found, sensor))],
        "gains": gains,
        "more_labels": list(dict.fromkeys(filter(None, more_labels))),
        "min_runs": MIN_RUNS,
    }


def _leader(results: Results, budget: Budget) -> dict[str, Any] | None:
    """The best method with a label budget, and the best of the other kind (deep or pixel-wise), else the second."""
    scores, metric = results.scores, results.metric
    best = scores.leader(budget, metric)
    if best is None:
        return None
    simple = is_pixelwise(best.network)
    others = [series for series in scores.series if series != best]
    rival = scores.leader(budget, metric, [s for s in others if is_pixelwise(s.network) != simple])
    across = rival is not None
    rival = rival or scores.leader(budget, metric, others)
    of_rival = scores.estimate(rival, budget, metric) if rival else None
    estimate = scores.estimate(best, budget, metric)
    return {
        "budget": budget,
        "best": best,
        "simple": simple,
        "estimate": estimate,
        "rival": rival,
        "across": across,
        "difference": estimate.mean - of_rival.mean if estimate and of_rival else None,
        "comparison": scores.comparison(best, rival, budget, metric) if rival else None,
    }


def _is_start(c: Comparison) -> bool:
    """Whether a difference is that of pre-training to a random start of the same network."""
    same = (c.a.network, c.a.variant) == (c.b.network, c.b.variant)
    return same and c.b.method == RANDOM_START and c.a.method != RANDOM_START


def _fusion(comparisons: list[Comparison], sensor: str) -> Comparison | None:
    """The main difference of fusion to one sensor with the same start: the first network, the most labels."""
    pairs = [c for c in comparisons if c.a.method == c.b.method and _fuses(c.a.network) and c.b.network == sensor]
    pairs.sort(key=lambda c: c.budget, reverse=True)
    return min(pairs, key=lambda c: network_order((c.a.network, c.a.variant)), default=None)


def _fuses(network: str) -> bool:
    """Whether it is a trained network of all modalities."""
    return not (only_modality(network) or is_classifier(network) or members_of(network))
