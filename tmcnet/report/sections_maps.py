"""Sections on maps: examples from the test part, whole scenes, best and worst tiles."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from tmcnet.config import Run
from tmcnet.report.blocks import (
    Block,
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
from tmcnet.report.colour_vision import look_alike
from tmcnet.report.imagery import Mapper, Painter, Place, places
from tmcnet.report.palette import METRIC_NAMES, Series
from tmcnet.report.pictures import NO_DATA, RIGHT, WRONG, confidence_colors
from tmcnet.report.results import Results
from tmcnet.report.sections_scores import best_runs
from tmcnet.report.tile_scores import TileScores, read_tiles

_MOST_SCENES = 6
_MOST_MAPS = 4
_ENDS = 5
_PICTURED_ENDS = 2


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def mapped(results: Results) -> dict[Mapper, list[str]]:
    """What drew maps that exist, and the scenes: runs of the sweep, best first, then models from elsewhere."""
    metric = results.config.report.metric
    runs = sorted(results.config.runs, key=lambda run: -_score(results, run, metric))
    mappers = [Mapper(run.name, run) for run in runs] + [Mapper(name) for name in results.config.maps.models]
    found = {m: sorted(p.parent.name for p in (results.root / "maps").glob(f"*/{m.name}.tif")) for m in mappers}
    return {mapper: scenes for mapper, scenes in found.items() if scenes}


def _score(results: Results, run: Run, metric: str) -> float:
    value = results.evaluation(run).get(metric)
    return float(value) if isinstance(value, int | float) else -1.0


def _who(run: Run) -> str:
    label = Series(run.network, run.variant, run.method).label
    return f"{label}, {labels_phrase(run.budget)}, {replicate(run)}"


def maps(results: Results, painter: Painter) -> Section:
    """Examples from the test part and whole scenes."""
    section = Section("maps", "Maps")
    found = mapped(results)
    if not found:
        section.blocks.append(Note("There are no maps yet (maps/<scene>/<run>.tif): run the stage “maps”."))
        return section
    section.blocks += _explanation(results, found)
    if scenes := _scenes(results, found):
        section.blocks += [Heading("Whole scenes"), *_overviews(painter, found, scenes)]
    section.blocks.append(Heading("Tiles of the test part"))
    mapper = next(iter(found))
    drawn = (e for place in _example_places(results, found[mapper]) if (e := painter.example(place, mapper)))
    examples = list(islice(drawn, results.config.report.examples))
    section.blocks += examples
    if not examples:
        section.blocks.append(Note("No test tile lies in a mapped scene, so there are no examples side by side."))
    return section


def _explanation(results: Results, found: dict[Mapper, list[str]]) -> Iterator[Block]:
    """Who drew the maps, what their colours mean, and what their confidence is not."""
    first = next(iter(found))
    if first.run is not None:
        metric = METRIC_NAMES[results.config.report.metric]
        yield Text(
            f"Errors, confidence and tiles are those of the mapped run of the best {metric}: {_who(first.run)}."
        )
    models = {name: path for name, path in results.config.maps.models.items() if Mapper(name) in found}
    for name, path in models.items():
        yield Text(f"“{name}” is a network from elsewhere ({path}, config key maps.models): it has no scores here.")
    colors = [(f"confidence {percent} %", _hex(color)) for percent, color in confidence_colors((0, 50, 100)).items()]
    extra = [("no data or void", _hex(NO_DATA)), ("right", _hex(RIGHT)), ("wrong", _hex(WRONG)), *colors]
    yield Legend(results.classes.classes, extra)
    if pairs := look_alike({c.name: c.color for c in results.classes.classes}):
        named = ", ".join(f"“{one}” and “{two}”" for one, two in pairs)
        yield Text(f"Not all readers can tell the colours of these classes apart: {named} (labels.classes).")
    yield Text(
        "Confidence is the probability that the network gives to the class it maps, as it comes: it is not scaled by "
        "the temperature of the section “Calibration”, which says how far to believe it."
    )


def _overviews(painter: Painter, found: dict[Mapper, list[str]], scenes: list[str]) -> list[Block]:
    """The first scenes; the first of all opened."""
    shown = _one_per_network(found)
    blocks: list[Block] = []
    for scene in scenes[:_MOST_SCENES]:
        here = [mapper for mapper in shown if scene in found[mapper]]
        if (gallery := painter.overview(scene, here, opened=not blocks)) is not None:
            blocks.append(gallery)
    left_out = " ".join(
        text
        for text in (
            f"{plural(len(scenes), 'scene')} were mapped; the first {_MOST_SCENES} are shown."
            if len(scenes) > _MOST_SCENES
            else "",
            f"{plural(len(found), 'network')} drew maps; {len(shown)} are shown, one of a kind."
            if len(found) > len(shown)
            else "",
            "Pictures are thinned to fit this page; the maps themselves lie in maps/<scene>/.",
        )
        if text
    )
    return [*blocks, Text(left_out)]


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


def _scenes(results: Results, found: dict[Mapper, list[str]]) -> list[str]:
    """Mapped scenes that are more than one ready-made tile."""
    seen = sorted({s for scenes in found.values() for s in scenes})
    return [s for s in seen if (results.root / "scenes" / s / "optical.tif").exists()]


def _one_per_network(found: dict[Mapper, list[str]]) -> list[Mapper]:
    """The best of each network, and models from elsewhere."""
    chosen: dict[tuple[str, str], Mapper] = {}
    for mapper in found:
        kind = (mapper.run.network, mapper.run.variant) if mapper.run else (mapper.name, "")
        chosen.setdefault(kind, mapper)
    return list(chosen.values())[: _MOST_MAPS + sum(mapper.run is None for mapper in chosen.values())]


def extremes(results: Results, painter: Painter) -> Section:
    """Test tiles that one run maps best and worst: the best of those with maps, else the best of all."""
    section = Section("extremes", "Best and worst tiles")
    metric = results.config.report.metric
    drew = [mapper.run for mapper in mapped(results) if mapper.run]
    runs = drew or sorted(best_runs(results), key=lambda r: -_score(results, r, metric))
    scores = read_tiles(results.root / "evaluate" / runs[0].name / "tiles.npz") if runs else None
    if scores is None or not len(scores.names):
        section.blocks.append(Note("There are no scores per tile yet (evaluate/<run>/tiles.npz)."))
        return section
    section.blocks.append(Text(f"Overall accuracy per test tile of {_who(runs[0])}."))
    worst, best = _ends(scores)
    section.blocks.append(_extreme_table(scores, worst, best))
    section.blocks += _extreme_pictures(results, painter, Mapper(runs[0].name, runs[0]), scores, worst, best)
    return section


def _ends(scores: TileScores) -> tuple[list[int], list[int]]:
    """Numbers of the tiles with the lowest overall accuracy, lowest first, and with the highest, highest first."""
    order = [int(i) for i in np.argsort(scores.accuracy, kind="stable") if np.isfinite(scores.accuracy[i])]
    ends = min(_ENDS, len(order) // 2)
    return (order[:ends], order[::-1][:ends]) if ends else (order, [])


def _extreme_pictures(
    results: Results, painter: Painter, mapper: Mapper, scores: TileScores, worst: list[int], best: list[int]
) -> Iterator[Block]:
    for which, numbers in (("Worst", worst), ("Best", best)):
        found = places(results, [scores.names[i] for i in numbers[:_PICTURED_ENDS]])
        galleries = [g for place in found if (g := painter.example(place, mapper))]
        if galleries:
            yield Heading(f"{which} tiles")
            yield from galleries


def _extreme_table(scores: TileScores, worst: list[int], best: list[int]) -> Table:
    rows = [
        [scores.names[i], scores.scenes[i], which, number_text(scores.accuracy[i]), str(scores.confusion[i].sum())]
        for which, numbers in (("worst", worst), ("best", best))
        for i in numbers
    ]
    columns = ["Tile", "Scene", "Among the", "OA", "Labelled pixels"]
    return Table(
        "extreme_tiles", "Tiles with the lowest and the highest overall accuracy.", columns, rows, frozenset({3, 4})
    )
