"""Numbers and tables of the sections that open and close the page: summary, time, how to reproduce."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import pandas as pd
import yaml

from tmcnet.report.figures_runs import draw_label_efficiency
from tmcnet.report.files import read_json, read_table
from tmcnet.report.names import modality_titles, network_label, series_order
from tmcnet.report.results import Results
from tmcnet.report.scores import METRICS, PLAIN_METRICS
from tmcnet.report.sections_scores import label_efficiency
from tmcnet.report.verdict import verdict


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


def time(results: Results) -> dict[str, Any]:
    """Time and memory of the stages."""
    table = results.benchmarks
    if table.empty:
        return {"tables": {}}
    sums = {f"total_{key}": float(table[key].sum()) for key in ("seconds", "cpu_seconds")}
    return {**sums, "tables": {"time": table.reset_index()}}


def reproduce(results: Results, provenance: dict[str, str]) -> dict[str, Any]:
    """Versions of code, data, config and libraries, and the records in MLflow."""
    manifest = provenance.get("manifest_sha256", results.manifest_hash or "no manifest")
    tracked = read_table(results.root / "tracking.csv", as_text=True)
    tracked = tracked[tracked["status"] != "stale"] if "status" in tracked else tracked
    urls = list(tracked["url"]) if "url" in tracked else [""] * len(tracked)
    shown = [str(column) for column in tracked.columns if column != "url"]
    links = read_json(results.root / "tracking.json").get("links")
    return {
        "provenance": {**provenance, "manifest_sha256": manifest},
        "config": yaml.safe_dump(results.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "run_count": len(results.scores.table),
        "run_table": _runs_text(results),
        "links": [link for link in links if is_web_address(link.get("url"))] if isinstance(links, list) else [],
        "columns": [(column.replace("_", " ").capitalize(), None, column) for column in shown],
        "recorded": tracked.assign(link=[url if is_web_address(url) else "" for url in urls]),
        "tables": {"versions": _versions()} | ({} if tracked.empty else {"tracking": tracked}),
    }


def _runs_text(results: Results) -> str:
    """Scores of all runs as text; empty without any."""
    table = results.scores.table
    if table.empty:
        return ""
    keys = ["network", "variant", "method", "fraction", "points", "draw", "seed"]
    columns = [column for column in (*keys, *METRICS, *PLAIN_METRICS) if column in table]
    return str(table[columns].to_string(index=False, float_format=lambda v: f"{v:.4g}"))


def _versions() -> pd.DataFrame:
    """Installed versions of the libraries that this package requires."""
    named = (re.match(r"[\w.-]+", text) for text in requires("tmcnet") or [] if "extra ==" not in text)
    libraries = sorted({match[0] for match in named if match})
    return pd.DataFrame({"library": libraries, "version": [_version(library) for library in libraries]})


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def is_web_address(address: object) -> bool:
    """Whether an address from a file leads to a web page, and not to a script."""
    return isinstance(address, str) and address.startswith(("http://", "https://"))
