"""Numbers, pictures and charts of the first section (the best map and the verdict) and of the sections on maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tmcnet.config import RANDOM_START, SINGLE_SENSOR, Budget, Run, is_pixelwise
from tmcnet.config.base import only_modality
from tmcnet.config.training import has_start, is_classifier, members_of, self_training_round
from tmcnet.evaluate.areas import WHOLE
from tmcnet.evaluate.quicklook import NO_DATA
from tmcnet.readers import number
from tmcnet.report.charts import look_alike
from tmcnet.report.names import Series, network_order
from tmcnet.report.pictures import RIGHT, WRONG, Gallery, MapSource, Painter, paint_confidence
from tmcnet.report.results import Results
from tmcnet.report.scores import MIN_RUNS, Comparison
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
        pre-trained series, the differences to a random start, fewest labels first. `taught`: of each student of
        self-training, the difference to the same network without it. `fusion`: one difference for each single sensor.
        `gains`: of each series scored with the fewest and the most labels, the difference. `more_labels`: that of the
        best of them and, with more than two label budgets, its difference from the most labels but one to the most.
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
        "taught": list(_of_students(found, results.config.finetune.self_training.start)),
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
    simple = _is_simple(best)
    others = [series for series in scores.series if series != best]
    rival = scores.leader(budget, metric, [s for s in others if _is_simple(s) != simple])
    across = rival is not None
    rival = rival or scores.leader(budget, metric, others)
    of_rival = scores.estimate(rival, budget, metric) if rival else None
    estimate = scores.estimate(best, budget, metric)
    comparison = scores.comparison(best, rival, budget, metric) if rival else None
    unpaired = estimate.mean - of_rival.mean if estimate and of_rival else None
    return {
        "budget": budget,
        "best": best,
        "simple": simple,
        "estimate": estimate,
        "rival": rival,
        "across": across,
        "difference": comparison.difference if comparison else unpaired,
        "comparison": comparison,
    }


def _is_simple(series: Series) -> bool:
    """Whether it is a pixel-wise classifier that has no teacher."""
    return is_pixelwise(series.network) and not self_training_round(series.method)


def _of_students(comparisons: list[Comparison], start: str) -> Iterator[Comparison]:
    """What self-training adds to each network that starts, without it, from `start` if it takes weights."""
    for found in comparisons:
        for c in (found, found.reversed()):
            same = (c.a.network, c.a.variant) == (c.b.network, c.b.variant)
            usual = start if has_start(c.a.network) else RANDOM_START
            if same and self_training_round(c.a.method) == 1 and c.b.method == usual:
                yield c


def _is_start(c: Comparison) -> bool:
    """Whether a difference is that of pre-training to a random start of the same network."""
    same = (c.a.network, c.a.variant) == (c.b.network, c.b.variant)
    return same and c.b.method == RANDOM_START and c.a.method != RANDOM_START and not self_training_round(c.a.method)


def _fusion(comparisons: list[Comparison], sensor: str) -> Comparison | None:
    """The main difference of fusion to one sensor with the same start: the first network, the most labels."""
    pairs = [c for c in comparisons if c.a.method == c.b.method and _fuses(c.a.network) and c.b.network == sensor]
    pairs.sort(key=lambda c: c.budget, reverse=True)
    return min(pairs, key=lambda c: network_order((c.a.network, c.a.variant)), default=None)


def _fuses(network: str) -> bool:
    """Whether it is a trained network of all modalities."""
    return not (only_modality(network) or is_classifier(network) or members_of(network))


MAX_EXAMPLES = 6
"""Test tiles side by side."""
_MAX_SCENES = 6
_MAX_AREAS = 12
_MAX_MAPS = 4
_EXTREME_TILES = 5
_PICTURED_EXTREMES = 2


def map_sources(results: Results) -> dict[MapSource, list[str]]:
    """Origins of the existing maps and their scenes: runs of the sweep, best mean first, then models from files."""
    runs = sorted(results.scored, key=lambda run: (-_mean(results, run), -results.score(run)))
    sources = [MapSource(run.name, run) for run in runs] + [MapSource(name) for name in results.config.maps.models]
    found = {s: sorted(p.parent.name for p in (results.root / "maps").glob(f"*/{s.name}.tif")) for s in sources}
    return {source: scenes for source, scenes in found.items() if scenes}


def _mean(results: Results, run: Run) -> float:
    """Headline score of the method of a run with its labels, over draws and seeds; -1 without one."""
    estimate = results.scores.estimate(Series.of(run), run.budget, results.metric)
    return estimate.mean if estimate and estimate.mean == estimate.mean else -1.0


def scenes_of(results: Results, mapped: Iterable[str]) -> list[str]:
    """The mapped scenes that have an aligned image to show."""
    folder = results.root / "scenes"
    return [s for s in mapped if any((folder / s / f"{name}.tif").exists() for name in results.config.sensors)]


def maps(results: Results, painter: Painter) -> dict[str, Any]:
    """Whole scenes and examples of test tiles."""
    sources = map_sources(results)
    if not sources:
        return {"found": False}
    first = next(iter(sources))
    scenes = scenes_of(results, sorted({scene for mapped in sources.values() for scene in mapped}))
    shown = _one_per_network(sources)
    overviews = [
        painter.overview(scene, [source for source in shown if scene in sources[source]])
        for scene in scenes[:_MAX_SCENES]
    ]
    return {
        "found": True,
        "results": results,
        "best": first.run,
        "models": {n: p for n, p in results.config.maps.models.items() if MapSource(n) in sources},
        "colors": _colors(),
        "look_alike": look_alike({c.name: c.color for c in results.classes.classes}),
        "scene_count": len(scenes),
        "max_scenes": _MAX_SCENES,
        "source_count": len(sources),
        "sources_shown": len(shown),
        "overviews": [gallery for gallery in overviews if gallery],
        "examples": list(islice(painter.examples(_varied_tiles(results, sources[first]), first), MAX_EXAMPLES)),
    }


def areas(results: Results) -> dict[str, Any]:
    """Areas of the classes in the best map: of all scenes together, and of each."""
    source = next(iter(map_sources(results)), None)
    table = results.areas(source.name) if source else pd.DataFrame()
    if table.empty:
        return {"found": False}
    by_scene = {str(scene): rows for scene, rows in table.groupby("scene", sort=False)}
    whole = by_scene.pop(WHOLE, next(iter(by_scene.values())))
    return {
        "found": True,
        "source": source,
        "colors": {c.name: c.color for c in results.classes.classes},
        "whole": whole,
        "scenes": dict(islice(by_scene.items(), _MAX_AREAS)),
        "scene_count": len(by_scene),
        "corrected": bool(whole["ha"].notna().any() or whole["percent"].notna().any()),
        "georeferenced": bool(whole["mapped_ha"].notna().all()),
        "confidence": number(whole["confidence"].iloc[0]),
        "test_blocks": number(whole["test_blocks"].iloc[0]),
        "table": table,
    }


def _colors() -> dict[str, str]:
    """Colours of the legend beside those of the classes."""
    named = {"no_data": NO_DATA, "right": RIGHT, "wrong": WRONG}
    for percent in (0, 50, 100):
        named[f"confidence_{percent}"] = tuple(paint_confidence(np.array([[percent]], np.uint8))[0, 0])
    return {name: "#{:02x}{:02x}{:02x}".format(*color) for name, color in named.items()}


def _one_per_network(sources: dict[MapSource, list[str]]) -> list[MapSource]:
    """The best of each network, and models from elsewhere."""
    chosen: dict[tuple[str, str], MapSource] = {}
    for source in sources:
        kind = (source.run.network, source.run.variant) if source.run else (source.name, "")
        chosen.setdefault(kind, source)
    return list(chosen.values())[: _MAX_MAPS + sum(source.run is None for source in chosen.values())]


def _varied_tiles(results: Results, scenes: list[str]) -> list[str]:
    """Test tiles of mapped scenes, those with the most varied classes first, in turns between the scenes."""
    index = results.index
    if index.empty or "scene" not in index:
        return []
    test = set(results.parts.get("test", []))
    chosen = index[index["tile"].isin(test) & index["scene"].isin(scenes)]
    shares = chosen.filter(regex="^share_").fillna(0).to_numpy(float)
    entropy = -(shares * np.log(np.maximum(shares, 1e-9))).sum(1) * chosen["label_share"].fillna(0).to_numpy(float)
    ranked = chosen.assign(richness=entropy).sort_values(["richness", "tile"], ascending=[False, True])
    ranked["turn"] = ranked.groupby("scene").cumcount()
    return list(ranked.sort_values("turn", kind="stable")["tile"])


def extremes(results: Results, painter: Painter) -> dict[str, Any]:
    """Best and worst test tiles of one run: the best one with maps, else the best of all."""
    mapped = [source.run for source in map_sources(results) if source.run]
    runs = mapped or sorted(results.best_runs, key=lambda run: -results.score(run))
    tiles = results.tile_scores(runs[0]) if runs else pd.DataFrame()
    if tiles.empty:
        return {"found": False}
    ranked = tiles.dropna(subset=["oa"]).sort_values("oa", kind="stable")
    count = min(_EXTREME_TILES, len(ranked) // 2)
    worst, best = ranked.head(max(count, 1)), ranked.iloc[::-1].head(count)
    table = pd.concat([worst.assign(among="worst"), best.assign(among="best")])
    source = MapSource(runs[0].name, runs[0])
    return {
        "found": True,
        "run": runs[0],
        "worst": list(painter.examples(worst["tile"].head(_PICTURED_EXTREMES), source)),
        "best": list(painter.examples(best["tile"].head(_PICTURED_EXTREMES), source)),
        "tables": {"extreme_tiles": table[["tile", "scene", "among", "oa", "pixels"]]},
    }
