"""Saved searches: addresses of the MLflow UI that open with runs filtered, grouped and in useful columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from tmcnet.config import Config
from tmcnet.config.training import BASELINE

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCAL_UI = "http://127.0.0.1:5000"
"""Where `make mlflow` opens the UI."""
CURRENT_FILTER = "tags.kind = 'finetune' AND tags.state = 'current'"
"""Selects the fine-tuned runs that the sweep names."""
SHARED_VIEW_TAG = "mlflow.sharedViewState."
SHARED_VIEW_QUERY = "viewStateShareKey"
"""The "Share" button of the UI stores a view as a tag of the experiment and opens it by its key. Nothing else saves
columns and groups, and there is no Python API for it; a test compares these names with the installed UI."""
COMPARE_TITLE = "Means by label fraction, method and network"
MAX_COMPARED_RUNS = 50
"""More make neither a readable page nor an address that every browser accepts."""
RUN_NAME = "attributes.`Run Name`"


def save_searches(
    client: MlflowClient, experiment: str, uri: str, config: Config, runs: list[str]
) -> list[dict[str, str]]:
    """Save views in the experiment and return all searches.

    Args:
        client: The tracking server.
        experiment: Id of the experiment.
        uri: The tracking address; unless it is HTTP, the links lead to the UI of `make mlflow`.
        config: Gives the headline metric and the methods.
        runs: Ids of the current fine-tuned runs, for the page that compares them.

    Returns:
        For each search `title`, `url`, and `filter`: text for the search field that selects the same runs.
    """
    page = f"{ui_address(uri)}/#/experiments/{experiment}/runs"
    metric = config.report.metric
    tags = _differing_tags(config)
    groups = [tag for tag in tags if tag not in ("draw", "seed")]
    views = {
        "tmcnet-runs": ("All fine-tuned runs, best first", _view(metric, tags, [])),
        "tmcnet-compare": (COMPARE_TITLE, _view(metric, tags, groups)),
    }
    links = []
    for key, (title, view) in views.items():
        client.set_experiment_tag(experiment, f"{SHARED_VIEW_TAG}{key}", json.dumps(view))
        links.append((title, f"{page}?{SHARED_VIEW_QUERY}={key}", CURRENT_FILTER))
    for method in sorted({run.method for run in config.runs}):
        search = f"{CURRENT_FILTER} AND tags.method = '{method}'"
        query = urlencode({"searchFilter": search, "orderByKey": f"metrics.`{metric}`", "orderByAsc": "false"})
        links.append((f"Runs that start from {method}", f"{page}?{query}", search))
    if 1 < len(runs) <= MAX_COMPARED_RUNS:
        query = urlencode({"runs": json.dumps(runs), "experiments": json.dumps([experiment])})
        links.append(("Runs side by side", f"{ui_address(uri)}/#/compare-runs?{query}", CURRENT_FILTER))
    return [{"title": title, "url": url, "filter": search} for title, url, search in links]


def ui_address(uri: str) -> str:
    """Address of the UI in a browser, without the user name and password of the server's address."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return LOCAL_UI
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"


def run_address(uri: str, experiment: str, run_id: str) -> str:
    """The page of one run; empty for an empty id."""
    return f"{ui_address(uri)}/#/experiments/{experiment}/runs/{run_id}" if run_id else ""


def _differing_tags(config: Config) -> list[str]:
    """Fraction, method, network and the other tags in which the runs of the sweep differ."""
    runs = [run.record for run in config.runs if run.variant != BASELINE] or [run.record for run in config.runs]
    others = [tag for tag in ("points", "variant", "draw", "seed") if len({run[tag] for run in runs}) > 1]
    return ["fraction", "method", "network", *others]


def _view(metric: str, tags: list[str], groups: list[str]) -> dict[str, Any]:
    """A view of the UI: filter, order, columns, and the tags over which runs are averaged."""
    others = [m for m in ("miou", "oa", "kappa", "mf1") if m != metric]
    scores = [metric, f"all_seeds/{metric}_low", f"all_seeds/{metric}_high", *others, "boundary_f1"]
    narrow = [f"tags.`{tag}`" for tag in tags]
    columns = [*narrow, *(f"metrics.`{s}`" for s in scores)]
    grouping = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": g} for g in groups]}
    return {
        "searchFilter": CURRENT_FILTER,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": False,
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "columnOrder": [RUN_NAME, *columns],
        "columnWidths": {RUN_NAME: 440 if groups else 320, **dict.fromkeys(narrow, 100)},
        "groupBy": grouping if groups else None,
    }
