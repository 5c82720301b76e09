"""Numbers and tables of the sections that open and close the page: summary with verdict, time, how to reproduce."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import groupby
from typing import Any

import pandas as pd
import yaml

from tmcnet.config import PIXELWISE, RANDOM_START, SINGLE_SENSOR
from tmcnet.report.files import read_json, read_table
from tmcnet.report.names import modality_titles, network_label, series_order
from tmcnet.report.results import Results
from tmcnet.report.scores import ALL_METRICS, MIN_RUNS, Comparison, Scores
from tmcnet.report.sections_scores import draw_label_efficiency, label_efficiency

FUSION = ("mssnet", "late_fusion", "early_fusion")


def summary(results: Results) -> dict[str, Any]:
    """Data, runs, the headline figure and the verdict."""
    config, index, runs = results.config, results.index, results.config.runs
    section = {
        "name": config.name,
        "layout": config.source.layout,
        "tiles": len(index),
        "scenes": index["scene"].nunique() if "scene" in index else 0,
        "sensors": {t: config.sensors[name].bands for name, t in modality_titles(config.sensors).items()},
        "classes": results.classes.names,
        "parts": {part: len(tiles) for part, tiles in results.parts.items()},
        "networks": list(dict.fromkeys(network_label(r.network, r.variant) for r in sorted(runs, key=series_order))),
        "starts": list(dict.fromkeys(run.method for run in runs)),
        "budgets": sorted({run.budget for run in runs}),
        "draws": len({run.draw for run in runs}),
        "seeds": len({run.seed for run in runs}),
        "scored": len(results.scored),
        "planned": len(runs),
        "verdict": verdict(results),
        "figures": {},
    }
    if not results.scores.table.empty:
        section["headline"] = label_efficiency(results, results.metric)
        section["figures"] = {"headline": draw_label_efficiency(results, results.metric, "headline")}
    return section


def verdict(results: Results) -> dict[str, Any]:
    """The paired differences that answer whether pre-training, fusion and deep networks pay.

    Returns:
        `scored`: whether there is any score. `starts`: of each pre-trained series, the differences to a random
        start, fewest labels first. `lead_starts`: those with the fewest labels of all. `fusion`: one difference for
        each single sensor. `baselines`: for each label budget the best deep network, the best pixel-wise baseline
        and their difference, or None. `runs`: fewest runs behind a mean. `missing`, `planned`: numbers of runs.
    """
    scores, metric = results.scores, results.metric
    found = [c for c in scores.comparisons if c.metric == metric]
    started = [c for c in found if _is_start(c)]
    of_main = _of_mssnet(started)
    return {
        "scored": not scores.table.empty,
        "metric": metric,
        "confidence": results.config.evaluate.confidence,
        "starts": [list(group) for _, group in groupby(of_main, key=lambda c: c.a)],
        "lead_starts": _of_mssnet([c for c in started if c.budget == min(s.budget for s in started)]),
        "fusion": [c for sensor in SINGLE_SENSOR if (c := _fusion(found, sensor))],
        "baselines": _baselines(scores, metric),
        "runs": scores.runs,
        "min_runs": MIN_RUNS,
        "missing": len(results.missing),
        "planned": len(results.config.runs),
    }


def _is_start(c: Comparison) -> bool:
    """Whether a difference is that of pre-training to a random start of the same network."""
    same = (c.a.network, c.a.variant) == (c.b.network, c.b.variant)
    return same and c.b.method == RANDOM_START and c.a.method != RANDOM_START


def _of_mssnet(comparisons: list[Comparison]) -> list[Comparison]:
    """Those of the main network, or all where it has none."""
    return [c for c in comparisons if c.a.network == "mssnet"] or comparisons


def _fusion(comparisons: list[Comparison], sensor: str) -> Comparison | None:
    """The main difference of fusion to one sensor with the same start: the main network, the most labels."""
    pairs = [c for c in comparisons if c.a.method == c.b.method and c.a.network in FUSION and c.b.network == sensor]
    pairs.sort(key=lambda c: c.budget, reverse=True)
    order = {network: rank for rank, network in enumerate(FUSION)}
    return min(pairs, key=lambda c: (order[c.a.network], c.a.variant == "reference"), default=None)


def _baselines(scores: Scores, metric: str) -> list[dict[str, Any]]:
    pixelwise = [s for s in scores.series if s.network in PIXELWISE]
    deep = [s for s in scores.series if s.network not in PIXELWISE]
    rows = []
    for budget in scores.budgets:
        network, baseline = scores.leader(budget, metric, deep), scores.leader(budget, metric, pixelwise)
        if network and baseline:
            comparison = scores.comparison(network, baseline, budget, metric)
            rows.append({"budget": budget, "network": network, "baseline": baseline, "comparison": comparison})
    return rows


def time(results: Results) -> dict[str, Any]:
    """Time and memory of the stages."""
    table = results.benchmarks
    if table.empty:
        return {"tables": {}}
    sums = {f"total_{key}": float(table[key].sum()) for key in ("seconds", "cpu_seconds")}
    return {**sums, "tables": {"time": table.reset_index()}}


def reproduce(results: Results, provenance: dict[str, str]) -> dict[str, Any]:
    """Versions of code, data, config and libraries, and the records in MLflow."""
    tracked = read_table(results.root / "tracking.csv", as_text=True)
    urls = list(tracked["url"]) if "url" in tracked else [""] * len(tracked)
    shown = [str(column) for column in tracked.columns if column != "url"]
    links = read_json(results.root / "tracking.json").get("links")
    versions = pd.DataFrame(library_versions().items(), columns=["library", "version"]).replace("", "not installed")
    return {
        "provenance": provenance,
        "config": yaml.safe_dump(results.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "run_count": len(results.scores.table),
        "run_table": _runs_text(results),
        "links": [link for link in links if is_web_address(link.get("url"))] if isinstance(links, list) else [],
        "columns": [(column.replace("_", " ").capitalize(), None, column) for column in shown],
        "recorded": tracked.assign(link=[url if is_web_address(url) else "" for url in urls]),
        "tables": {"versions": versions} | ({} if tracked.empty else {"tracking": tracked}),
    }


def _runs_text(results: Results) -> str:
    """Scores of all runs as text; empty without any."""
    table = results.scores.table
    if table.empty:
        return ""
    keys = ["network", "variant", "method", "fraction", "points", "draw", "seed"]
    columns = [column for column in (*keys, *ALL_METRICS) if column in table]
    return str(table[columns].to_string(index=False, float_format=lambda v: f"{v:.4g}"))


def library_versions() -> dict[str, str]:
    """Versions of the libraries that this package requires; empty for one that is not installed."""
    named = {re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in requires("tmcnet") or [] if "extra ==" not in text}
    return {name: _version(name) for name in sorted(named)}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def is_web_address(address: object) -> bool:
    """Whether an address from a file leads to a web page, and not to a script."""
    return isinstance(address, str) and address.startswith(("http://", "https://"))
