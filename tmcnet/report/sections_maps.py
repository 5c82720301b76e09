"""Numbers, pictures and tables of the sections on maps: whole scenes, test tiles, best and worst tiles."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from tmcnet.config import Run
from tmcnet.evaluate.areas import WHOLE
from tmcnet.evaluate.quicklook import NO_DATA
from tmcnet.report.charts import look_alike
from tmcnet.report.files import number
from tmcnet.report.names import Series
from tmcnet.report.pictures import RIGHT, WRONG, MapSource, Painter, paint_confidence
from tmcnet.report.results import Results

MAX_EXAMPLES = 6
"""Test tiles side by side."""
_MAX_SCENES = 6
_MAX_AREAS = 12
_MAX_MAPS = 4
_EXTREME_TILES = 5
_PICTURED_EXTREMES = 2


def map_sources(results: Results) -> dict[MapSource, list[str]]:
    """Origins of the existing maps and their scenes: runs of the sweep, best mean first, then models from files."""
    runs = sorted(results.config.runs, key=lambda run: (-_mean(results, run), -results.score(run)))
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
