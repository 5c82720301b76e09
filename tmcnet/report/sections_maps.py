"""Sections on maps: examples from the test part, whole scenes, best and worst tiles."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from tmcnet.config import Run
from tmcnet.report.blocks import (
    Heading,
    Legend,
    Note,
    Section,
    Table,
    Text,
    labels_phrase,
    number_text,
    plural,
    replicate,
)
from tmcnet.report.imagery import Painter, Place, places
from tmcnet.report.palette import METRIC_NAMES, Series
from tmcnet.report.pictures import NO_DATA, RIGHT, WRONG
from tmcnet.report.results import Results
from tmcnet.report.scores import TileScores, read_tiles
from tmcnet.report.sections_scores import best_runs

_MOST_SCENES = 6
_MOST_MAPS = 4
_ENDS = 5


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def mapped(results: Results) -> dict[Run, list[str]]:
    """Runs whose maps exist, best first, and the scenes that they mapped."""
    found: dict[Run, list[str]] = {}
    for run in results.config.runs:
        scenes = sorted(p.parent.name for p in (results.root / "maps").glob(f"*/{run.name}.tif"))
        if scenes:
            found[run] = scenes
    metric = results.config.report.metric
    return dict(sorted(found.items(), key=lambda item: -_score(results, item[0], metric)))


def _score(results: Results, run: Run, metric: str) -> float:
    value = results.evaluation(run).get(metric)
    return float(value) if isinstance(value, int | float) else -1.0


def maps(results: Results, painter: Painter) -> Section:
    """Examples from the test part and whole scenes."""
    section = Section("maps", "Maps")
    found = mapped(results)
    if not found:
        section.blocks.append(Note("There are no maps yet (maps/<scene>/<run>.tif): run the stage “maps”."))
        return section
    run = next(iter(found))
    label = Series(run.network, run.variant, run.method).label
    who = f"{label}, {labels_phrase(run.budget)}, {replicate(run)}"
    metric = METRIC_NAMES[results.config.report.metric]
    section.blocks.append(Text(f"The tiles below are drawn with the mapped run of the best {metric}: {who}."))
    section.blocks.append(_legend(results))
    section.blocks.append(Text("Confidence goes from dark blue (0 %) to yellow (100 %)."))
    drawn = (e for place in _example_places(results, found[run]) if (e := painter.example(place, run)))
    examples = list(islice(drawn, results.config.report.examples))
    section.blocks += examples
    if not examples:
        section.blocks.append(Note("No test tile lies in a mapped scene, so there are no examples side by side."))
    scenes = _scenes(results, found)
    if scenes:
        section.blocks.append(Heading("Whole scenes"))
    runs = _one_per_network(found)
    section.blocks += [g for s in scenes if (g := painter.overview(s, [r for r in runs if s in found[r]]))]
    total = len({s for scenes_of in found.values() for s in scenes_of})
    if scenes and total > len(scenes):
        section.blocks.append(Text(f"{plural(total, 'scene')} were mapped; the first {len(scenes)} are shown."))
    return section


def _legend(results: Results) -> Legend:
    extra = [("no data or void", _hex(NO_DATA)), ("right", _hex(RIGHT)), ("wrong", _hex(WRONG))]
    return Legend(results.classes.classes, extra)


def _example_places(results: Results, scenes: list[str]) -> Iterator[Place]:
    """Test tiles of mapped scenes, richest in classes first, taking turns between the scenes."""
    index = results.index
    if index.empty or "scene" not in index:
        return
    test = set(results.parts.get("test", []))
    chosen = index[index["tile"].isin(test) & index["scene"].isin(scenes)]
    shares = chosen[results.share_columns(index)].fillna(0).to_numpy(float)
    entropy = -(shares * np.log(np.maximum(shares, 1e-9))).sum(1) * chosen["label_share"].fillna(0).to_numpy(float)
    ranked = chosen.assign(richness=entropy).sort_values(["richness", "tile"], ascending=[False, True])
    ranked["turn"] = ranked.groupby("scene").cumcount()
    yield from places(results, ranked.sort_values("turn", kind="stable")["tile"])


def _scenes(results: Results, found: dict[Run, list[str]]) -> list[str]:
    """Mapped scenes that are more than one ready-made tile."""
    seen = sorted({s for scenes in found.values() for s in scenes})
    return [s for s in seen if (results.root / "scenes" / s / "optical.tif").exists()][:_MOST_SCENES]


def _one_per_network(found: dict[Run, list[str]]) -> list[Run]:
    chosen: dict[tuple[str, str], Run] = {}
    for run in found:
        chosen.setdefault((run.network, run.variant), run)
    return list(chosen.values())[:_MOST_MAPS]


def extremes(results: Results) -> Section:
    """Test tiles that the best run maps best and worst."""
    section = Section("extremes", "Best and worst tiles")
    best = best_runs(results)
    metric = results.config.report.metric
    run = max(best, key=lambda r: _score(results, r, metric), default=None)
    scores = read_tiles(results.root / "evaluate" / run.name / "tiles.npz") if run else None
    if run is None or scores is None or not len(scores.names):
        section.blocks.append(Note("There are no scores per tile yet (evaluate/<run>/tiles.npz)."))
        return section
    label = Series(run.network, run.variant, run.method).label
    section.blocks.append(
        Text(f"Overall accuracy per test tile of {label}, {labels_phrase(run.budget)}, {replicate(run)}.")
    )
    section.blocks.append(_extreme_table(scores))
    return section


def _extreme_table(scores: TileScores) -> Table:
    accuracy = scores.accuracy
    order = [i for i in np.argsort(accuracy, kind="stable") if np.isfinite(accuracy[i])]
    ends = min(_ENDS, len(order) // 2) or len(order)
    chosen = [(i, "worst") for i in order[:ends]] + [(i, "best") for i in order[len(order) - ends :]]
    rows = [
        [scores.names[i], scores.scenes[i], which, number_text(accuracy[i]), str(int(scores.confusion[i].sum()))]
        for i, which in dict.fromkeys(chosen)
    ]
    columns = ["Tile", "Scene", "Among the", "OA", "Labelled pixels"]
    return Table(
        "extreme_tiles", "Tiles with the lowest and the highest overall accuracy.", columns, rows, frozenset({3, 4})
    )
