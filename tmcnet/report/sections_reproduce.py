"""Numbers and tables of the sections that close the page: time, and how to reproduce."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import pandas as pd
import yaml

from tmcnet.report.files import read_json, read_table
from tmcnet.report.results import Results
from tmcnet.report.scores import ALL_METRICS


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
        "study": results.study,
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
